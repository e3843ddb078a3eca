"""Every recorded conversion of ComfyUI's own pages, and what we say where a page itself failed."""

from pathlib import Path

import pytest

from comfypin.workflow.convert.build_prompt import convert_workflow
from comfypin.workflow.errors import WorkflowInvalid
from comfypin.workflow.load import read_pack
from comfypin.workflow.object_info import Catalogue
from tests.support.conversions import (
    RECORDED_AT,
    Recording,
    catalogue_beside,
    differences,
    names_beside,
    own_names,
    own_recording,
    own_recordings,
    recording_beside,
)

PICTURES = "only a browser can take the pictures of a 3D scene"
BY_NAME = "values saved as an object are read by name, where the page loses them"
BY_ROWS = "an open input is connected by a row of links, as page 1.58 does it"
TEXT = "a number in a text of several lines is a text, as on page 1.58"
FIRST_ROW = "two wires reach a subgraph's output: the first row counts, as on page 1.58"
TWO_TARGETS = "a promoted primitive with two targets: page 1.49 takes the second one's value from elsewhere"
NO_GUESS = "page 1.49 takes another definition for one that the file lacks"

# What differs from the recorded page on purpose, as `node.input` (or a node), and why.
ON_PURPOSE: dict[str, tuple[str, set[str]]] = {
    "own_w_load3d": (PICTURES, {"1.image"}),
    "raw_preview3d_old": (PICTURES, {"1.image"}),
    "tpl_api_hunyuan3d_model2uv": (PICTURES, {"13.image"}),
    "tpl_api_hunyuan3d_part": (PICTURES, {"36.image"}),
    "tpl_api_hunyuan3d_retopo_uv": (PICTURES, {"265.image"}),
    "tpl_api_hunyuan3d_smart_topology": (PICTURES, {"1.image"}),
    "old_raw_dict_widgets_values": (
        BY_NAME,
        {"1.width", "1.height", "1.batch_size", "1.color", "3.seed", "3.steps", "3.cfg", "3.denoise"},
    ),
    "old_raw_broken_links_c": (BY_ROWS, {"2.images"}),
    "own_ag_subgraph_sources": (BY_ROWS, {"1.images.image1"}),
    "tpl_api_nano_banana_2_1_image_edit": (TEXT, {"4.system_prompt"}),
    "tpl_image_qwen_image_2_1_image_edit": (TEXT, {"459:484.on_false", "459:500.prompt"}),
    "tpl_image_qwen_image_2_1_turbo_image_edit": (TEXT, {"459:484.on_false", "459:500.prompt"}),
    "tpl_template_rob_realistic_2k_images_quick_variations": (
        FIRST_ROW,
        {"134.prompt", "136.source", "104:67.text"},
    ),
    "tpl_templates_graphic_design_recomposer": (TWO_TARGETS, {"143:157.model.aspect_ratio"}),
    "raw_g_missing_def": (NO_GUESS, {"1", "1:11", "1:12", "2.images"}),
}


def check(name: str, recorded: Recording, catalogue: Catalogue, *, newer: bool) -> None:
    if recorded.api is None:
        with pytest.raises(WorkflowInvalid) as caught:
            convert_workflow(recorded.ui, catalogue, choose=lambda options: options[0])
        assert caught.value.findings
        return
    conversion = convert_workflow(recorded.ui, catalogue, choose=lambda options: options[0])
    expected = ON_PURPOSE[name][1] if newer and name in ON_PURPOSE else set()
    assert differences(conversion.to_api(RECORDED_AT), recorded.api) == expected
    if not newer:
        missing = {finding.class_type for finding in conversion.unknown}
        assert missing <= set(recorded.missing)


@pytest.mark.parametrize(("version", "name"), own_names())
def test_a_conversion_is_the_pages(version: str, name: str) -> None:
    check(name, own_recording(version, name), own_recordings(version)["catalogue"], newer=version != "0.3.64")


@pytest.mark.parametrize(("version", "name"), names_beside() or [("none", "none")])
def test_a_templates_conversion_is_the_pages(version: str, name: str, captures: Path) -> None:
    assert captures.is_dir()
    check(name, recording_beside(version, name), catalogue_beside(version), newer=version != "0.3.64")


def test_a_saved_node_names_its_pack() -> None:
    assert read_pack({"cnr_id": "comfyui-kjnodes"}) == "comfyui-kjnodes"
    assert read_pack({"aux_id": "owner/repo"}) == "owner/repo"
    assert read_pack({"cnr_id": "comfy-core"}) is None

"""A graph against a node list: what is found, what is not, and by which pin."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfypin.lock.model import Lock, ModelPin, NodePin
from comfypin.workflow.errors import WorkflowInvalid
from comfypin.workflow.findings import raise_if_errors
from comfypin.workflow.input_checks import ClassValidation, check_value
from comfypin.workflow.object_info import InputSpec
from comfypin.workflow.parse import parse_graph
from comfypin.workflow.preflight import Preflight, run_preflight
from comfypin.workflow.smallest_graph import smoke_graph
from tests.support.node_list import CATALOGUE

EMPTY = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}
SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}


def check(nodes: dict[str, Any], **kwargs: Any) -> Preflight:
    return run_preflight(parse_graph(nodes), CATALOGUE, **kwargs)


def empty(**inputs: object) -> dict[str, object]:
    return {"class_type": "EmptyImage", "inputs": {**EMPTY["inputs"], **inputs}}  # type: ignore[dict-item]


def codes(report: Preflight) -> list[tuple[str | None, str, str]]:
    return [(finding.node_id, finding.code, finding.severity) for finding in report.findings]


def test_the_smoke_graph_passes() -> None:
    assert run_preflight(smoke_graph(), CATALOGUE).findings == ()


@pytest.mark.parametrize("value", [512, 512.7, "512", True, " 7 ", "1_0"])
def test_what_the_server_converts_is_let_pass(value: object) -> None:
    assert check({"1": empty(width=value), "2": SAVE}).findings == ()


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"width": 99999}, "too_big"),
        ({"width": 0}, "too_small"),
        ({"width": "red"}, "wrong_type"),
        ({"width": None}, "wrong_type"),
        ({"width": []}, "bad_link"),
        ({"width": ["9", 0]}, "bad_link"),
        ({"width": ["1", 0, 0]}, "bad_link"),
    ],
)
def test_a_value_that_the_server_refuses_is_named(inputs: dict[str, object], code: str) -> None:
    report = check({"1": empty(**inputs), "2": SAVE})
    assert codes(report) == [("1", code, "error")]
    assert report.findings[0].input_name == "width"


def test_everything_is_found_at_once() -> None:
    report = check(
        {
            "1": {"class_type": "EmptyImages", "inputs": {}},
            "2": {"class_type": "SaveImage", "inputs": {}},
            "3": {"class_type": "ImageScale", "inputs": {"image": ["4", 1], "method": "area"}},
            "4": {"class_type": "LoadImage", "inputs": {"image": "nope.png"}},
            "5": {"class_type": "PreviewImage", "inputs": {"images": ["3", 5]}},
        }
    )
    assert codes(report) == [
        ("1", "class_unknown", "error"),
        ("2", "input_missing", "error"),
        ("2", "input_missing", "error"),
        ("3", "link_type", "error"),
        ("4", "not_in_list", "error"),
        ("5", "bad_link", "error"),
    ]
    assert report.findings[0].closest[0] == "EmptyImage"
    assert "ComfyUI here does not have the node EmptyImages; install its node pack" in report.findings[0].message
    with pytest.raises(WorkflowInvalid) as caught:
        report.raise_if_refused("w.json")
    assert len(caught.value.findings) == 6
    assert "did you mean 'EmptyImage'" in caught.value.message


def test_a_branch_that_fails_beside_one_that_runs_is_refused_naming_the_output_it_costs() -> None:
    report = check({"1": EMPTY, "2": SAVE, "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}})
    assert report.dropped == ("9",)
    assert "leave out the outputs of node 9" in report.errors[0].message


def test_nodes_that_no_output_needs_are_not_checked() -> None:
    assert check({"1": EMPTY, "2": SAVE, "3": {"class_type": "ImageScale", "inputs": {}}}).findings == ()


def test_a_graph_without_outputs_has_nothing_to_run() -> None:
    assert codes(check({"1": EMPTY})) == [(None, "no_outputs", "error")]
    assert codes(check({})) == [(None, "no_outputs", "error")]


def test_a_cycle_is_named_with_its_nodes() -> None:
    scale = {"class_type": "ImageScale", "inputs": {"image": ["4", 0], "method": "area"}}
    report = check({"3": scale, "4": {**scale, "inputs": {"image": ["3", 0], "method": "area"}}, "2": {
        "class_type": "PreviewImage", "inputs": {"images": ["3", 0]}}})  # fmt: skip
    assert codes(report) == [("3", "cycle", "error")]
    assert "3 -> 4 -> 3" in report.findings[0].message


@pytest.mark.parametrize(
    "source",
    [
        {"class_type": "Either", "inputs": {"value": ["1", 0]}},
        {"class_type": "AnyToImage", "inputs": {"value": ["1", 0], "n": 1}},
        {"class_type": "Grow", "inputs": {"images.image0": ["1", 0]}},
    ],
)
def test_unions_wildcards_and_dynamic_inputs_are_accepted(source: dict[str, object]) -> None:
    preview = {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}}
    assert check({"1": EMPTY, "5": source, "2": preview}).findings == ()


def test_what_a_pack_may_accept_by_itself_is_a_warning() -> None:
    nodes = {"1": EMPTY, "5": {"class_type": "AnyToImage", "inputs": {"value": ["1", 0], "n": 0}}, "2": {
        "class_type": "PreviewImage", "inputs": {"images": ["5", 0]}}}  # fmt: skip
    assert codes(check(nodes)) == [("5", "too_small", "warning")]


def test_a_model_of_an_empty_folder_is_said_to_be_missing() -> None:
    spec = InputSpec(name="ckpt_name", category="required", type="COMBO", choices=(), options={})
    refusal = check_value("sd.safetensors", spec, ClassValidation(core=True))
    assert refusal is not None
    assert (refusal.code, refusal.certain) == ("not_in_list", True)
    assert refusal.message.startswith("'sd.safetensors' is not there: this ComfyUI lists nothing for ckpt_name")


def test_a_file_that_the_job_brings_need_not_be_in_the_engine() -> None:
    nodes = {"1": {"class_type": "LoadImage", "inputs": {"image": "mine.png"}}, "2": SAVE}
    assert check(nodes, brought={("1", "image")}).findings == ()
    assert [finding.code for finding in check(nodes).findings] == ["not_in_list"]


@pytest.mark.parametrize("name", ["a.png", "a.png [input]", "x.png [output]", "sub/x.png"])
def test_a_file_that_the_engine_may_have_is_let_pass(name: str) -> None:
    assert check({"1": {"class_type": "LoadImage", "inputs": {"image": name}}, "2": SAVE}).findings == ()


LOCK = Lock(
    version_name="r1",
    models=(ModelPin(name="flux", target_path="$MODELS_DIR/checkpoints/f/flux.safetensors"),),
    custom_nodes=(
        NodePin(name="pack", repo="https://example.org/x/Pack.git"),
        NodePin(name="Impact", repo="https://example.org/x/ComfyUI-Impact-Pack"),
    ),
)


def decode(ckpt: str) -> dict[str, Any]:
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": ckpt}},
        "3": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "seed": 1, "cfg": 1, "sampler_name": "euler",
              "add_noise": True, "text": ""}},
        "4": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["1", 2]}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}},
    }  # fmt: skip


def test_a_model_that_is_not_there_is_named_with_its_pin() -> None:
    (finding,) = check(decode("f/flux.safetensors"), lock=LOCK).findings
    assert finding.pin == "flux"
    assert "comfypin" not in finding.message
    with pytest.raises(WorkflowInvalid) as caught:
        raise_if_errors("w.json", [replace(finding, severity="error")])
    assert "comfypin models pull" in caught.value.command_message


def test_a_model_that_no_pin_brings_is_told_with_the_closest_files() -> None:
    (finding,) = check(decode("base.safetensors"), lock=LOCK).findings
    assert finding.pin is None
    assert finding.closest[0] == "xl/base.safetensors"
    assert "no model pin of the release r1" in finding.message


def test_a_missing_class_is_laid_to_the_pin_that_did_not_load() -> None:
    (finding,) = check({"1": {"class_type": "ImpactWildcardProcessor"}}, lock=LOCK).findings
    assert finding.pin == "Impact"
    assert "did not load" in finding.message


def test_a_deep_chain_and_a_mesh_of_cycles_take_no_recursion() -> None:
    count = 5_000
    chain = {
        str(i): {"class_type": "ImageScale", "inputs": {"image": [str((i + 1) % count), 0], "method": "area"}}
        for i in range(count)
    }
    report = check({**chain, "out": {"class_type": "PreviewImage", "inputs": {"images": ["0", 0]}}})
    assert [finding.code for finding in report.findings] == ["cycle"]
    assert len(report.findings[0].message) < 500


RECORDED = {
    "a_unknown_class": {"1": {"class_type": "NoSuchNode", "inputs": {}}},
    "b2_missing_link_input": {"1": EMPTY, "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}},
    "b_missing_required": {"1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1}},
                           "2": SAVE},
    "c2_value_too_big": {"1": empty(width=99999), "2": SAVE},
    "c3_value_too_small": {"1": empty(width=0), "2": SAVE},
    "c5_type_mismatch_link": {"1": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 8, "height": 8}},
                              "2": SAVE},
    "c_bad_value_type": {"1": empty(color="red"), "2": SAVE},
    "d_empty_prompt": {},
    "e_no_output_node": {"1": EMPTY},
    "g2_bad_slot": {"1": EMPTY, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 5],
                                                                              "filename_prefix": "x"}}},
    "g3_link_len3": {"1": EMPTY, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0, 0],
                                                                               "filename_prefix": "x"}}},
    "g_dangling_link": {"2": {"class_type": "SaveImage", "inputs": {"images": ["99", 0], "filename_prefix": "x"}}},
    "i_loadimage_missing_file": {"1": {"class_type": "LoadImage", "inputs": {"image": "nope.png"}}, "2": SAVE},
    "j_one_good_one_bad_output_is_200": {"1": EMPTY, "2": SAVE, "9": {"class_type": "SaveImage",
                                                                        "inputs": {"filename_prefix": "x"}}},
    "k_checkpoint_not_there": {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["1", 0], "vae": ["1", 2]}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}}},
    "l2_float_as_int": {"1": empty(width=8.7), "2": SAVE},
    "l3_numeric_string_as_int": {"1": empty(width="8"), "2": SAVE},
    "l_bool_as_int": {"1": empty(width=True), "2": SAVE},
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDED)
def test_the_verdict_is_the_recorded_servers(name: str, captures: Path) -> None:
    catalogue = json.loads((captures / "http" / "object_info.json").read_text())
    recorded = json.loads((captures / "http" / f"prompt_err_{name}.json").read_text())
    report = run_preflight(parse_graph(RECORDED[name]), catalogue)
    refused = recorded["body"]["node_errors"]
    assert bool(report.errors) == (recorded["status"] == 400 or bool(refused))
    assert set(refused) <= {finding.node_id for finding in report.findings}
    assert bool(report.dropped) == (recorded["status"] == 200 and bool(refused))


def movie(**inputs: object) -> dict[str, Any]:
    dotted = {name.replace("__", "."): value for name, value in inputs.items()}
    return {"1": EMPTY, "2": {"class_type": "SaveMovie", "inputs": {"filename_prefix": "x", **dotted}}}


WHOLE = {"images__image0": ["1", 0], "format": "mp4", "format__codec": "auto", "format__fps": 24}


def test_a_whole_node_with_dynamic_inputs_passes() -> None:
    assert check(movie(**WHOLE)).findings == ()


@pytest.mark.parametrize(
    ("inputs", "code", "name"),
    [
        ({"format": "webp"}, "option_unknown", "format"),
        ({"format": None}, "option_unknown", "format"),
        ({"format": ["1", 0]}, "option_wired", "format"),
        ({"format__codec": "vp9"}, "option_unknown", "format.codec"),
        ({"format__codec": "h264", "format__codec__crf": 99}, "too_big", "format.codec.crf"),
        ({"format__codec": "h264"}, "input_missing", "format.codec.crf"),
        ({"format__codec": ["1", 0]}, "option_wired", "format.codec"),
        ({"format__codec__crf": ["1", 0]}, "input_unexpected", "format.codec.crf"),
        ({"images__image1": ["7", 0]}, "bad_link", "images.image1"),
        ({"images__image9": ["1", 0]}, "input_unexpected", "images.image9"),
        ({"images__image0": ["1", 3]}, "bad_link", "images.image0"),
    ],
)
def test_what_is_wrong_with_a_dynamic_input_is_named_by_its_dotted_name(
    inputs: dict[str, object], code: str, name: str
) -> None:
    found = [one for one in check(movie(**{**WHOLE, **inputs})).errors if one.input_name == name]
    assert [one.code for one in found] == [code]


def test_an_absent_option_and_an_absent_item_of_a_list_are_named() -> None:
    report = check(movie())
    assert {(one.code, one.input_name) for one in report.errors} == {
        ("option_missing", "format"),
        ("input_missing", "images.image0"),
    }
    assert "one of 'mp4', 'webm', 'gif'" in " ".join(one.message for one in report.errors)


def test_an_unknown_option_says_which_is_near() -> None:
    (finding,) = [one for one in check(movie(**{**WHOLE, "format": "MP-4"})).errors if one.input_name == "format"]
    assert finding.closest == ("mp4",)


def test_a_value_under_an_option_that_does_not_bring_it_is_a_warning() -> None:
    report = check(movie(**WHOLE, format__loop=True))
    assert [(one.code, one.severity, one.input_name) for one in report.findings] == [
        ("input_unexpected", "warning", "format.loop")
    ]


def test_nodes_that_are_wired_to_an_item_of_a_list_are_checked() -> None:
    nodes = movie(**WHOLE, images__image1=["3", 0])
    report = check({**nodes, "3": {"class_type": "EmptyImage", "inputs": {"width": 0}}})
    assert {"3"} == {one.node_id for one in report.errors}


@pytest.mark.parametrize("more", [{}, {"codec": "h264"}])
def test_save_video_takes_prompts_from_before_its_format_brought_inputs(more: dict[str, object]) -> None:
    catalogue = {**CATALOGUE, "SaveVideo": {**CATALOGUE["SaveMovie"]}}
    inputs = {"images.image0": ["1", 0], "filename_prefix": "x", "format": "webm", "format.loop": True, **more}
    nodes = {"1": EMPTY, "2": {"class_type": "SaveVideo", "inputs": inputs}}
    assert run_preflight(parse_graph(nodes), catalogue).findings == ()


def test_an_engine_that_compares_the_newer_schemas_choices_refuses_others() -> None:
    nodes = {
        "1": EMPTY,
        "3": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "method": "cubic"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }
    newer = {name: {**one, "has_intermediate_output": False} for name, one in CATALOGUE.items()}
    assert codes(run_preflight(parse_graph(nodes), CATALOGUE)) == [("3", "not_in_list", "warning")]
    assert codes(run_preflight(parse_graph(nodes), newer)) == [("3", "not_in_list", "error")]


def test_a_class_that_checks_its_values_itself_is_left_to_it() -> None:
    combo = {"input": {"required": {"choice": ["COMBO", {"options": []}]}}, "output": ["STRING"], "output_node": True}
    catalogue = {"CustomCombo": {**combo, "python_module": "comfy_extras.nodes_logic", "has_intermediate_output": True}}
    nodes = {"1": {"class_type": "CustomCombo", "inputs": {"choice": "mine", "index": 0, "option1": "mine"}}}
    assert run_preflight(parse_graph(nodes), catalogue).findings == ()


def test_what_only_a_browser_can_make_is_said_before_it_fails() -> None:
    scene = {"input": {"required": {"image": ["LOAD_3D", {}]}}, "output": ["IMAGE"], "python_module": "nodes"}
    for value, expected in (("", [("1", "needs_browser", "error")]), ({"image": "a.png"}, [])):
        nodes = {"1": {"class_type": "Scene", "inputs": {"image": value}}, "2": SAVE}
        assert codes(run_preflight(parse_graph(nodes), {**CATALOGUE, "Scene": scene})) == expected

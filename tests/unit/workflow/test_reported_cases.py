"""Workflows from public reports: what is read, taken and refused of each."""

import json
from typing import Any

import pytest

from comfypin.workflow.document import to_document
from comfypin.workflow.errors import WorkflowInvalid
from comfypin.workflow.input_files import file_inputs
from comfypin.workflow.load import Workflow, load_workflow
from comfypin.workflow.overrides import apply_overrides, parse_override
from comfypin.workflow.parse import parse_graph
from comfypin.workflow.preflight import run_preflight
from comfypin.workflow.release_check import check_workflow
from tests.conftest import shared_path
from tests.support.node_list import CATALOGUE, definition


def case(path: str) -> Any:
    return json.loads((shared_path("cases") / "workflows" / path).read_text(encoding="utf-8"))


def catalogue() -> Any:
    return json.loads((shared_path("captures") / "comfyui-0.33" / "object_info.json").read_text(encoding="utf-8"))


def loaded(path: str, classes: Any) -> Workflow:
    return load_workflow(to_document(case(path), source=path), classes)


@pytest.mark.parametrize("target", ["2", "WD14 Tagger \N{SNAKE}", "WD14Tagger|pysssss"])
def test_odd_class_names_are_known_and_can_be_set(target: str) -> None:
    tagger = definition(
        {"image": ["IMAGE"], "threshold": ["FLOAT", {}], "exclude_tags": ["STRING", {}]}, output_node=True
    )
    classes = {**CATALOGUE, "WD14Tagger|pysssss": tagger}
    graph = parse_graph(case("07-odd-class-names/api.json"))
    assert run_preflight(graph, classes).findings == ()
    changed = apply_overrides(graph, [parse_override(f"{target}.threshold=0.5")], catalogue=classes)
    assert changed.nodes["2"].inputs["threshold"] == 0.5


def test_a_node_without_class_is_named_with_the_reason() -> None:
    with pytest.raises(WorkflowInvalid, match=r'node 2 \("Some Missing Node"\): .*pack is not installed'):
        parse_graph(case("08-node-without-class/api.json"))


def test_a_choice_in_other_letters_is_taken_with_a_warning() -> None:
    classes = catalogue()
    report = check_workflow(loaded("11-combo-case/wf.json", classes), classes, None)
    assert report.can_run
    assert [one.closest for one in report.preflight.findings] == [("bilinear",), ("disabled",)]


def test_values_by_name_beside_the_list_are_read_without_complaint() -> None:
    classes = catalogue()
    report = check_workflow(loaded("12-named-widget-values/wf.json", classes), classes, None)
    assert report.preflight.findings == ()


@pytest.mark.parametrize(("path", "name"), [("job.json", "кот 猫 (1)....png"), ("clipspace.json", "clipspace\\m.png")])
def test_odd_names_of_files_are_shown_right(path: str, name: str) -> None:
    workflow = loaded(f"14-input-names/{path}", CATALOGUE)
    assert [one.name for one in file_inputs(workflow.graph, CATALOGUE)] == [name]


def test_nan_in_a_pictures_metadata_is_no_obstacle() -> None:
    assert loaded("21-nan-in-picture-metadata/job.json", CATALOGUE).graph.nodes


def test_a_windows_path_is_the_file_that_it_means() -> None:
    classes = catalogue()
    loader = classes["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"]
    loader[0] = ["XL/anime-xl.safetensors"]
    report = check_workflow(loaded("26-windows-model-path/core.json", classes), classes, None)
    assert report.can_run
    assert [(one.file, one.present) for one in report.models] == [("XL/anime-xl.safetensors", True)]


def test_a_value_out_of_range_is_named() -> None:
    report = run_preflight(parse_graph(case("35-values-out-of-range/job.json")), CATALOGUE)
    assert [(one.code, one.input_name) for one in report.errors] == [("too_small", "color")]

"""Classes that others replaced: graphs are rewritten as ComfyUI's server does it."""

from typing import Any

import pytest

from comfypin.workflow.document import to_document
from comfypin.workflow.load import load_workflow
from comfypin.workflow.object_info import EngineCatalogue
from comfypin.workflow.parse import parse_graph
from comfypin.workflow.replacements import ReplacedGraph, replace_classes
from tests.support.node_list import CATALOGUE, definition

CLASSES = {
    **CATALOGUE,
    "ControlNetLoader": definition({"control_net_name": [["a.pt"], {}]}, output=["CONTROL_NET"]),
    "ConditioningAverage": definition({"strength": ["FLOAT"]}, output=["CONDITIONING"]),
}
TOLD = {
    "ImageBatch": [
        {
            "new_node_id": "SaveMovie",
            "input_mapping": [
                {"new_id": "images.image0", "old_id": "image1"},
                {"new_id": "images.image1", "old_id": "image2"},
                {"new_id": "format", "set_value": "webm"},
            ],
            "output_mapping": [{"old_idx": 0, "new_idx": 2}],
        },
        {"new_node_id": "SaveImage"},
    ],
    "Gone": [{"new_node_id": "GoneToo"}, {"new_node_id": "SaveImage"}],
    "SaveImage": [{"new_node_id": "SaveMovie"}],
}


def replaced(nodes: dict[str, Any], told: Any = None) -> ReplacedGraph:
    return replace_classes(parse_graph(nodes), CLASSES if told is None else EngineCatalogue(CLASSES, told))


def one(kind: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def test_inputs_get_their_new_names_and_values_and_wires_their_new_outputs() -> None:
    nodes = {
        "1": one("EmptyImage"),
        "2": one("ImageBatch", image1=["1", 0], image2=["1", 0]),
        "3": one("PreviewImage", images=["2", 0]),
    }
    found = replaced(nodes, TOLD)
    assert found.graph.to_api()["2"] == {
        "class_type": "SaveMovie",
        "inputs": {"images.image0": ["1", 0], "images.image1": ["1", 0], "format": "webm"},
    }
    assert found.graph.to_api()["3"] == one("PreviewImage", images=["2", 2])
    assert [(each.code, each.severity, each.node_id) for each in found.findings] == [("class_replaced", "warning", "2")]


def test_an_input_that_the_mapping_names_and_the_node_lacks_is_left_out() -> None:
    found = replaced({"1": one("EmptyImage"), "2": one("ImageBatch", image1=["1", 0])}, TOLD)
    assert found.graph.nodes["2"].inputs.keys() == {"images.image0", "format"}


@pytest.mark.parametrize("kind", ["SaveImage", "Gone", "Unheard"])
def test_a_class_that_is_there_or_has_no_known_heir_stays(kind: str) -> None:
    found = replaced({"1": one(kind, a=1)}, TOLD)
    assert (found.graph.nodes["1"].class_type, found.findings) == (kind, ())


def test_comfyuis_own_replacements_are_known_without_asking() -> None:
    found = replaced(
        {"1": one("T2IAdapterLoader", t2i_adapter_name="a.pt"), "2": one("ConditioningAverage ", strength=1)}
    )
    assert found.graph.to_api() == {
        "1": one("ControlNetLoader", control_net_name="a.pt"),
        "2": one("ConditioningAverage", strength=1),
    }


@pytest.mark.parametrize(
    "told", [{"ImageBatch": None}, {"ImageBatch": []}, {"ImageBatch": [1]}, {"ImageBatch": [{"new_node_id": 7}]}]
)
def test_an_answer_of_another_shape_replaces_nothing(told: Any) -> None:
    assert replaced({"1": one("ImageBatch")}, told).findings == ()


def test_a_workflow_in_api_format_is_replaced_as_it_is_read() -> None:
    document = to_document({"1": one("T2IAdapterLoader", t2i_adapter_name="a.pt")}, source="w")
    workflow = load_workflow(document, CLASSES)
    assert workflow.graph.nodes["1"].class_type == "ControlNetLoader"
    assert len(workflow.warnings) == 1


def test_a_prompt_has_meta_in_every_node() -> None:
    graph = parse_graph({"1": one("EmptyImage"), "2": {**one("SaveImage"), "_meta": {"title": "Save"}}})
    assert [node["_meta"] for node in graph.to_prompt().values()] == [{}, {"title": "Save"}]  # type: ignore[call-overload,index]

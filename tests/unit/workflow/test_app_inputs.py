"""App mode: the inputs that a workflow's author chose, in that order, also through subgraphs and primitives."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from comfypin.digest import JsonValue
from comfypin.workflow.app_inputs import app_inputs, offered_inputs, with_shared_places
from comfypin.workflow.document import to_document
from comfypin.workflow.errors import OverrideInvalid
from comfypin.workflow.inputs_file import load_inputs_file, overrides_by_name
from comfypin.workflow.load import Workflow, load_workflow
from comfypin.workflow.object_info import Catalogue
from comfypin.workflow.overrides import Override, apply_overrides
from comfypin.workflow.settable_inputs import WorkflowInput, input_names, input_schema
from tests.support.node_list import definition
from tests.support.ui_graphs import node, ui

CATALOGUE: Catalogue = {
    "Load": definition({"image": [["a.png"], {"image_upload": True}]}, output=["IMAGE"]),
    "Blend": definition(
        {
            "a": ["IMAGE"],
            "factor": ["FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0}],
            "text": ["STRING", {"multiline": True, "default": ""}],
        },
        output=["IMAGE"],
    ),
    "Save": definition({"images": ["IMAGE"], "name": ["STRING", {"default": "x"}]}, output=[], output_node=True),
}


def slot(name: str, link: int | None, kind: str = "*", *, widget: bool = False) -> dict[str, Any]:
    return {"name": name, "type": kind, "link": link, **({"widget": {"name": name}} if widget else {})}


def inside(*numbers: int) -> dict[str, Any]:
    """A subgraph of a chain of Blend nodes; its input `strength` is the factor of them all."""
    first, last = numbers[0], numbers[-1]
    nodes = [
        node(
            number,
            "Blend",
            [0.25, f"text {number}"],
            inputs=[
                slot("a", 100 + number, "IMAGE"),
                slot("factor", 200 + number, "FLOAT", widget=True),
                slot("text", 300 if number == first else None, "STRING", widget=True),
            ],
        )
        for number in numbers
    ]
    links = [
        {"id": 100 + first, "origin_id": -10, "origin_slot": 0, "target_id": first, "target_slot": 0},
        *(
            {"id": 100 + after, "origin_id": before, "origin_slot": 0, "target_id": after, "target_slot": 0}
            for before, after in itertools.pairwise(numbers)
        ),
        *(
            {"id": 200 + number, "origin_id": -10, "origin_slot": 1, "target_id": number, "target_slot": 1}
            for number in numbers
        ),
        {"id": 300, "origin_id": -10, "origin_slot": 2, "target_id": first, "target_slot": 2},
        {"id": 400, "origin_id": last, "origin_slot": 0, "target_id": -20, "target_slot": 0},
    ]
    return {
        "id": "sub",
        "name": "Blends",
        "nodes": nodes,
        "links": links,
        "inputs": [
            {"name": "a", "type": "IMAGE", "linkIds": [100 + first]},
            {"name": "strength", "type": "FLOAT", "linkIds": [200 + number for number in numbers]},
            {"name": "prompt", "type": "STRING", "linkIds": [300]},
        ],
        "outputs": [{"name": "IMAGE", "type": "IMAGE", "linkIds": [400]}],
    }


def workflow(*entries: Sequence[object], outputs: object = None, **extra: Any) -> Workflow:
    """A picture (1) through a subgraph of two nodes (7) into a file (3); another picture (4) goes nowhere."""
    instance = node(
        7,
        "sub",
        [0.75, "a cat"],
        inputs=[slot("a", 1, "IMAGE"), slot("strength", None, widget=True), slot("prompt", None, widget=True)],
        outputs=[{"name": "IMAGE", "type": "IMAGE", "links": [2]}],
    )
    nodes = [
        node(1, "Load", ["a.png"], outputs=[{"name": "IMAGE", "type": "IMAGE", "links": [1]}]),
        instance,
        node(3, "Save", ["x"], wires={"images": 2}),
        node(4, "Load", ["a.png"], mode=2),
    ]
    linear = {"linearData": {"inputs": [list(entry) for entry in entries], "outputs": outputs or ["3"]}, **extra}
    links = [[1, 1, 0, 7, 0, "IMAGE"], [2, 7, 0, 3, 0, "IMAGE"]]
    content = ui(nodes, links, definitions={"subgraphs": [inside(5, 6)]}, extra=linear, id="root-graph")
    return load_workflow(to_document(content, source="test"), CATALOGUE)


def chosen(*entries: Sequence[object]) -> tuple[WorkflowInput, ...]:
    return app_inputs(workflow(*entries), CATALOGUE)


def facts(*entries: Sequence[object]) -> list[tuple[str, str, str]]:
    return [(one.name, one.kind, one.target) for one in chosen(*entries)]


def test_chosen_inputs_keep_their_order_and_have_kinds() -> None:
    assert facts(["7", "prompt"], [3, "name"], [1, "image"]) == [
        ("prompt", "prompt", "7:5.text"),
        ("name", "text", "3.name"),
        ("image", "file", "1.image"),
    ]


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        (["root-graph:7:prompt", "What to draw"], ("What to draw", "prompt", "7:5.text")),
        (["root-graph:3:name", "File name", {"height": 90}], ("File name", "text", "3.name")),
        (["sub:7", "strength"], ("strength", "number", "7:5.factor")),
        (["5", "text"], ("prompt", "prompt", "7:5.text")),  # an older file names the node inside
    ],
)
def test_every_form_of_an_entry_is_read(entry: list[object], found: tuple[str, str, str]) -> None:
    assert facts(entry) == [found]


@pytest.mark.parametrize(
    "entry",
    [
        ["99", "text"], ["1", "no such widget"], ["6", "text"], ["4", "image"], ["7", "a"], [], ["1"], [None, "image"],
        [True, "image"], ["1", 5], "text", 7, {"id": 1}, ["", ""], ["::", "x"], [1.5, "image"],
        ["root-graph:%zz:name", "x"], [[1], "image"],
    ],
)  # fmt: skip
def test_what_names_nothing_that_runs_is_left_out(entry: Any) -> None:
    linear: list[Any] = [entry, [1, "image"]]
    content = ui(
        [
            node(1, "Load", ["a.png"], outputs=[{"name": "IMAGE", "type": "IMAGE", "links": [1]}]),
            node(3, "Save", ["x"], wires={"images": 1}),
            node(4, "Load", ["a.png"], mode=2),
        ],
        [[1, 1, 0, 3, 0, "IMAGE"]],
        extra={"linearData": {"inputs": linear}},
    )
    loaded = load_workflow(to_document(content, source="test"), CATALOGUE)
    assert [one.target for one in app_inputs(loaded, CATALOGUE)] == ["1.image"]


@pytest.mark.parametrize("linear", [None, [], "x", {}, {"inputs": None}, {"inputs": {"1": "image"}}, {"inputs": 5}])
def test_a_workflow_without_a_choice_has_none(linear: JsonValue) -> None:
    content = ui([node(3, "Save", ["x"])], extra={"linearData": linear})
    assert load_workflow(to_document(content, source="test"), CATALOGUE).app_inputs == ()


def test_an_input_that_stands_for_several_sets_them_all() -> None:
    loaded = workflow(["7", "strength"])
    (strength,) = found = app_inputs(loaded, CATALOGUE)
    assert strength.places == (("7:5", "factor"), ("7:6", "factor"))
    assert strength.default == 0.75
    assert (strength.minimum, strength.maximum) == (0.0, 1.0)
    by_body = apply_overrides(loaded.graph, overrides_by_name({"strength": 0.1}, found), catalogue=CATALOGUE)
    by_flag = apply_overrides(
        loaded.graph,
        with_shared_places([Override(target="strength", value=0.1, literal=True)], found),
        catalogue=CATALOGUE,
        names=input_names(found),
    )
    for graph in (by_body, by_flag):
        assert [graph.nodes[node_id].inputs["factor"] for node_id in ("7:5", "7:6")] == [0.1, 0.1]


def test_names_that_would_be_shared_say_the_node() -> None:
    content = ui(
        [
            node(1, "Save", ["x"], title="First"),
            node(2, "Save", ["y"], title="Second"),
            node(3, "Save", ["z"], title="Second"),
        ],
        extra={"linearData": {"inputs": [[1, "name"], [2, "name"], [3, "name"]]}},
    )
    loaded = load_workflow(to_document(content, source="test"), CATALOGUE)
    assert [one.name for one in app_inputs(loaded, CATALOGUE)] == ["First.name", "2.name", "3.name"]


def test_a_primitive_stands_for_what_it_feeds() -> None:
    content = ui(
        [
            node(1, "PrimitiveNode", ["named"], outputs=[{"name": "STRING", "type": "STRING", "links": [1, 2]}]),
            node(2, "Save", ["x"], inputs=[slot("name", 1, "STRING", widget=True)]),
            node(3, "Save", ["y"], inputs=[slot("name", 2, "STRING", widget=True)]),
        ],
        [[1, 1, 0, 2, 0, "STRING"], [2, 1, 0, 3, 0, "STRING"]],
        extra={"linearData": {"inputs": [["1", "value"]]}},
    )
    loaded = load_workflow(to_document(content, source="test"), CATALOGUE)
    (value,) = app_inputs(loaded, CATALOGUE)
    assert (value.name, value.default, value.places) == ("value", "named", (("2", "name"), ("3", "name")))


def test_a_typed_endpoint_takes_what_was_chosen_and_nothing_else() -> None:
    found = chosen(["7", "prompt"], [1, "image"])
    schema = input_schema(found, title="Cats")
    assert isinstance(schema, dict)
    properties = schema["properties"]
    assert isinstance(properties, dict)
    assert list(properties) == ["prompt", "image"]
    with pytest.raises(OverrideInvalid, match="strength"):
        overrides_by_name({"strength": 1}, found)


def test_an_inputs_file_wins_over_app_mode() -> None:
    loaded = workflow(["7", "prompt"])
    file = load_inputs_file('[inputs.picture]\ntarget = "1.image"\n', source="x")
    assert [one.name for one in offered_inputs(loaded, CATALOGUE, file)] == ["picture"]
    assert [one.name for one in offered_inputs(loaded, CATALOGUE, None)] == ["prompt"]

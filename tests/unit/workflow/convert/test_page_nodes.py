"""Nodes that only a pack's page script knows: resolved, left out with a warning, or refused with what to do."""

from typing import Any

import pytest

from comfypin.workflow.errors import WorkflowInvalid
from tests.support.dynamic_classes import IMAGE, newer, newer_class, newer_inputs
from tests.support.ui_graphs import node, ui


def foreign(
    number: int,
    kind: str,
    values: Any = (),
    *,
    wires: dict[str, Any] | None = None,
    gives: tuple[str, ...] = (),
    **more: Any,
) -> dict[str, Any]:
    """A node whose class is in no node list, with the sockets that the file holds."""
    made = node(number, kind, values if isinstance(values, dict) else list(values), wires=wires or {}, **more)
    return {**made, "widgets_values": values, "outputs": [{"name": one, "type": one} for one in gives]}


def refusals(content: dict[str, Any], **classes: dict[str, Any]) -> list[tuple[object, object]]:
    with pytest.raises(WorkflowInvalid) as caught:
        newer(content, **classes)
    return [(one["code"], one.get("node")) for one in caught.value.findings]


def saved(number: int, link: int) -> dict[str, Any]:
    return node(number, "SaveImage", ["x"], wires={"images": link})


# Set and Get


@pytest.mark.parametrize(("put", "got"), [("SetNode", "GetNode"), ("easy setNode", "easy getNode")])
def test_a_get_node_gives_what_the_set_node_of_its_name_takes(put: str, got: str) -> None:
    content = ui(
        [
            node(1, "EmptyImage"),
            foreign(2, put, ["pic"], wires={"IMAGE": 1}, gives=("*",)),
            foreign(3, got, ["pic"], gives=("IMAGE",)),
            saved(4, 2),
        ],
        [[1, 1, 0, 2, 0, "IMAGE"], [2, 3, 0, 4, 0, "IMAGE"]],
    )
    assert newer_inputs(content, "4")["images"] == ["1", 0]
    assert set(newer(content).graph.nodes) == {"1", "4"}
    assert newer(content).unknown == ()


def test_a_get_node_inside_a_subgraph_finds_the_set_node_around_it() -> None:
    inside = {
        "id": "s",
        "name": "S",
        "nodes": [foreign(31, "GetNode", ["pic"], gives=("IMAGE",)), saved(32, 1)],
        "links": [{"id": 1, "origin_id": 31, "origin_slot": 0, "target_id": 32, "target_slot": 0}],
        "inputs": [],
        "outputs": [],
    }
    nodes = [node(1, "EmptyImage"), foreign(2, "SetNode", ["pic"], wires={"IMAGE": 1}, gives=("*",)), node(3, "s")]
    content = ui(nodes, [[1, 1, 0, 2, 0, "IMAGE"]], definitions={"subgraphs": [inside]})
    assert newer_inputs(content, "3:32")["images"] == ["1", 0]


def test_a_get_node_whose_name_nothing_sets_is_refused() -> None:
    content = ui(
        [
            node(1, "EmptyImage"),
            foreign(2, "SetNode", ["other"], wires={"IMAGE": 1}, gives=("*",)),
            foreign(3, "GetNode", ["pic"], gives=("IMAGE",)),
            saved(4, 2),
        ],
        [[1, 1, 0, 2, 0, "IMAGE"], [2, 3, 0, 4, 0, "IMAGE"]],
    )
    assert refusals(content) == [("broken_link", "4")]


def test_a_missing_class_with_get_in_its_name_is_a_missing_class() -> None:
    content = ui([foreign(1, "GetImageSize+", ["pic"], gives=("IMAGE",)), saved(2, 1)], [[1, 1, 0, 2, 0, "IMAGE"]])
    assert [one.node_id for one in newer(content).unknown] == ["1"]


def test_a_packs_reroute_passes_on() -> None:
    content = ui(
        [node(1, "EmptyImage"), foreign(2, "Reroute (rgthree)", wires={"": 1}, gives=("*",)), saved(3, 2)],
        [[1, 1, 0, 2, 0, "*"], [2, 2, 0, 3, 0, "*"]],
    )
    assert newer_inputs(content, "3")["images"] == ["1", 0]


# Decoration


def test_what_gives_nothing_to_anybody_is_left_out_with_a_warning() -> None:
    muter = foreign(4, "Fast Muter (rgthree)", wires={"": 2}, gives=("*",))
    collector = foreign(3, "Node Collector (rgthree)", wires={"": 1}, gives=("*",))
    label = foreign(2, "Label (rgthree)", title="Read me")
    content = ui([node(1, "EmptyImage"), label, collector, muter], [[1, 1, 0, 3, 0, "*"], [2, 3, 0, 4, 0, "*"]])
    conversion = newer(content)
    assert set(conversion.graph.nodes) == {"1"}
    assert [(one.code, one.node_id, one.severity) for one in conversion.warnings] == [
        ("page_node_left_out", number, "warning") for number in ("2", "4", "3")
    ]


def test_a_missing_class_that_takes_or_gives_something_is_not_left_out() -> None:
    content = ui(
        [
            node(1, "EmptyImage"),
            foreign(2, "SaveMine", wires={"images": 1}),
            foreign(3, "MakeMine", gives=("IMAGE",)),
            foreign(4, "Newer", properties={"cnr_id": "comfy-core"}),
        ],
        [[1, 1, 0, 2, 0, "IMAGE"]],
    )
    assert {one.node_id for one in newer(content).unknown} == {"2", "3", "4"}


# Broadcasts


def everywhere(values: Any = (), **more: Any) -> dict[str, Any]:
    return foreign(2, "Anything Everywhere", values, wires={"anything": 1}, **more)


def broadcast(node_: dict[str, Any], **more: Any) -> dict[str, Any]:
    nodes = [
        node(1, "EmptyImage"),
        node_,
        node(3, "ImageInvert"),
        node(4, "ImageBlend", [0.5, "a"], wires={"image1": 2}),
    ]
    return ui(nodes, [[1, 1, 0, 2, 0, "IMAGE"], [2, 3, 0, 4, 0, "IMAGE"]], **more)


def test_a_broadcast_feeds_every_open_input_of_its_type_and_says_so() -> None:
    content = broadcast(everywhere())
    assert newer_inputs(content, "3")["image"] == ["1", 0]
    assert newer_inputs(content, "4")["image2"] == ["1", 0]
    assert newer_inputs(content, "4")["image1"] == ["3", 0]
    assert [(one.code, one.node_id) for one in newer(content).warnings] == [("broadcast_resolved", "2")]


def test_a_broadcast_with_its_wires_saved_is_taken_at_its_word() -> None:
    wires = [{"downstream": 4, "downstream_slot": 1, "upstream": "1", "upstream_slot": 0, "controller": 2}]
    content = broadcast(everywhere([".*mine"]), extra={"ue_links": wires})
    assert "image" not in newer_inputs(content, "3")
    assert newer_inputs(content, "4")["image2"] == ["1", 0]


def test_a_broadcast_with_conditions_is_refused_with_what_to_do() -> None:
    assert refusals(broadcast(everywhere(["^Only this$"]))) == [("broadcast_unresolved", "2")]
    restricted = everywhere(properties={"ue_properties": {"version": "7.0", "group_restricted": 1}})
    assert refusals(broadcast(restricted)) == [("broadcast_unresolved", "2")]


def test_two_broadcasts_of_one_type_are_refused() -> None:
    content = broadcast(everywhere())
    content["nodes"].append(foreign(5, "Anything Everywhere", wires={"anything": 9}))
    content["links"].append([9, 1, 0, 5, 0, "IMAGE"])
    assert refusals(content) == [("broadcast_unresolved", "2"), ("broadcast_unresolved", "5")]


def test_a_broadcast_that_is_off_feeds_nothing() -> None:
    assert "image" not in newer_inputs(broadcast(everywhere(mode=2)), "3")


def test_a_broadcast_does_not_feed_what_it_comes_from() -> None:
    content = ui(
        [node(1, "ImageInvert"), foreign(2, "Anything Everywhere", wires={"anything": 1}), node(3, "ImageInvert")],
        [[1, 1, 0, 2, 0, "IMAGE"]],
    )
    assert "image" not in newer_inputs(content, "1")
    assert newer_inputs(content, "3")["image"] == ["1", 0]


# Values that only a pack's script places

LORAS = newer_class({}, core=False, input={"required": {}, "optional": {"model": ["MODEL"], "clip": ["CLIP"]}})


def row(name: str, **more: Any) -> dict[str, Any]:
    return {"on": True, "lora": name, "strength": 0.5, "strengthTwo": None, **more}


def test_rows_of_loras_go_out_under_numbers() -> None:
    values = [{}, {"type": "PowerLoraLoaderHeaderWidget"}, row("a"), row("b", on=False), {}, ""]
    sent = newer_inputs(ui([node(1, "Power Lora Loader", values)]), "1", **{"Power Lora Loader": LORAS})
    assert sent == {
        "lora_1": {"on": True, "lora": "a", "strength": 0.5},
        "lora_2": {"on": False, "lora": "b", "strength": 0.5},
    }


def test_rows_that_were_saved_by_name_keep_their_names() -> None:
    values = {"header": {"type": "PowerLoraLoaderHeaderWidget"}, "lora_2": row("a"), "more": {"curve": 1}}
    sent = newer_inputs(ui([{"id": 1, "type": "Rows", "widgets_values": values}]), "1", Rows=LORAS)
    assert sent == {"lora_2": {"on": True, "lora": "a", "strength": 0.5}, "more": {"curve": 1}}


def test_a_long_chain_of_switches_is_left_out_at_once() -> None:
    links = [[number, number, 0, number + 1, 0, "*"] for number in range(1, 2000)]
    outputs = [{"name": "*", "type": "*", "links": []}]
    switches = [node(number, "Switch (pack)", wires={"*": number - 1}, outputs=outputs) for number in range(2, 2001)]
    first = node(1, "Switch (pack)", outputs=outputs)
    assert len(newer(ui([first, *switches, node(3000, "Whole", [1])], links)).warnings) == 2000


def test_rows_with_two_strengths_keep_both() -> None:
    properties = {"Show Strengths": "Separate Model & Clip"}
    content = ui([node(1, "Rows", [row("a", strengthTwo=0.25)], properties=properties)])
    assert newer_inputs(content, "1", Rows=LORAS)["lora_1"]["strengthTwo"] == 0.25


def test_saved_values_of_a_shape_that_is_not_known_are_refused_by_name() -> None:
    content = ui([node(1, "Rows", [{"curve": [1, 2]}])])
    assert refusals(content, Rows=LORAS) == [("values_unplaced", "1")]


def test_plain_values_too_many_for_a_packs_class_are_said() -> None:
    odd = newer_class({"image": IMAGE, "count": ["INT", {}]}, core=False)
    content = ui([node(1, "Odd", [3, 4])])
    assert newer_inputs(content, "1", Odd=odd) == {"count": 3}
    assert [(one.code, one.severity) for one in newer(content, Odd=odd).warnings] == [("values_unplaced", "warning")]


def test_an_object_of_values_goes_out_by_name_for_a_packs_class() -> None:
    video = newer_class({"images": IMAGE, "rate": ["FLOAT", {"default": 8}]}, core=False)
    saved_values = {"rate": 12, "crf": 19, "videopreview": {"hidden": False}}
    content = ui([{"id": 1, "type": "Video", "widgets_values": saved_values}])
    assert newer_inputs(content, "1", Video=video) == {"rate": 12, "crf": 19}

"""Subgraphs as the newer page has them: whose value counts, which ids go out, what an instance that is off sends."""

from typing import Any

import pytest

from comfypin.workflow.errors import WorkflowInvalid
from tests.support.dynamic_classes import newer, newer_inputs
from tests.support.ui_graphs import node, ui

INPUT, OUTPUT = -10, -20


def wire(number: int, origin: int, target: int, slot: int = 0, origin_slot: int = 0) -> dict[str, Any]:
    return {"id": number, "origin_id": origin, "origin_slot": origin_slot, "target_id": target, "target_slot": slot}


def definition(nodes: list[dict[str, Any]], links: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A definition `s` whose first output is wired by link 2."""
    return {
        "id": "s",
        "name": "S",
        "nodes": nodes,
        "links": links,
        "inputs": [],
        "outputs": [{"name": "IMAGE", "type": "IMAGE", "linkIds": [2]}],
        **more,
    }


def port(name: str, *links: int, kind: str = "INT") -> dict[str, Any]:
    return {"name": name, "type": kind, "linkIds": list(links)}


PLAIN = definition([node(11, "EmptyImage", [16, 17, 1, 3])], [wire(2, 11, OUTPUT)])
WITH_WIDTH = definition(
    [node(11, "EmptyImage", [16, 17, 1, 3], wires={"width": 3})],
    [wire(2, 11, OUTPUT), wire(3, INPUT, 11)],
    inputs=[port("width", 3)],
)


def instance(
    values: Any = None, *, entries: list[list[str]] | None = None, inside: dict[str, Any] = PLAIN, **more: Any
) -> dict[str, Any]:
    """A file with one instance of a definition, feeding a SaveImage."""
    properties = {**more.pop("properties", {}), **({} if entries is None else {"proxyWidgets": entries})}
    root = {**node(1, "s", wires=more.pop("wires", {}), mode=more.pop("mode", 0)), "properties": properties}
    root["widgets_values"] = values
    nodes = [root, node(9, "SaveImage", ["x"], wires={"images": 1}), *more.pop("nodes", [])]
    definitions = {"subgraphs": [inside, *more.pop("definitions", [])]}
    return ui(nodes, [[1, 1, 0, 9, 0, "IMAGE"], *more.pop("links", [])], definitions=definitions, **more)


def put_aside(node_id: str, widget: str, value: Any) -> dict[str, Any]:
    entry = {"originalEntry": [node_id, widget], "reason": "missingSourceNode", "attemptedAtVersion": 1}
    return {**entry, "hostValue": value}


def size(content: dict[str, Any], node_id: str = "1:11") -> tuple[Any, Any]:
    sent = newer_inputs(content, node_id)
    return sent["width"], sent["height"]


# Whose value counts


def test_a_value_belongs_to_the_entry_in_its_place() -> None:
    assert size(instance([40, 41], entries=[["11", "height"], ["11", "width"]])) == (41, 40)


def test_a_missing_value_and_a_null_leave_the_inner_one() -> None:
    assert size(instance([None], entries=[["11", "width"], ["11", "height"]])) == (16, 17)


def test_an_entry_that_leads_nowhere_takes_its_value_with_it() -> None:
    entries = [["11", "nope"], ["99", "width"], ["11", "$$preview"], ["11", "height"]]
    assert size(instance([40, 41, 42, 43], entries=entries)) == (16, 43)


def test_an_entry_may_name_the_instances_own_input() -> None:
    content = instance([51, 50], entries=[["11", "height"], ["-1", "width"]], inside=WITH_WIDTH)
    assert size(content) == (50, 51)


def test_without_entries_values_follow_the_inputs_that_have_a_widget() -> None:
    inside = definition(
        [node(11, "ImageBlend", [0.5, "a"], wires={"image1": 3, "blend_factor": 4, "mode": 5})],
        [wire(2, 11, OUTPUT), wire(3, INPUT, 11), wire(4, INPUT, 11, 2, 1), wire(5, INPUT, 11, 3, 2)],
        inputs=[port("image", 3, kind="IMAGE"), port("factor", 4), port("mode", 5)],
    )
    sent = newer_inputs(instance([0.75, "b"], inside=inside), "1:11")
    assert (sent["blend_factor"], sent["mode"]) == (0.75, "b")


def test_without_entries_a_null_is_sent_as_it_is() -> None:
    assert size(instance([None], inside=WITH_WIDTH)) == (None, 17)


def test_a_value_that_was_put_aside_for_an_own_input_wins() -> None:
    aside = [put_aside("-1", "width", 60), put_aside("11", "height", 61)]
    content = instance([40], inside=WITH_WIDTH, properties={"proxyWidgetErrorQuarantine": aside})
    assert size(content) == (60, 17)


@pytest.mark.parametrize(
    "other", [{"reason": "unheard of"}, {"attemptedAtVersion": 2}, {"originalEntry": ["-1"]}, None]
)
def test_nothing_counts_of_what_was_put_aside_if_one_entry_is_not_the_pages(other: dict[str, Any] | None) -> None:
    second = None if other is None else {**put_aside("-1", "height", 61), **other}
    aside = [put_aside("-1", "width", 60), second]
    content = instance([40], inside=WITH_WIDTH, properties={"proxyWidgetErrorQuarantine": aside})
    assert size(content) == (40, 17)


def test_entries_that_are_a_text_are_read() -> None:
    assert size(instance([40], properties={"proxyWidgets": '[["11", "width"]]'})) == (40, 17)


@pytest.mark.parametrize("entry", [[11, "height"], ["11"], "11", ["11", "height", "1", "2"]])
def test_no_entry_counts_if_one_is_not_two_or_three_texts(entry: Any) -> None:
    assert size(instance([40, 41], entries=[["11", "width"], entry])) == (16, 17)


def test_values_saved_as_an_object_are_read_by_name() -> None:
    assert size(instance({"height": 41, "width": 40}, entries=[["11", "width"], ["11", "height"]])) == (40, 41)


def test_two_instances_keep_their_own_values() -> None:
    second = {**node(2, "s"), "properties": {"proxyWidgets": [["11", "width"]]}, "widgets_values": [80]}
    content = instance([40], entries=[["11", "width"]], nodes=[second])
    assert (size(content), size(content, "2:11")) == ((40, 17), (80, 17))


def test_an_option_and_its_sub_input_can_be_promoted() -> None:
    inside = definition([node(11, "Save", ["o", "auto", "h264", 30])], [])
    entries = [["11", "format.codec.crf"], ["11", "format.codec"]]
    sent = newer_inputs(instance([44, "h264"], entries=entries, inside=inside), "1:11")
    assert (sent["format.codec"], sent["format.codec.crf"]) == ("h264", 44)


OUTER = {
    **definition([node(21, "s", [70], wires={})], [wire(2, 21, OUTPUT)]),
    "id": "o",
    "name": "O",
}


@pytest.mark.parametrize("entry", [["21", "width"], ["21", "11: width"], ["21", "width", "11"]])
def test_an_outer_value_wins_over_the_one_within_and_that_over_the_inner_one(entry: list[str]) -> None:
    nested = {**OUTER, "nodes": [{**OUTER["nodes"][0], "properties": {"proxyWidgets": [["11", "width"]]}}]}
    host = {**node(1, "o"), "properties": {"proxyWidgets": [entry]}}

    def content(values: list[Any]) -> dict[str, Any]:
        return ui([{**host, "widgets_values": values}], definitions={"subgraphs": [nested, WITH_WIDTH]})

    assert newer_inputs(content([71]), "1:21:11")["width"] == 71
    assert newer_inputs(content([]), "1:21:11")["width"] == 70


def test_an_outer_entry_may_name_what_an_entry_within_promotes() -> None:
    inner = {**OUTER["nodes"][0], "properties": {"proxyWidgets": [["11", "height"]]}, "widgets_values": [70]}
    host = {**node(1, "o"), "properties": {"proxyWidgets": [["21", "height"]]}, "widgets_values": [71]}
    content = ui([host], definitions={"subgraphs": [{**OUTER, "nodes": [inner]}, PLAIN]})
    assert newer_inputs(content, "1:21:11")["height"] == 71


def test_a_third_part_that_names_a_node_further_in_counts_for_nothing() -> None:
    def around(name: str, inner: dict[str, Any]) -> dict[str, Any]:
        return {**OUTER, "id": name, "nodes": [{**inner, "id": 21}]}

    within = {**node(21, "s", [70]), "properties": {"proxyWidgets": [["11", "height"]]}}
    middle = {**node(21, "o", [71]), "properties": {"proxyWidgets": [["21", "height"]]}}
    host = {**node(1, "p", [72]), "properties": {"proxyWidgets": [["31", "height", "11"]]}}
    definitions = [{**around("p", middle), "nodes": [{**middle, "id": 31}], "links": [wire(2, 31, OUTPUT)]}]
    content = ui([host], definitions={"subgraphs": [*definitions, around("o", within), PLAIN]})
    assert newer_inputs(content, "1:31:21:11")["height"] == 72


def test_an_entry_of_a_primitive_inside_sets_what_the_primitive_feeds() -> None:
    inside = definition(
        [node(10, "PrimitiveNode", [33, "fixed"]), node(11, "EmptyImage", [16, 17, 1, 3], wires={"width": 3})],
        [wire(2, 11, OUTPUT), wire(3, 10, 11)],
    )
    assert size(instance([44], entries=[["10", "value"]], inside=inside)) == (44, 17)
    assert size(instance([], entries=[["10", "value"]], inside=inside)) == (16, 17)
    assert size(instance(None, inside=inside)) == (33, 17)
    both = [["10", "value"], ["10", "control_after_generate"]]
    assert size(instance([44, "increment"], entries=both, inside=inside)) == (33, 17)


def test_a_promoted_choice_counts_its_place_among_the_options() -> None:
    inside = definition([node(11, "CustomCombo", ["a", 0, "a", "b", ""])], [wire(2, 11, OUTPUT)])
    sent = newer_inputs(instance(["b"], entries=[["11", "choice"]], inside=inside), "1:11")
    assert (sent["choice"], sent["index"]) == ("b", 1)


def test_a_primitive_outside_gives_nothing_to_a_promoted_value() -> None:
    """A fault of the page: it shows 41 and sends what stands inside."""
    content = instance(
        [16],
        inside=WITH_WIDTH,
        wires={"width": 7},
        nodes=[node(5, "PrimitiveNode", [41])],
        links=[[7, 5, 0, 1, 0, "INT"]],
    )
    assert size(content) == (16, 17)


# Ids


def test_an_inner_id_that_the_root_has_too_gets_the_next_free_one_and_its_entries_follow() -> None:
    inside = definition([node(9, "EmptyImage", [16, 17, 1, 3])], [wire(2, 9, OUTPUT)])
    content = instance([40], entries=[["9", "width"]], inside=inside, last_node_id=50)
    assert size(content, "1:51") == (40, 17)
    assert newer_inputs(content, "9")["images"] == ["1:51", 0]


def test_two_definitions_with_the_same_ids_do_not_share_them() -> None:
    second = {**PLAIN, "id": "t"}
    content = instance(None, definitions=[second], nodes=[node(2, "t")], last_node_id=20)
    assert {key for key in newer(content).graph.nodes if ":" in key} == {"1:11", "2:21"}


# Instances that are off, and wires through them

THROUGH = definition(
    [node(11, "ImageInvert", wires={"image": 3})],
    [wire(2, 11, OUTPUT), wire(3, INPUT, 11)],
    inputs=[port("image", 3, kind="IMAGE")],
)


@pytest.mark.parametrize(("mode", "images"), [(2, None), (4, ["5", 0])])
def test_an_instance_that_is_off_sends_nothing_of_its_inside(mode: int, images: object) -> None:
    content = instance(
        None,
        inside=THROUGH,
        mode=mode,
        wires={"image": 7},
        nodes=[node(5, "EmptyImage")],
        links=[[7, 5, 0, 1, 0, "IMAGE"]],
    )
    graph = newer(content).graph
    assert set(graph.nodes) == {"5", "9"}
    assert newer_inputs(content, "9").get("images") == images


def test_no_output_inside_a_nested_instance_that_is_off_runs() -> None:
    inner = {**definition([node(11, "SaveImage", ["in"])], []), "id": "i"}
    middle = definition([node(21, "i", mode=4), node(22, "EmptyImage")], [wire(2, 22, OUTPUT)])
    assert set(newer(instance(None, inside=middle, definitions=[inner])).graph.nodes) == {"1:22", "9"}


def test_the_first_row_gives_an_output_that_two_wires_reach() -> None:
    inside = definition(
        [node(11, "EmptyImage"), node(12, "EmptyImage")],
        [wire(5, 12, OUTPUT), wire(2, 11, OUTPUT)],
        outputs=[{"name": "IMAGE", "type": "IMAGE", "linkIds": [2, 5]}],
    )
    assert newer_inputs(instance(None, inside=inside), "9")["images"] == ["1:12", 0]


def test_an_input_that_is_wired_straight_to_an_output_is_refused_as_by_the_page() -> None:
    inside = definition([], [wire(2, INPUT, OUTPUT)], inputs=[port("image", 2, kind="IMAGE")])
    content = instance(
        None, inside=inside, wires={"image": 7}, nodes=[node(5, "EmptyImage")], links=[[7, 5, 0, 1, 0, "IMAGE"]]
    )
    with pytest.raises(WorkflowInvalid) as caught:
        newer(content)
    assert [(one["code"], one["node"]) for one in caught.value.findings] == [("broken_link", "9")]


# Group nodes of older files


def grouped(values: list[Any], groups: dict[str, Any], **more: Any) -> dict[str, Any]:
    nodes = [
        node(1, "workflow/duo", values, wires=more.pop("wires", {})),
        node(2, "SaveImage", ["x"], wires={"images": 1}),
    ]
    links = [[1, 1, 0, 2, 0, "IMAGE"], *more.pop("links", [])]
    return ui([*nodes, *more.pop("nodes", [])], links, extra={"groupNodes": groups}, last_node_id=50)


DUO = {
    "nodes": [
        {"type": "EmptyImage", "index": 0, "widgets_values": [16, 17, 1, 0]},
        {"type": "ImageInvert", "index": 1, "inputs": [{"name": "image", "type": "IMAGE", "link": None}]},
    ],
    "links": [[0, 0, 1, 0, 1, "IMAGE"]],
    "external": [[1, 0, "IMAGE"]],
}


def test_a_group_node_becomes_a_subgraph_with_ids_after_all_others() -> None:
    content = grouped([40, 41, 1, 0], {"duo": DUO})
    assert newer_inputs(content, "2")["images"] == ["53:52", 0]
    assert size(content, "53:51") == (40, 41)
    assert newer_inputs(content, "53:52")["image"] == ["53:51", 0]


def test_a_group_nodes_open_inputs_are_its_own_and_a_name_that_is_taken_gets_a_title() -> None:
    pair = {
        "nodes": [
            {"type": "ImageInvert", "index": 0, "inputs": [{"name": "image", "type": "IMAGE"}]},
            {"type": "ImageInvert", "title": "Second", "index": 1, "inputs": [{"name": "image", "type": "IMAGE"}]},
            {"type": "ImageBlend", "index": 2, "widgets_values": [0.5, "a"]},
        ],
        "links": [[0, 0, 2, 0, 1, "IMAGE"], [1, 0, 2, 1, 1, "IMAGE"]],
        "external": [[2, 0, "IMAGE"]],
    }
    content = grouped(
        [0.75, "b"],
        {"duo": pair},
        wires={"image": 7, "Second image": 8},
        nodes=[node(5, "EmptyImage"), node(6, "EmptyImage")],
        links=[[7, 5, 0, 1, 0, "IMAGE"], [8, 6, 0, 1, 1, "IMAGE"]],
    )
    assert newer_inputs(content, "54:51")["image"] == ["5", 0]
    assert newer_inputs(content, "54:52")["image"] == ["6", 0]
    assert (newer_inputs(content, "54:53")["blend_factor"], newer_inputs(content, "54:53")["mode"]) == (0.75, "b")


def test_a_group_node_with_a_missing_class_stays_unknown() -> None:
    groups = {"duo": {"nodes": [{"type": "Gone", "index": 0}], "links": [], "external": []}}
    assert [one.class_type for one in newer(grouped([], groups)).unknown] == ["workflow/duo"]


def test_a_primitive_within_a_group_node_takes_a_value_and_its_control() -> None:
    groups = {
        "duo": {
            "nodes": [
                {"type": "PrimitiveNode", "index": 0, "widgets_values": [33, "fixed"], "outputs": [{"type": "INT"}]},
                {
                    "type": "EmptyImage",
                    "index": 1,
                    "widgets_values": [16, 17, 1, 0],
                    "inputs": [{"name": "width", "type": "INT", "widget": {"name": "width"}}],
                },
            ],
            "links": [[0, 0, 1, 0, 1, "INT"]],
            "external": [[1, 0, "IMAGE"]],
        }
    }
    assert size(grouped([44, "fixed", 41, 1, 0], groups), "53:52") == (44, 41)


@pytest.mark.parametrize("mode", [2, 4])
def test_a_group_node_that_is_off_sends_nothing(mode: int) -> None:
    content = grouped([40, 41, 1, 0], {"duo": DUO})
    content["nodes"][0]["mode"] = mode
    assert set(newer(content).graph.nodes) == {"2"}


def test_what_no_entry_names_has_the_value_in_its_place() -> None:
    """The page gives values by place first, and by entry over that."""
    inside = {**WITH_WIDTH, "nodes": [{**WITH_WIDTH["nodes"][0]}]}
    assert size(instance([51], entries=[["11", "height"]], inside=inside)) == (51, 51)


def test_a_null_choice_of_a_custom_combo_is_its_first_option() -> None:
    choosing = {**node(11, "CustomCombo", [None, 1, "a", "b", ""], wires={"choice": 3})}
    plain = definition([choosing], [wire(2, 11, OUTPUT)])
    assert newer_inputs(instance(inside=plain), "1:11")["choice"] == "a"
    promoted = {**plain, "links": [*plain["links"], wire(3, INPUT, 11)], "inputs": [port("choice", 3, kind="COMBO")]}
    assert newer_inputs(instance([None], inside=promoted), "1:11")["choice"] == "a"

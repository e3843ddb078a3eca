"""Conversion, rule by rule, where a recording does not show it alone; and graphs that mean harm."""

from datetime import datetime
from typing import Any

import pytest

from comfypin.workflow.convert.dynamic_prompts import (
    CharacterBudget,
    TooMuchText,
    expand_dynamic_prompt,
    remove_comments,
)
from comfypin.workflow.errors import WorkflowInvalid
from comfypin.workflow.overrides import apply_overrides, parse_override
from tests.support.ui_graphs import CLASSES, converted, inputs, node, ui

NOW = datetime(2025, 3, 4, 5, 6, 7)


def refused(content: dict[str, Any]) -> list[tuple[object, object]]:
    with pytest.raises(WorkflowInvalid) as caught:
        converted(content)
    return [(finding["code"], finding.get("node")) for finding in caught.value.findings]


def test_every_broken_wire_is_named_with_its_node() -> None:
    content = ui(
        [
            node(1, "SaveImage", ["x"], wires={"images": 5}),
            node(2, "SaveImage", ["x"], wires={"images": 6}),
            node(3, "SaveImage", ["x"], wires={"images": 7}),
            node(4, "EmptyImage", [8, 8, 1, 0]),
            node(9, "SaveImage", ["x"], wires={"images": 8}, mode=2),
        ],
        [[6, 77, 0, 2, 0, "IMAGE"], [7, 4, 5, 3, 0, "IMAGE"]],
    )
    assert refused(content) == [("broken_link", "1"), ("broken_link", "2"), ("broken_link", "3")]


def test_a_circle_of_reroutes_is_named() -> None:
    content = ui(
        [
            node(1, "Reroute", wires={"": 2}),
            node(2, "Reroute", wires={"": 1}),
            node(3, "SaveImage", ["x"], wires={"images": 3}),
        ],
        [[1, 1, 0, 2, 0, "*"], [2, 2, 0, 1, 0, "*"], [3, 1, 0, 3, 0, "*"]],
    )
    assert refused(content) == [("broken_link", "3")]


def subgraph(name: str, nodes: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"id": name, "name": name, "nodes": nodes, "links": [], "inputs": [], "outputs": [], **more}


def test_a_subgraph_that_contains_itself_is_refused() -> None:
    definitions = {"subgraphs": [subgraph("a", [node(1, "b")]), subgraph("b", [node(1, "a")])]}
    assert refused(ui([node(1, "a")], definitions=definitions)) == [("subgraph_cycle", None)]


def test_subgraphs_that_unfold_to_far_too_many_nodes_are_refused_before_they_do() -> None:
    levels = [subgraph(f"s{i}", [node(k, f"s{i + 1}") for k in range(3)]) for i in range(40)]
    levels.append(subgraph("s40", [node(1, "EmptyImage")]))
    assert refused(ui([node(1, "s0")], definitions={"subgraphs": levels})) == [("too_many_nodes", None)]


def test_subgraphs_nested_beyond_reason_are_refused() -> None:
    levels = [subgraph(f"s{i}", [node(1, f"s{i + 1}")]) for i in range(3000)]
    levels.append(subgraph("s3000", [node(1, "EmptyImage")]))
    assert refused(ui([node(1, "s0")], definitions={"subgraphs": levels})) == [("nested_too_deeply", None)]


def test_a_long_way_shared_by_many_wires_is_walked_once() -> None:
    count = 4000
    reroutes = [node(i, "Reroute", wires={"": i} if i > 1 else {}) for i in range(1, count)]
    previews = [node(count + i, "PreviewImage", wires={"images": count}) for i in range(count)]
    links = [[i, i - 1, 0, i, 0, "*"] for i in range(2, count + 1)]
    assert len(converted(ui([*reroutes, *previews], links)).graph.nodes) == count


def test_a_primitive_inside_a_subgraph_sets_its_widget() -> None:
    inside = subgraph(
        "s",
        [node(1, "PrimitiveNode", [33]), node(2, "EmptyImage", [8, 8, 1, 0], wires={"width": 1})],
        links=[{"id": 1, "origin_id": 1, "origin_slot": 0, "target_id": 2, "target_slot": 0}],
    )
    assert inputs(ui([node(7, "s")], definitions={"subgraphs": [inside]}), "7:2")["width"] == 33


def test_a_primitive_keeps_within_what_all_its_targets_take() -> None:
    content = ui(
        [
            node(1, "PrimitiveNode", [99999]),
            node(2, "EmptyImage", [8, 8, 1, 0], wires={"width": 1}),
            node(3, "EmptyImage", [8, 8, 1, 0], wires={"batch_size": 2}),
        ],
        [[1, 1, 0, 2, 0, "INT"], [2, 1, 0, 3, 0, "INT"]],
    )
    assert (inputs(content, "2")["width"], inputs(content, "3")["batch_size"]) == (4096, 4096)


def test_the_dict_form_counts_for_packs_only() -> None:
    pack = {"id": 1, "type": "VHS_LoadVideo", "widgets_values": {"video": "v.mp4", "videopreview": {}}}
    core = {"id": 2, "type": "EmptyImage", "widgets_values": {"width": 3}}
    assert inputs(ui([pack, core]), "1") == {"video": "v.mp4"}
    assert inputs(ui([pack, core]), "2")["width"] == 512


def test_old_group_nodes_and_undefined_subgraphs_are_named_as_what_they_are() -> None:
    content = ui([node(1, "workflow>Mine"), node(2, "99999999-2222-4333-8444-555555555555")])
    messages = [finding.message for finding in converted(content).unknown]
    assert "group node" in messages[0]
    assert "subgraph" in messages[1]


def test_values_that_are_set_are_in_the_file_names_texts() -> None:
    content = ui(
        [
            node(1, "EmptyImage", [8, 8, 1, 0], title="Canvas"),
            node(2, "SaveImage", ["%Canvas.width%_%date:yyyy%"], wires={"images": 1}),
        ],
        [[1, 1, 0, 2, 0, "IMAGE"]],
    )
    conversion = converted(content)
    graph = apply_overrides(conversion.graph, [parse_override("Canvas.width=64")], catalogue=CLASSES)
    assert conversion.fill_texts(graph, NOW).nodes["2"].inputs["filename_prefix"] == "64_2025"


@pytest.mark.parametrize(("told", "text"), [(True, "in 2025"), (False, "in %date:yyyy%")])
def test_a_primitive_fills_texts_in_where_it_was_told_to(told: bool, text: str) -> None:
    content = ui(
        [
            node(1, "PrimitiveNode", ["in %date:yyyy%"], properties={"Run widget replace on values": told}),
            node(2, "Prompt", ["own"], wires={"text": 1}),
        ],
        [[1, 1, 0, 2, 0, "STRING"]],
    )
    conversion = converted(content)
    assert conversion.fill_texts(conversion.graph, NOW).nodes["2"].inputs["text"] == text


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("a {x|y} b", "a y b"),
        ("{a|{b|c}}", "c"),
        (r"\{a|b\}", "{a|b}"),
        ("x // y\nz", "x \nz"),
        ("a /* b", "a /* b"),
        ("a /* b */ c */", "a  c */"),
        ("{a", "a"),
        ("a } b", "a } b"),
        ("{a|}", ""),
        ("\\", "\\"),
    ],
)
def test_dynamic_prompts_are_the_pages(text: str, expanded: str) -> None:
    assert expand_dynamic_prompt(text, lambda options: options[-1], CharacterBudget()) == expanded


def test_braces_without_end_are_given_up() -> None:
    with pytest.raises(TooMuchText):
        expand_dynamic_prompt("{" * 20_000, lambda options: options[0], CharacterBudget())


def test_comments_that_never_close_cost_no_more_than_their_length() -> None:
    assert len(remove_comments("/* " * 500_000)) == 1_500_000

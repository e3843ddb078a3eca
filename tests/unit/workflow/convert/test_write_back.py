"""What a job changed, written back into the saved workflow: the file then gives exactly the prompt that was sent."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from comfypin.digest import JsonValue
from comfypin.workflow.convert.build_prompt import ConvertedWorkflow, convert_workflow
from comfypin.workflow.convert.write_back import write_back
from comfypin.workflow.graph import ApiGraph, InputValue
from comfypin.workflow.object_info import Catalogue
from tests.support.conversions import RECORDED_AT, own_names, own_recording, own_recordings

# Files that have no place for the value that this test changes, and why.
SHARED = "two inputs share the widget, and only one of them changes"
PREVIEW = "page 1.27 sends a preview, and saves none"
GROUP = "a group node of an older file, whose values are not those of a subgraph"
NO_NAMES = "page 1.27 reads no values from an object"
NO_PLACE: dict[tuple[str, str], str] = {
    ("0.3.64", "own_dom_widgets"): PREVIEW,
    ("0.3.64", "own_mute_widget_link"): PREVIEW,
    ("0.3.64", "raw_bypass_wildcard"): PREVIEW,
    ("0.3.64", "raw_dict_widgets_values"): NO_NAMES,
    ("0.3.64", "raw_subgraph_one_input_two_widgets"): SHARED,
    ("0.33.0", "old_own_subgraph_nested_inner_only"): SHARED,
    ("0.33.0", "raw_group_node"): GROUP,
    ("0.33.0", "raw_group_node_slash"): GROUP,
}


def set_values(graph: ApiGraph, values: Mapping[tuple[str, str], InputValue]) -> ApiGraph:
    nodes = dict(graph.nodes)
    for (node_id, name), value in values.items():
        nodes[node_id] = replace(nodes[node_id], inputs={**nodes[node_id].inputs, name: value})
    return ApiGraph(nodes=nodes)


def save(
    ui: dict[str, Any], conversion: ConvertedWorkflow, catalogue: Catalogue, graph: ApiGraph
) -> Mapping[str, JsonValue] | None:
    sent = conversion.fill_texts(graph, RECORDED_AT)
    return write_back(ui, conversion, catalogue, changed=graph, sent=sent, local_time=RECORDED_AT)


def change_one(conversion: ConvertedWorkflow, random: Random) -> ApiGraph | None:
    unknown = {finding.node_id for finding in conversion.unknown}
    candidates = [
        (node_id, name, value)
        for node_id, node in conversion.graph.nodes.items()
        for name, value in node.inputs.items()
        if isinstance(value, int | float | str) and node_id not in unknown and name not in ("index", "UNKNOWN")
    ]
    if not candidates:
        return None
    node_id, name, value = random.choice(candidates)
    spec = conversion.written.loaded_nodes[node_id].widget_spec(name)
    new_value: InputValue
    if isinstance(value, bool):
        new_value = not value
    elif isinstance(value, int | float):
        new_value = value + 1
    elif spec is not None and spec.type == "COMFY_DYNAMICCOMBO_V3":
        return None
    else:
        new_value = random.choice(spec.choices) if spec is not None and spec.choices else f"{value} {{a|b}} %date%"
    return set_values(conversion.graph, {(node_id, name): new_value})


@pytest.mark.parametrize(("version", "name"), own_names())
def test_a_changed_value_comes_back_from_the_file(version: str, name: str) -> None:
    recorded, catalogue = own_recording(version, name), own_recordings(version)["catalogue"]
    if recorded.api is None:
        return
    ui = copy.deepcopy(recorded.ui)
    conversion = convert_workflow(ui, catalogue, choose=lambda options: options[-1])
    graph = change_one(conversion, Random(name))
    if graph is None:
        return
    saved = save(ui, conversion, catalogue, graph)
    assert ui == recorded.ui
    if saved is None:
        assert (version, name) in NO_PLACE
        return
    assert (version, name) not in NO_PLACE
    again = convert_workflow(saved, catalogue, choose=lambda options: options[0])
    assert again.graph == graph


def open_case(version: str, name: str) -> tuple[dict[str, Any], ConvertedWorkflow, Catalogue]:
    catalogue = own_recordings(version)["catalogue"]
    recorded_ui = own_recording(version, name).ui
    return recorded_ui, convert_workflow(recorded_ui, catalogue, choose=lambda options: options[0]), catalogue


def values_of(saved: Mapping[str, Any] | None, node_id: int) -> Any:
    assert saved is not None
    return next(node["widgets_values"] for node in saved["nodes"] if node["id"] == node_id)


def test_a_job_that_changes_nothing_saves_the_file_as_it_is() -> None:
    ui, conversion, catalogue = open_case("0.33.0", "own_s_primitive_seed")
    assert save(ui, conversion, catalogue, conversion.graph) is ui


def test_a_seed_that_a_primitive_feeds_is_written_into_the_primitive() -> None:
    ui, conversion, catalogue = open_case("0.33.0", "own_s_primitive_seed")
    graph = set_values(conversion.graph, {("1", "seed"): 7, ("2", "seed"): 7})
    saved = save(ui, conversion, catalogue, graph)
    primitive = next(node for node in ui["nodes"] if node["type"] == "PrimitiveNode")
    assert values_of(saved, primitive["id"]) == [7, *primitive["widgets_values"][1:]]
    # The control stays, and the seed is where the page shows it beside the primitive, too.
    sampler = next(node for node in ui["nodes"] if node["id"] == 1)
    assert values_of(saved, 1) == [7, *sampler["widgets_values"][1:]]


def test_a_seed_that_only_one_of_two_inputs_gets_has_no_place() -> None:
    ui, conversion, catalogue = open_case("0.33.0", "own_s_primitive_seed")
    assert save(ui, conversion, catalogue, set_values(conversion.graph, {("1", "seed"): 7})) is None

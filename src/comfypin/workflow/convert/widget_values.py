"""Load the values of all widgets, as the page holds them when it is about to submit.

Until page 1.27 a subgraph's definition held the values of all its instances: what one instance wrote into it, the next
one overwrote, which showed only if a value is asked for by name, or if a link leads nowhere. Later pages keep an
instance's values at the instance.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from comfypin.digest import JsonValue
from comfypin.workflow.convert.loaded_nodes import PRIMITIVE, LoadedNode, choose_option
from comfypin.workflow.convert.page_only_nodes import Variable
from comfypin.workflow.convert.page_versions import PageRules
from comfypin.workflow.convert.ui_graph import INPUT_NODE, UiGraph
from comfypin.workflow.convert.widget_layout import CHOICE, as_text
from comfypin.workflow.convert.widgets import CUSTOM_COMBO, UNSET, WidgetValue, widget_kind
from comfypin.workflow.node_inputs import COMBO


@dataclass(frozen=True, slots=True)
class ValuePlace:
    """One value of the file: in `widgets_values` of the node at `file_index` of a graph, by position or by name."""

    graph_id: str
    file_index: int
    key: int | str


# Where a value comes from, and then the places further out at which the page would read it instead if it stood there.
ValuePlaces: TypeAlias = "tuple[ValuePlace, ...]"


@dataclass(slots=True, kw_only=True)
class LoadedGraph:
    """A graph with its loaded nodes and their widget values by name (for an instance: by promoted input).

    `places` say where the file keeps each of these values.
    """

    graph: UiGraph
    loaded_nodes: dict[str, LoadedNode]
    values: dict[str, dict[str, WidgetValue]] = field(default_factory=dict)
    places: dict[str, dict[str, ValuePlaces]] = field(default_factory=dict)
    setters: Mapping[Variable, LoadedNode] = field(default_factory=dict)
    getters: Mapping[str, Variable] = field(default_factory=dict)
    decoration: frozenset[str] = frozenset()
    _targets: dict[str, list[tuple[LoadedNode, int]]] | None = None

    def linked_inputs(self) -> Iterator[tuple[str, LoadedNode, int]]:
        """Yield (link id, node, input index) for every link that ends at a node here."""
        for loaded_node in self.loaded_nodes.values():
            for input_index, input_slot in enumerate(loaded_node.inputs):
                if input_slot.link is not None:
                    yield input_slot.link, loaded_node, input_index

    def link_targets(self) -> dict[str, list[tuple[LoadedNode, int]]]:
        """Return the inputs at which each link ends; kept until `forget_targets`."""
        if self._targets is None:
            self._targets = {}
            for link_id, loaded_node, input_index in self.linked_inputs():
                self._targets.setdefault(link_id, []).append((loaded_node, input_index))
        return self._targets

    def forget_targets(self) -> None:
        """Drop the kept targets, because links were added."""
        self._targets = None


LoadedGraphs = Mapping[str, LoadedGraph]
# The widgets inside, as (node id, widget), that each input of a subgraph stands for.
Promotions = Mapping[str, list[tuple[str, str]]]


def find_promotions(
    loaded_graph: LoadedGraph, loaded_graphs: LoadedGraphs, page_rules: PageRules
) -> dict[str, list[tuple[str, str]]]:
    """Return the inner widgets that each input of a subgraph stands for, in the definition's order."""
    link_targets = loaded_graph.link_targets()
    promoted: dict[str, list[tuple[str, str]]] = {}
    for position, graph_input in enumerate(loaded_graph.graph.inputs):
        link_ids = (
            graph_input.links
            if page_rules.promotes_by_entry
            else graph_input.links or _links_from(loaded_graph.graph, position)
        )
        target_widgets = [
            (loaded_node.ui_node.id, loaded_node.inputs[input_index].name)
            for link_id in link_ids
            for loaded_node, input_index in link_targets.get(link_id, ())
            if has_widget_at(loaded_node, loaded_node.inputs[input_index].name, loaded_graphs)
        ]
        if target_widgets:
            promoted[graph_input.name] = target_widgets
    return promoted


def has_widget_at(loaded_node: LoadedNode, input_name: str, loaded_graphs: LoadedGraphs) -> bool:
    """Return whether an input has a widget, its own or one that a subgraph promotes."""
    seen_inputs: set[tuple[str, str]] = set()
    # A promoted widget can be promoted again further in, to any depth.
    unvisited = [(loaded_node, input_name)]
    while unvisited:
        visited_node, wanted_name = unvisited.pop()
        if visited_node.page_class is not None and wanted_name in visited_node.widgets:
            return True
        if visited_node.subgraph is None or (visited_node.subgraph, wanted_name) in seen_inputs:
            continue
        seen_inputs.add((visited_node.subgraph, wanted_name))
        inner_graph = loaded_graphs[visited_node.subgraph]
        link_ids = [
            link_id
            for graph_input in inner_graph.graph.inputs
            if graph_input.name == wanted_name
            for link_id in graph_input.links
        ]
        unvisited.extend(
            (target_node, target_node.inputs[input_index].name)
            for link_id in link_ids
            for target_node, input_index in inner_graph.link_targets().get(link_id, ())
        )
    return False


def initial_values(
    loaded_node: LoadedNode,
    promoted: Promotions,
    loaded_graphs: LoadedGraphs,
    page_rules: PageRules,
    *,
    saved: bool = True,
) -> dict[str, WidgetValue]:
    """Return a node's values after loading. An instance has those of its promoted inputs, saved ones by position."""
    if loaded_node.layout is not None:
        return dict(loaded_node.layout.values)
    if loaded_node.subgraph is None:
        return _unknown_values(loaded_node, page_rules)
    inner_graph = loaded_graphs[loaded_node.subgraph]
    instance_values = {
        port: inner_graph.values[target_widgets[0][0]].get(target_widgets[0][1], UNSET)
        for port, target_widgets in promoted.items()
    }
    saved_values = loaded_node.ui_node.values
    # By position, as the page saved them; a list that is shorter leaves the rest at the inner values.
    if saved and isinstance(saved_values, list):
        instance_values.update(zip(list(instance_values), saved_values, strict=False))
    elif saved and isinstance(saved_values, Mapping) and page_rules.reads_dict_values:
        instance_values.update(
            {port_name: saved_values[port_name] for port_name in instance_values if port_name in saved_values}
        )
    return instance_values


def find_places(
    loaded_graph: LoadedGraph,
    loaded_node: LoadedNode,
    promoted: Promotions,
    loaded_graphs: LoadedGraphs,
    page_rules: PageRules,
    *,
    saved: bool = True,
) -> dict[str, ValuePlaces]:
    """Return where the file keeps the values that `initial_values` returns."""
    graph_id, file_index = loaded_graph.graph.id, loaded_node.ui_node.file_index
    if loaded_node.layout is not None:
        return {
            widget_name: (ValuePlace(graph_id, file_index, key),)
            for widget_name, key in loaded_node.layout.keys.items()
        }
    if loaded_node.subgraph is None:
        return {}
    inner_graph, saved_values = loaded_graphs[loaded_node.subgraph], loaded_node.ui_node.values
    places: dict[str, ValuePlaces] = {}
    for position, (port_name, target_widgets) in enumerate(promoted.items()):
        places[port_name] = inner_graph.places[target_widgets[0][0]].get(target_widgets[0][1], ())
        if not saved or (isinstance(saved_values, Mapping) and not page_rules.reads_dict_values):
            continue
        own_place = ValuePlace(graph_id, file_index, port_name if isinstance(saved_values, Mapping) else position)
        is_saved = (
            port_name in saved_values
            if isinstance(saved_values, Mapping)
            else saved_values is not None and position < len(saved_values)
        )
        places[port_name] = (own_place,) if is_saved else (*places[port_name], own_place)
    return places


def settle_value(
    widget_value: WidgetValue, target_widget: tuple[str, str], inner_graph: LoadedGraph, page_rules: PageRules
) -> WidgetValue:
    """Show a promoted value as the page does: the first choice for a null, a text in a multiline field."""
    loaded_node = inner_graph.loaded_nodes[target_widget[0]]
    input_spec = loaded_node.widget_spec(target_widget[1])
    if input_spec is None:
        return widget_value
    if widget_value is None and widget_kind(input_spec) == "COMBO" and input_spec.choices:
        return input_spec.choices[0]
    if widget_value is None and loaded_node.ui_node.type == CUSTOM_COMBO and target_widget[1] == CHOICE:
        return inner_graph.values[target_widget[0]].get("option1", None)
    multiline = (
        page_rules.multiline_is_text
        and widget_kind(input_spec) == "STRING"
        and bool(input_spec.options.get("multiline"))
    )
    return as_text(widget_value) if multiline else widget_value


def load_shared_values(loaded_graphs: LoadedGraphs, graph_order: Sequence[str], page_rules: PageRules) -> None:
    """Give every widget its value by the rules of page 1.27: instances write theirs into what they share."""
    promoted = {
        graph_id: find_promotions(loaded_graphs[graph_id], loaded_graphs, page_rules)
        for graph_id in graph_order
        if graph_id
    }
    # The page loads definitions in the file's order: an instance of one that comes later cannot take its values yet.
    file_positions = {graph_id: file_position for file_position, graph_id in enumerate(loaded_graphs)}
    for graph_id in graph_order:
        loaded_graph = loaded_graphs[graph_id]
        for node_id, loaded_node in loaded_graph.loaded_nodes.items():
            is_early = (
                graph_id != ""
                and loaded_node.subgraph is not None
                and file_positions[loaded_node.subgraph] > file_positions[graph_id]
            )
            instance_ports = promoted[loaded_node.subgraph] if loaded_node.subgraph is not None else {}
            loaded_graph.values[node_id] = initial_values(
                loaded_node, instance_ports, loaded_graphs, page_rules, saved=not is_early
            )
            loaded_graph.places[node_id] = find_places(
                loaded_graph, loaded_node, instance_ports, loaded_graphs, page_rules, saved=not is_early
            )
    for graph_id in graph_order:
        apply_primitives(loaded_graphs[graph_id])
    # Saving the graph, which the page does first, writes each instance's values into the nodes inside: the root's
    # instances, then those of the definitions in the file's order.
    for graph_id in ["", *(graph_id for graph_id in loaded_graphs if graph_id)]:
        for loaded_node in loaded_graphs[graph_id].loaded_nodes.values():
            if loaded_node.subgraph is not None:
                inner_graph = loaded_graphs[loaded_node.subgraph]
                for port_name, target_widgets in promoted[loaded_node.subgraph].items():
                    for node_id, widget_name in target_widgets:
                        inner_graph.values[node_id][widget_name] = loaded_graphs[graph_id].values[
                            loaded_node.ui_node.id
                        ][port_name]
                        inner_graph.places[node_id][widget_name] = (
                            loaded_graphs[graph_id].places[loaded_node.ui_node.id].get(port_name, ())
                        )


def apply_primitives(loaded_graph: LoadedGraph) -> None:
    """Copy every PrimitiveNode's value into the widgets that it is linked to, muted or not."""
    target_widgets: dict[str, list[tuple[LoadedNode, str]]] = {}
    for link_id, loaded_node, input_index in loaded_graph.linked_inputs():
        ui_link = loaded_graph.graph.links.get(link_id)
        input_name = loaded_node.inputs[input_index].name
        if ui_link is not None and input_name in loaded_graph.values[loaded_node.ui_node.id]:
            target_widgets.setdefault(ui_link.origin_id, []).append((loaded_node, input_name))
    for primitive in loaded_graph.loaded_nodes.values():
        stored_values, connected = primitive.ui_node.values, target_widgets.get(primitive.ui_node.id, [])
        if (
            primitive.ui_node.type != PRIMITIVE
            or not connected
            or not isinstance(stored_values, list)
            or not stored_values
        ):
            continue
        # The page narrows a primitive to the range that all its targets share.
        widget_value = _in_common_range(stored_values[0], connected) if len(connected) > 1 else stored_values[0]
        primitive_place = ValuePlace(loaded_graph.graph.id, primitive.ui_node.file_index, 0)
        for loaded_node, widget_name in connected:
            loaded_graph.values[loaded_node.ui_node.id][widget_name] = widget_value
            loaded_graph.places[loaded_node.ui_node.id][widget_name] = (primitive_place,)
            if (input_spec := loaded_node.widget_spec(widget_name)) is not None and input_spec.type == COMBO:
                _choose_option(loaded_graph, loaded_node.ui_node.id, widget_name, widget_value)


def _choose_option(loaded_graph: LoadedGraph, node_id: str, combo_name: str, chosen_option: JsonValue) -> None:
    """Open the option of a dynamic combo that a primitive chose, if it differs from the file's."""
    loaded_node, widget_values = loaded_graph.loaded_nodes[node_id], loaded_graph.values[node_id]
    if loaded_node.layout is None or loaded_node.layout.values.get(combo_name, UNSET) == chosen_option:
        return
    reopened_node = choose_option(loaded_node, combo_name, chosen_option)
    kept_values = {
        widget_name: widget_value
        for widget_name, widget_value in widget_values.items()
        if not widget_name.startswith(f"{combo_name}.")
    }
    loaded_graph.loaded_nodes[node_id] = reopened_node
    loaded_graph.places[node_id] = {
        widget_name: places
        for widget_name, places in loaded_graph.places[node_id].items()
        if not widget_name.startswith(f"{combo_name}.")
    }
    loaded_graph.values[node_id] = (
        {**reopened_node.layout.values, **kept_values} if reopened_node.layout else kept_values
    )
    loaded_graph.forget_targets()


def _links_from(ui_graph: UiGraph, origin_slot: int) -> tuple[str, ...]:
    return tuple(
        ui_link.id
        for ui_link in ui_graph.links.values()
        if ui_link.origin_id == INPUT_NODE and ui_link.origin_slot == origin_slot
    )


def _unknown_values(loaded_node: LoadedNode, page_rules: PageRules) -> dict[str, WidgetValue]:
    stored_values = loaded_node.ui_node.values
    if loaded_node.is_virtual or not isinstance(stored_values, list) or not stored_values:
        return {}
    # The page shows a text field for each value; values other than texts, numbers and booleans appear there as JSON.
    shown_values = [
        stored_value if isinstance(stored_value, str | int | float) else json.dumps(stored_value, separators=(",", ":"))
        for stored_value in stored_values
    ]
    if not page_rules.sends_all_unknown_values:
        return {"UNKNOWN": shown_values[-1]}
    return {
        f"UNKNOWN_{value_number}" if value_number else "UNKNOWN": shown_value
        for value_number, shown_value in enumerate(shown_values)
    }


def _in_common_range(widget_value: JsonValue, target_widgets: list[tuple[LoadedNode, str]]) -> JsonValue:
    if not isinstance(widget_value, int | float):
        return widget_value
    minimums: list[float] = []
    maximums: list[float] = []
    for loaded_node, widget_name in target_widgets:
        input_spec = loaded_node.widget_spec(widget_name)
        if input_spec is None or widget_kind(input_spec) not in ("INT", "FLOAT"):
            continue
        minimum, maximum = input_spec.options.get("min"), input_spec.options.get("max")
        minimums.extend([minimum] if isinstance(minimum, int | float) else [])
        maximums.extend([maximum] if isinstance(maximum, int | float) else [])
    # A truth value counts as the number that JavaScript makes of it.
    return (
        min([max([int(widget_value) if isinstance(widget_value, bool) else widget_value, *minimums]), *maximums])
        if minimums or maximums
        else widget_value
    )

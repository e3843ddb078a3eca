"""Load the values of subgraph instances as later pages do: at the instance, by entry of `proxyWidgets` or by input.

An entry `[inner id, widget]` names the widget that a value of the instance belongs to. If no input of the subgraph
stands for that widget yet, the page adds one, for all instances, and so do we.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from comfypin.digest import JsonValue
from comfypin.workflow.convert.loaded_nodes import PRIMITIVE, LoadedNode
from comfypin.workflow.convert.page_versions import PageRules
from comfypin.workflow.convert.renumber import PROXY_WIDGETS
from comfypin.workflow.convert.ui_graph import INPUT_NODE, UiLink, UiPort, UiSlot
from comfypin.workflow.convert.widget_values import (
    LoadedGraph,
    LoadedGraphs,
    Promotions,
    ValuePlace,
    ValuePlaces,
    apply_primitives,
    find_places,
    find_promotions,
    has_widget_at,
    initial_values,
    settle_value,
)
from comfypin.workflow.convert.widgets import UNSET, WidgetValue

# Later pages move entries that they cannot resolve into this property, with the instance's value.
QUARANTINE = "proxyWidgetErrorQuarantine"
# An entry with this inner id means an input of the instance itself.
OWN_INPUT = "-1"
# Entries that begin so show an inner node's preview; they hold no value.
_PREVIEW = "$$"
_REASONS = (
    "missingSourceNode", "missingSourceWidget", "missingSubgraphInput", "ambiguousSubgraphInput",
    "unlinkedSourceWidget", "primitiveBypassFailed",
)  # fmt: skip
_PREFIX = re.compile(r"^\s*(\d+)\s*:\s*(.+)$", re.DOTALL)
# As deep as `order` lets subgraphs nest.
_MAX_NESTING = 100


@dataclass(frozen=True, slots=True)
class _ProxyEntry:
    """One entry of `proxyWidgets`: the inner node, the widget, perhaps a deeper node, and the instance's value."""

    inner_id: str
    widget: str
    deeper: str | None
    value: WidgetValue
    key: int | str


def load_instance_values(loaded_graphs: LoadedGraphs, graph_order: Sequence[str], page_rules: PageRules) -> None:
    """Give every widget its value by the rules of later pages, definitions from the inside out."""
    for graph_id in graph_order:
        loaded_graph = loaded_graphs[graph_id]
        for node_id, loaded_node in loaded_graph.loaded_nodes.items():
            loaded_graph.values[node_id] = _load_values(loaded_node, loaded_graphs, page_rules)
            promoted = (
                find_promotions(loaded_graphs[loaded_node.subgraph], loaded_graphs, page_rules)
                if loaded_node.subgraph is not None
                else {}
            )
            loaded_graph.places[node_id] = find_places(loaded_graph, loaded_node, promoted, loaded_graphs, page_rules)
        for loaded_node in loaded_graph.loaded_nodes.values():
            if loaded_node.subgraph is not None:
                _Promotion(loaded_graph, loaded_node, loaded_graphs, page_rules).apply_entries()
        # An entry of an instance further out may name what was just added to an instance in here.
        _complete_instances(loaded_graph, loaded_graphs, page_rules)
    for graph_id in graph_order:
        _complete_instances(loaded_graphs[graph_id], loaded_graphs, page_rules)
    for graph_id in graph_order:
        apply_primitives(loaded_graphs[graph_id])


def _load_values(loaded_node: LoadedNode, loaded_graphs: LoadedGraphs, page_rules: PageRules) -> dict[str, WidgetValue]:
    if loaded_node.subgraph is None:
        return initial_values(loaded_node, {}, loaded_graphs, page_rules)
    inner_graph = loaded_graphs[loaded_node.subgraph]
    promoted = find_promotions(inner_graph, loaded_graphs, page_rules)
    # By position first, entries or not: a widget that no entry gives a value keeps the one at its position.
    instance_values = initial_values(loaded_node, promoted, loaded_graphs, page_rules)
    for widget_name, widget_value in _quarantined_values(loaded_node):
        if widget_name in instance_values:
            instance_values[widget_name] = widget_value
    return {
        widget_name: settle_value(widget_value, promoted[widget_name][0], inner_graph, page_rules)
        for widget_name, widget_value in instance_values.items()
    }


def _quarantined_values(loaded_node: LoadedNode) -> Iterator[tuple[str, JsonValue]]:
    """Yield the values of the instance's own inputs that an earlier page put aside; the first of each name wins."""
    proxy_entries = _list_property(loaded_node, QUARANTINE)
    # The page reads a list as a whole: one entry that it does not know makes it ignore the others.
    if not all(map(_is_quarantined, proxy_entries)):
        return
    for proxy_entry in reversed(proxy_entries):
        original, widget_value = (
            (proxy_entry["originalEntry"], proxy_entry.get("hostValue"))
            if isinstance(proxy_entry, Mapping)
            else (None, None)
        )
        if isinstance(original, list) and original[0] == OWN_INPUT and widget_value is not None:
            yield str(original[1]), widget_value


def _is_quarantined(proxy_entry: JsonValue) -> bool:
    """Return whether the page itself wrote this entry. If any entry of a list is different, the page takes none."""
    if not isinstance(proxy_entry, Mapping) or not _is_entry(proxy_entry.get("originalEntry")):
        return False
    return proxy_entry.get("reason") in _REASONS and proxy_entry.get("attemptedAtVersion") == 1


def _complete_instances(loaded_graph: LoadedGraph, loaded_graphs: LoadedGraphs, page_rules: PageRules) -> None:
    """Give every instance the inputs that were added to its definition after it was loaded."""
    promotions_by_graph: dict[str, Promotions] = {}
    for node_id, loaded_node in loaded_graph.loaded_nodes.items():
        if loaded_node.subgraph is None:
            continue
        inner_graph = loaded_graphs[loaded_node.subgraph]
        added_ports = inner_graph.graph.inputs[len(loaded_node.inputs) :]
        if added_ports:
            added_slots = tuple(UiSlot(name=added_port.name, type=added_port.type) for added_port in added_ports)
            loaded_graph.loaded_nodes[node_id] = replace(loaded_node, inputs=(*loaded_node.inputs, *added_slots))
        instance_values = loaded_graph.values[node_id]
        if loaded_node.subgraph not in promotions_by_graph:
            promotions_by_graph[loaded_node.subgraph] = find_promotions(inner_graph, loaded_graphs, page_rules)
        for widget_name, target_widgets in promotions_by_graph[loaded_node.subgraph].items():
            if widget_name not in instance_values:
                instance_values[widget_name] = inner_graph.values[target_widgets[0][0]].get(target_widgets[0][1], UNSET)
                loaded_graph.places[node_id][widget_name] = inner_graph.places[target_widgets[0][0]].get(
                    target_widgets[0][1], ()
                )


def _raw_entries(loaded_node: LoadedNode) -> list[JsonValue]:
    proxy_entries = _list_property(loaded_node, PROXY_WIDGETS)
    return proxy_entries if all(map(_is_entry, proxy_entries)) else []


def _list_property(loaded_node: LoadedNode, property_name: str) -> list[JsonValue]:
    """Return a property that is a list, or a text that holds one."""
    property_value = loaded_node.ui_node.properties.get(property_name)
    if isinstance(property_value, str):
        try:
            property_value = json.loads(property_value)
        except (ValueError, RecursionError):
            return []
    return property_value if isinstance(property_value, list) else []


def _is_entry(proxy_entry: JsonValue) -> bool:
    """Return whether an entry is two or three texts. If any entry of a list is different, the page takes none."""
    return (
        isinstance(proxy_entry, list)
        and len(proxy_entry) in (2, 3)
        and all(isinstance(entry_part, str) for entry_part in proxy_entry)
    )


def _read_entries(loaded_node: LoadedNode) -> Iterator[_ProxyEntry]:
    saved_values = loaded_node.ui_node.values
    for entry_position, raw_entry in enumerate(_raw_entries(loaded_node)):
        if not isinstance(raw_entry, list):
            continue
        widget = str(raw_entry[1])
        if isinstance(saved_values, Mapping):
            widget_value: WidgetValue = saved_values.get(widget, UNSET)
        else:
            widget_value = (
                saved_values[entry_position]
                if saved_values is not None and entry_position < len(saved_values)
                else UNSET
            )
        deeper_id = str(raw_entry[2]) if len(raw_entry) > 2 and raw_entry[2] is not None else None
        entry_key = widget if isinstance(saved_values, Mapping) else entry_position
        yield _ProxyEntry(str(raw_entry[0]), widget, deeper_id, widget_value, entry_key)


class _Promotion:
    """Reads the entries of one instance, and adds the inputs that they ask for to its definition."""

    def __init__(
        self, loaded_graph: LoadedGraph, instance: LoadedNode, loaded_graphs: LoadedGraphs, page_rules: PageRules
    ) -> None:
        self._instance_values = loaded_graph.values[instance.ui_node.id]
        self._instance_places = loaded_graph.places[instance.ui_node.id]
        self._graph_id = loaded_graph.graph.id
        self._instance = instance
        self._inner_graph = loaded_graphs[instance.subgraph or ""]
        self._loaded_graphs = loaded_graphs
        self._page_rules = page_rules
        # Everything that grows with each entry, so that a thousand entries cost a thousand steps.
        ui_graph, link_targets = self._inner_graph.graph, self._inner_graph.link_targets()
        self._promoted = find_promotions(self._inner_graph, loaded_graphs, page_rules)
        self._links = dict(ui_graph.links)
        self._ports = list(ui_graph.inputs)
        self._names = {graph_input.name for graph_input in ui_graph.inputs}
        self._stands_for: dict[tuple[str, str], str] = {}
        for graph_input in ui_graph.inputs:
            first_source = next(_widget_sources(graph_input, link_targets), None)
            if first_source is not None:
                self._stands_for.setdefault(first_source, graph_input.name)

    def apply_entries(self) -> None:
        """Apply the entries, those of primitives last, as the page does."""
        of_primitives: dict[str, list[_ProxyEntry]] = {}
        for proxy_entry in _read_entries(self._instance):
            inner_node = self._inner_graph.loaded_nodes.get(proxy_entry.inner_id)
            if proxy_entry.inner_id == OWN_INPUT:
                self._set_own_input(proxy_entry)
            elif inner_node is not None and inner_node.ui_node.type == PRIMITIVE:
                of_primitives.setdefault(proxy_entry.inner_id, []).append(proxy_entry)
            elif inner_node is not None:
                self._set_inner_widget(self._normalize_entry(proxy_entry), inner_node)
        for node_id, proxy_entries in of_primitives.items():
            self._set_primitive(self._inner_graph.loaded_nodes[node_id], proxy_entries)
        if len(self._ports) > len(self._inner_graph.graph.inputs):
            ui_graph = replace(self._inner_graph.graph, inputs=tuple(self._ports), links=self._links)
            self._inner_graph.graph = ui_graph
            self._inner_graph.forget_targets()

    def _set_own_input(self, proxy_entry: _ProxyEntry) -> None:
        if proxy_entry.widget in self._promoted:
            self._set_value(proxy_entry.widget, proxy_entry)

    def _set_inner_widget(self, proxy_entry: _ProxyEntry, inner_node: LoadedNode) -> None:
        port_name = self._stands_for.get((proxy_entry.inner_id, proxy_entry.widget))
        if port_name is None:
            # A preview has no widget that an input could stand for.
            if proxy_entry.widget.startswith(_PREVIEW):
                return
            input_index = self._find_input(proxy_entry, inner_node)
            if input_index is None:
                return
            port_name = self._add_port(
                proxy_entry.widget, inner_node.inputs[input_index].type, [(proxy_entry.inner_id, input_index)]
            )
        if port_name in self._promoted:
            self._set_value(port_name, proxy_entry)

    def _set_primitive(self, primitive: LoadedNode, proxy_entries: Sequence[_ProxyEntry]) -> None:
        target_inputs = [
            (loaded_node.ui_node.id, input_index)
            for link_id, loaded_node, input_index in self._inner_graph.linked_inputs()
            if (ui_link := self._links.get(link_id)) and ui_link.origin_id == primitive.ui_node.id
        ]
        # Entries by two names (its value, and its control) make the page give up: the primitive's own value stays.
        if not target_inputs or len({entry.widget for entry in proxy_entries}) > 1:
            return
        given_title = primitive.ui_node.title
        wanted_name = given_title if given_title and given_title != PRIMITIVE else proxy_entries[0].widget
        port_name = self._add_port(
            wanted_name,
            self._inner_graph.loaded_nodes[target_inputs[0][0]].inputs[target_inputs[0][1]].type,
            target_inputs,
        )
        if port_name in self._promoted:
            valued_entry = next((entry for entry in proxy_entries if _has_value(entry)), proxy_entries[0])
            self._set_value(port_name, valued_entry)

    def _set_value(self, port_name: str, proxy_entry: _ProxyEntry) -> None:
        own_place = ValuePlace(self._graph_id, self._instance.ui_node.file_index, proxy_entry.key)
        if _has_value(proxy_entry):
            self._instance_values[port_name] = settle_value(
                proxy_entry.value, self._promoted[port_name][0], self._inner_graph, self._page_rules
            )
            self._instance_places[port_name] = (own_place,)
            return
        inner_id, widget_name = self._promoted[port_name][0]
        inner_places: ValuePlaces = self._inner_graph.places[inner_id].get(widget_name, ())
        self._instance_places[port_name] = (*inner_places, own_place)

    def _normalize_entry(self, proxy_entry: _ProxyEntry) -> _ProxyEntry:
        """Strip prefixes such as `11: ` from an entry, unless that is really the widget's name."""
        if _resolves_widget(self._inner_graph, proxy_entry.inner_id, proxy_entry.widget, self._loaded_graphs):
            return proxy_entry
        widget, deeper_id = proxy_entry.widget, proxy_entry.deeper
        # Earlier pages wrote the path to a nested widget into its name, one prefix a level.
        while prefix_match := _PREFIX.match(widget):
            deeper_id, widget = prefix_match[1], prefix_match[2]
        return replace(proxy_entry, widget=widget, deeper=deeper_id)

    def _find_input(self, proxy_entry: _ProxyEntry, inner_node: LoadedNode) -> int | None:
        if inner_node.subgraph is None:
            matching_indexes = (
                input_index
                for input_index, input_slot in enumerate(inner_node.inputs)
                if input_slot.widget and input_slot.name == proxy_entry.widget
            )
            return next(matching_indexes, None)
        promoted_indexes = [
            input_index
            for input_index, input_slot in enumerate(inner_node.inputs)
            if input_slot.name in self._inner_graph.values[inner_node.ui_node.id]
        ]
        for input_index in promoted_indexes:
            input_name = inner_node.inputs[input_index].name
            target_widget = _find_target(inner_node, input_name, self._loaded_graphs)
            if proxy_entry.deeper is None and (
                proxy_entry.widget == input_name
                or (target_widget is not None and target_widget[1] == proxy_entry.widget)
            ):
                return input_index
            if proxy_entry.deeper is not None and target_widget == (proxy_entry.deeper, proxy_entry.widget):
                return input_index
        # A third part that names a node further in than the next one counts for nothing.
        return next(
            (
                input_index
                for input_index in promoted_indexes
                if inner_node.inputs[input_index].name == proxy_entry.widget
            ),
            None,
        )

    def _add_port(self, wanted_name: str, type_name: str, target_inputs: Sequence[tuple[str, int]]) -> str:
        port_name, suffix_number = wanted_name, 1
        # The page numbers a name that is taken: `seed`, `seed_1`, `seed_2`.
        while port_name in self._names:
            port_name, suffix_number = f"{wanted_name}_{suffix_number}", suffix_number + 1
        port_position = len(self._ports)
        new_link_ids: list[str] = []
        promoted_widgets: list[tuple[str, str]] = []
        for node_id, input_index in target_inputs:
            link_id = f"{INPUT_NODE}:{port_position}:{node_id}:{input_index}"
            new_link_ids.append(link_id)
            self._links[link_id] = UiLink(
                id=link_id, origin_id=INPUT_NODE, origin_slot=port_position, target_id=node_id, target_slot=input_index
            )
            loaded_node = self._inner_graph.loaded_nodes[node_id]
            input_slots = list(loaded_node.inputs)
            input_slots[input_index] = replace(input_slots[input_index], link=link_id)
            self._inner_graph.loaded_nodes[node_id] = replace(loaded_node, inputs=tuple(input_slots))
            if has_widget_at(loaded_node, input_slots[input_index].name, self._loaded_graphs):
                promoted_widgets.append((node_id, input_slots[input_index].name))
        self._ports.append(UiPort(name=port_name, type=type_name, links=tuple(new_link_ids)))
        self._names.add(port_name)
        if promoted_widgets:
            self._promoted[port_name] = promoted_widgets
            self._stands_for.setdefault(promoted_widgets[0], port_name)
            self._instance_values[port_name] = self._inner_graph.values[promoted_widgets[0][0]].get(
                promoted_widgets[0][1], UNSET
            )
        return port_name


def _has_value(proxy_entry: _ProxyEntry) -> bool:
    return proxy_entry.value is not UNSET and proxy_entry.value is not None


def _widget_sources(
    graph_input: UiPort, link_targets: Mapping[str, Sequence[tuple[LoadedNode, int]]]
) -> Iterator[tuple[str, str]]:
    for link_id in graph_input.links:
        for loaded_node, input_index in link_targets.get(link_id, ()):
            input_slot = loaded_node.inputs[input_index]
            if loaded_node.subgraph is not None or input_slot.widget:
                yield loaded_node.ui_node.id, input_slot.name


def _find_target(instance: LoadedNode, input_name: str, loaded_graphs: LoadedGraphs) -> tuple[str, str] | None:
    """Return the node and the input inside an instance that one of its inputs leads to."""
    inner_graph = loaded_graphs[instance.subgraph or ""]
    link_targets = inner_graph.link_targets()
    for graph_input in inner_graph.graph.inputs:
        if graph_input.name == input_name:
            return next(_widget_sources(graph_input, link_targets), None)
    return None


def _resolves_widget(inner_graph: LoadedGraph, node_id: str, widget: str, loaded_graphs: LoadedGraphs) -> bool:
    # Bounded, because a damaged file can promote in a cycle.
    for _ in range(_MAX_NESTING):
        loaded_node = inner_graph.loaded_nodes.get(node_id)
        if loaded_node is None:
            return False
        if loaded_node.subgraph is None:
            return widget in loaded_node.widgets
        target_widget = _find_target(loaded_node, widget, loaded_graphs)
        if target_widget is None:
            return False
        inner_graph = loaded_graphs[loaded_node.subgraph]
        node_id, widget = target_widget
    return False

"""Values of subgraph instances as later pages hold them: at the instance, by entry of `proxyWidgets` or by input.

An entry `[inner id, widget]` names the widget that a value of the instance belongs to. If no input of the subgraph
stands for that widget yet, the page adds one, for all instances, and so do we.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from comfypin.digest import JsonValue
from comfypin.workflow.convert.pages import PageRules
from comfypin.workflow.convert.renumber import PROXY_WIDGETS
from comfypin.workflow.convert.shapes import PRIMITIVE, LoadedNode
from comfypin.workflow.convert.state import (
    LoadedGraph,
    LoadedGraphs,
    Promotions,
    apply_primitives,
    find_promotions,
    has_widget_at,
    initial_values,
    settle_value,
)
from comfypin.workflow.convert.ui import INPUT_NODE, UiLink, UiPort, UiSlot
from comfypin.workflow.convert.widgets import UNSET, WidgetValue

QUARANTINE = "proxyWidgetErrorQuarantine"
OWN_INPUT = "-1"
_PREVIEW = "$$"
_REASONS = (
    "missingSourceNode", "missingSourceWidget", "missingSubgraphInput", "ambiguousSubgraphInput",
    "unlinkedSourceWidget", "primitiveBypassFailed",
)  # fmt: skip
_PREFIX = re.compile(r"^\s*(\d+)\s*:\s*(.+)$", re.DOTALL)
_MAX_NESTING = 100


@dataclass(frozen=True, slots=True)
class _ProxyEntry:
    """One entry of `proxyWidgets`: the inner node, the widget, perhaps a deeper node, and the instance's value."""

    inner_id: str
    widget: str
    deeper: str | None
    value: WidgetValue


def load_instance_values(containers: LoadedGraphs, order: Sequence[str], page: PageRules) -> None:
    """Give every widget its value by the rules of later pages, definitions from the inside out."""
    for name in order:
        container = containers[name]
        for node_id, shape in container.loaded_nodes.items():
            container.values[node_id] = _load_values(shape, containers, page)
        for shape in container.loaded_nodes.values():
            if shape.subgraph is not None:
                _Promotion(container, shape, containers, page).apply_entries()
        # An entry of an instance further out may name what was just added to an instance in here.
        _complete_instances(container, containers, page)
    for name in order:
        _complete_instances(containers[name], containers, page)
    for name in order:
        apply_primitives(containers[name])


def _load_values(shape: LoadedNode, containers: LoadedGraphs, page: PageRules) -> dict[str, WidgetValue]:
    if shape.subgraph is None:
        return initial_values(shape, {}, containers, page)
    inside = containers[shape.subgraph]
    promoted = find_promotions(inside, containers, page)
    # By place first, entries or not: what an entry does not name, or has no value for, keeps what stands in its place.
    state = initial_values(shape, promoted, containers, page)
    for name, value in _quarantined_values(shape):
        if name in state:
            state[name] = value
    return {name: settle_value(value, promoted[name][0], inside, page) for name, value in state.items()}


def _quarantined_values(shape: LoadedNode) -> Iterator[tuple[str, JsonValue]]:
    """The values of the instance's own inputs that an earlier page put aside; the first of a name wins."""
    entries = _list_property(shape, QUARANTINE)
    if not all(map(_is_quarantined, entries)):
        return
    for entry in reversed(entries):
        original, value = (
            (entry["originalEntry"], entry.get("hostValue")) if isinstance(entry, Mapping) else (None, None)
        )
        if isinstance(original, list) and original[0] == OWN_INPUT and value is not None:
            yield str(original[1]), value


def _is_quarantined(entry: JsonValue) -> bool:
    """Whether an entry is what the page itself writes; of a list with any other one, it takes nothing."""
    if not isinstance(entry, Mapping) or not _is_entry(entry.get("originalEntry")):
        return False
    return entry.get("reason") in _REASONS and entry.get("attemptedAtVersion") == 1


def _complete_instances(container: LoadedGraph, containers: LoadedGraphs, page: PageRules) -> None:
    """Give every instance the inputs that were added to its definition after it was loaded."""
    cached: dict[str, Promotions] = {}
    for node_id, shape in container.loaded_nodes.items():
        if shape.subgraph is None:
            continue
        inside = containers[shape.subgraph]
        added = inside.graph.inputs[len(shape.inputs) :]
        if added:
            slots = tuple(UiSlot(name=port.name, type=port.type) for port in added)
            container.loaded_nodes[node_id] = replace(shape, inputs=(*shape.inputs, *slots))
        state = container.values[node_id]
        if shape.subgraph not in cached:
            cached[shape.subgraph] = find_promotions(inside, containers, page)
        for name, targets in cached[shape.subgraph].items():
            if name not in state:
                state[name] = inside.values[targets[0][0]].get(targets[0][1], UNSET)


def _raw_entries(shape: LoadedNode) -> list[JsonValue]:
    entries = _list_property(shape, PROXY_WIDGETS)
    return entries if all(map(_is_entry, entries)) else []


def _list_property(shape: LoadedNode, name: str) -> list[JsonValue]:
    """A property that is a list, or a text that holds one."""
    held = shape.ui_node.properties.get(name)
    if isinstance(held, str):
        try:
            held = json.loads(held)
        except (ValueError, RecursionError):
            return []
    return held if isinstance(held, list) else []


def _is_entry(entry: JsonValue) -> bool:
    """Whether an entry is two or three texts; of a list with any other one, the page takes nothing."""
    return isinstance(entry, list) and len(entry) in (2, 3) and all(isinstance(part, str) for part in entry)


def _read_entries(shape: LoadedNode) -> Iterator[_ProxyEntry]:
    saved = shape.ui_node.values
    for place, raw in enumerate(_raw_entries(shape)):
        if not isinstance(raw, list):
            continue
        widget = str(raw[1])
        if isinstance(saved, Mapping):
            value: WidgetValue = saved.get(widget, UNSET)
        else:
            value = saved[place] if saved is not None and place < len(saved) else UNSET
        deeper = str(raw[2]) if len(raw) > 2 and raw[2] is not None else None
        yield _ProxyEntry(str(raw[0]), widget, deeper, value)


class _Promotion:
    """Reads the entries of one instance, and adds the inputs that they ask for to its definition."""

    def __init__(self, container: LoadedGraph, host: LoadedNode, containers: LoadedGraphs, page: PageRules) -> None:
        self._state = container.values[host.ui_node.id]
        self._host = host
        self._inside = containers[host.subgraph or ""]
        self._containers = containers
        self._page = page
        # Everything that grows with each entry, so that a thousand entries cost a thousand steps.
        graph, inner = self._inside.graph, self._inside.link_targets()
        self._promoted = find_promotions(self._inside, containers, page)
        self._links = dict(graph.links)
        self._ports = list(graph.inputs)
        self._names = {port.name for port in graph.inputs}
        self._stands_for: dict[tuple[str, str], str] = {}
        for port in graph.inputs:
            source = next(_widget_sources(port, inner), None)
            if source is not None:
                self._stands_for.setdefault(source, port.name)

    def apply_entries(self) -> None:
        """Apply the entries: those of primitives last, as the page does."""
        of_primitives: dict[str, list[_ProxyEntry]] = {}
        for entry in _read_entries(self._host):
            inner = self._inside.loaded_nodes.get(entry.inner_id)
            if entry.inner_id == OWN_INPUT:
                self._set_own_input(entry)
            elif inner is not None and inner.ui_node.type == PRIMITIVE:
                of_primitives.setdefault(entry.inner_id, []).append(entry)
            elif inner is not None:
                self._set_inner_widget(self._normalize_entry(entry), inner)
        for node_id, entries in of_primitives.items():
            self._set_primitive(self._inside.loaded_nodes[node_id], entries)
        if len(self._ports) > len(self._inside.graph.inputs):
            graph = replace(self._inside.graph, inputs=tuple(self._ports), links=self._links)
            self._inside.graph = graph
            self._inside.forget_targets()

    def _set_own_input(self, entry: _ProxyEntry) -> None:
        if entry.widget in self._promoted and entry.value is not UNSET and entry.value is not None:
            self._set_value(entry.widget, entry.value)

    def _set_inner_widget(self, entry: _ProxyEntry, inner: LoadedNode) -> None:
        port = self._stands_for.get((entry.inner_id, entry.widget))
        if port is None:
            if entry.widget.startswith(_PREVIEW):
                return
            at = self._find_input(entry, inner)
            if at is None:
                return
            port = self._add_port(entry.widget, inner.inputs[at].type, [(entry.inner_id, at)])
        if entry.value is not UNSET and entry.value is not None and port in self._promoted:
            self._set_value(port, entry.value)

    def _set_primitive(self, primitive: LoadedNode, entries: Sequence[_ProxyEntry]) -> None:
        targets = [
            (shape.ui_node.id, index)
            for link_id, shape, index in self._inside.linked_inputs()
            if (link := self._links.get(link_id)) and link.origin_id == primitive.ui_node.id
        ]
        # Entries by two names (its value, and its control) make the page give up: the primitive's own value stays.
        if not targets or len({entry.widget for entry in entries}) > 1:
            return
        given = primitive.ui_node.title
        name = given if given and given != PRIMITIVE else entries[0].widget
        port = self._add_port(name, self._inside.loaded_nodes[targets[0][0]].inputs[targets[0][1]].type, targets)
        value = next((one.value for one in entries if one.value is not UNSET and one.value is not None), UNSET)
        if value is not UNSET and port in self._promoted:
            self._set_value(port, value)

    def _set_value(self, port: str, value: WidgetValue) -> None:
        self._state[port] = settle_value(value, self._promoted[port][0], self._inside, self._page)

    def _normalize_entry(self, entry: _ProxyEntry) -> _ProxyEntry:
        """The entry without prefixes (`11: width`), unless the widget is really called so."""
        if _resolves_widget(self._inside, entry.inner_id, entry.widget, self._containers):
            return entry
        widget, deeper = entry.widget, entry.deeper
        while match := _PREFIX.match(widget):
            deeper, widget = match[1], match[2]
        return replace(entry, widget=widget, deeper=deeper)

    def _find_input(self, entry: _ProxyEntry, inner: LoadedNode) -> int | None:
        if inner.subgraph is None:
            named = (at for at, slot in enumerate(inner.inputs) if slot.widget and slot.name == entry.widget)
            return next(named, None)
        promoted = [at for at, slot in enumerate(inner.inputs) if slot.name in self._inside.values[inner.ui_node.id]]
        for at in promoted:
            name = inner.inputs[at].name
            target = _find_target(inner, name, self._containers)
            if entry.deeper is None and (entry.widget == name or (target is not None and target[1] == entry.widget)):
                return at
            if entry.deeper is not None and target == (entry.deeper, entry.widget):
                return at
        # A third part that names a node further in than the next one counts for nothing.
        return next((at for at in promoted if inner.inputs[at].name == entry.widget), None)

    def _add_port(self, name: str, kind: str, targets: Sequence[tuple[str, int]]) -> str:
        unique, number = name, 1
        while unique in self._names:
            unique, number = f"{name}_{number}", number + 1
        place = len(self._ports)
        added: list[str] = []
        promoted: list[tuple[str, str]] = []
        for node_id, index in targets:
            link_id = f"{INPUT_NODE}:{place}:{node_id}:{index}"
            added.append(link_id)
            self._links[link_id] = UiLink(
                id=link_id, origin_id=INPUT_NODE, origin_slot=place, target_id=node_id, target_slot=index
            )
            shape = self._inside.loaded_nodes[node_id]
            slots = list(shape.inputs)
            slots[index] = replace(slots[index], link=link_id)
            self._inside.loaded_nodes[node_id] = replace(shape, inputs=tuple(slots))
            if has_widget_at(shape, slots[index].name, self._containers):
                promoted.append((node_id, slots[index].name))
        self._ports.append(UiPort(name=unique, type=kind, links=tuple(added)))
        self._names.add(unique)
        if promoted:
            self._promoted[unique] = promoted
            self._stands_for.setdefault(promoted[0], unique)
            self._state[unique] = self._inside.values[promoted[0][0]].get(promoted[0][1], UNSET)
        return unique


def _widget_sources(port: UiPort, inner: Mapping[str, Sequence[tuple[LoadedNode, int]]]) -> Iterator[tuple[str, str]]:
    for link_id in port.links:
        for shape, index in inner.get(link_id, ()):
            slot = shape.inputs[index]
            if shape.subgraph is not None or slot.widget:
                yield shape.ui_node.id, slot.name


def _find_target(instance: LoadedNode, name: str, containers: LoadedGraphs) -> tuple[str, str] | None:
    """The node and the input inside an instance that one of its inputs leads to."""
    inside = containers[instance.subgraph or ""]
    inner = inside.link_targets()
    for port in inside.graph.inputs:
        if port.name == name:
            return next(_widget_sources(port, inner), None)
    return None


def _resolves_widget(inside: LoadedGraph, node_id: str, widget: str, containers: LoadedGraphs) -> bool:
    for _ in range(_MAX_NESTING):
        shape = inside.loaded_nodes.get(node_id)
        if shape is None:
            return False
        if shape.subgraph is None:
            return widget in shape.widgets
        target = _find_target(shape, widget, containers)
        if target is None:
            return False
        inside = containers[shape.subgraph]
        node_id, widget = target
    return False

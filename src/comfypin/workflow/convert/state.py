"""The values of all widgets, as the page holds them when it is about to submit.

A subgraph's definition exists once, however many instances it has, so its nodes' widgets are shared: what one instance
writes into them, the next one overwrites. It shows only where a value is asked for by name, or where a wire leads
nowhere; we do as the page does.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from comfypin.digest import JsonValue
from comfypin.workflow.convert.shapes import PRIMITIVE, Shape
from comfypin.workflow.convert.ui import INPUT_NODE, UiGraph
from comfypin.workflow.convert.widgets import UNSET, Value, assign


@dataclass(slots=True, kw_only=True)
class Container:
    """A graph with its nodes' shapes, and each node's widget values by name (for an instance: by promoted input)."""

    graph: UiGraph
    shapes: Mapping[str, Shape]
    values: dict[str, dict[str, Value]] = field(default_factory=dict)

    def consumers(self) -> Iterator[tuple[str, Shape, int]]:
        """(link id, node, input index) for every wire that ends at a node here."""
        for shape in self.shapes.values():
            for index, slot in enumerate(shape.inputs):
                if slot.link is not None:
                    yield slot.link, shape, index


def load_values(containers: Mapping[str, Container], order: list[str]) -> None:
    """Give every widget its value, definitions from the inside out, then let instances and primitives write theirs."""
    promoted = {name: _promotions(containers[name], containers) for name in order if name in containers and name != ""}
    # The page loads definitions in the file's order: an instance of one that comes later cannot take its values yet.
    places = {name: place for place, name in enumerate(containers)}
    for name in order:
        container = containers[name]
        for node_id, shape in container.shapes.items():
            early = name != "" and shape.subgraph is not None and places[shape.subgraph] > places[name]
            container.values[node_id] = _initial(shape, promoted, containers, stored=not early)
    for name in order:
        apply_primitives(containers[name])
    # Saving the graph, which the page does first, writes each instance's values into the nodes inside: the root's
    # instances, then those of the definitions in the file's order.
    for name in ["", *(name for name in containers if name)]:
        for shape in containers[name].shapes.values():
            if shape.subgraph is not None:
                inside = containers[shape.subgraph]
                for port, targets in promoted[shape.subgraph].items():
                    for node_id, widget in targets:
                        inside.values[node_id][widget] = containers[name].values[shape.node.id][port]


def apply_primitives(container: Container) -> None:
    """Copy every PrimitiveNode's value into the widgets that it is wired to, muted or not."""
    targets: dict[str, list[tuple[Shape, str]]] = {}
    for link_id, shape, index in container.consumers():
        link = container.graph.links.get(link_id)
        name = shape.inputs[index].name
        if link is not None and name in container.values[shape.node.id]:
            targets.setdefault(link.origin_id, []).append((shape, name))
    for primitive in container.shapes.values():
        stored, wired = primitive.node.values, targets.get(primitive.node.id, [])
        if primitive.node.type != PRIMITIVE or not wired or not isinstance(stored, list) or not stored:
            continue
        value = _in_common_range(stored[0], wired) if len(wired) > 1 else stored[0]
        for shape, widget in wired:
            container.values[shape.node.id][widget] = value


def _promotions(container: Container, containers: Mapping[str, Container]) -> dict[str, list[tuple[str, str]]]:
    """The widgets inside that each input of a subgraph stands for, in the definition's order."""
    inner: dict[str, list[tuple[Shape, int]]] = {}
    for link_id, shape, index in container.consumers():
        inner.setdefault(link_id, []).append((shape, index))
    promoted: dict[str, list[tuple[str, str]]] = {}
    for position, port in enumerate(container.graph.inputs):
        links = port.links or _wires_from(container.graph, position)
        targets = [
            (shape.node.id, shape.inputs[index].name)
            for link_id in links
            for shape, index in inner.get(link_id, ())
            if _has_widget(shape, index, containers)
        ]
        if targets:
            promoted[port.name] = targets
    return promoted


def _wires_from(graph: UiGraph, slot: int) -> tuple[str, ...]:
    return tuple(link.id for link in graph.links.values() if link.origin_id == INPUT_NODE and link.origin_slot == slot)


def _has_widget(shape: Shape, index: int, containers: Mapping[str, Container]) -> bool:
    name = shape.inputs[index].name
    seen: set[tuple[str, str]] = set()
    waiting = [(shape, name)]
    while waiting:
        one, wanted = waiting.pop()
        if one.known is not None and any(widget.name == wanted for widget in one.known.widgets):
            return True
        if one.subgraph is None or (one.subgraph, wanted) in seen:
            continue
        seen.add((one.subgraph, wanted))
        inside = containers[one.subgraph]
        ports = [port for port in inside.graph.inputs if port.name == wanted]
        links = {link for port in ports for link in port.links}
        waiting.extend((target, target.inputs[at].name) for link, target, at in inside.consumers() if link in links)
    return False


def _initial(
    shape: Shape,
    promoted: Mapping[str, Mapping[str, list[tuple[str, str]]]],
    containers: Mapping[str, Container],
    *,
    stored: bool,
) -> dict[str, Value]:
    if shape.known is not None:
        return assign(shape.known, shape.node.values)
    if shape.subgraph is None:
        return _unknown_values(shape)
    inside = containers[shape.subgraph]
    ports = promoted[shape.subgraph]
    state = {port: inside.values[targets[0][0]].get(targets[0][1], UNSET) for port, targets in ports.items()}
    values = shape.node.values
    if stored and isinstance(values, list):
        state.update(zip(list(state), values, strict=False))
    return state


def _unknown_values(shape: Shape) -> dict[str, Value]:
    stored = shape.node.values
    if shape.is_virtual or not isinstance(stored, list):
        return {}
    if not stored:
        return {}
    # The page shows a text field for each value; what is no text, number or truth value stands there as JSON.
    last = stored[-1]
    return {"UNKNOWN": last if isinstance(last, str | int | float) else json.dumps(last, separators=(",", ":"))}


def _in_common_range(value: JsonValue, targets: list[tuple[Shape, str]]) -> JsonValue:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    least: list[float] = []
    most: list[float] = []
    for shape, name in targets:
        spec = shape.known.specs.get(name) if shape.known else None
        if spec is None or spec.type not in ("INT", "FLOAT"):
            continue
        low, high = spec.options.get("min"), spec.options.get("max")
        least.extend([low] if isinstance(low, int | float) else [])
        most.extend([high] if isinstance(high, int | float) else [])
    return min([max([value, *least]), *most])

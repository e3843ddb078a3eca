"""The values of all widgets, as the page holds them when it is about to submit.

Until page 1.27 a subgraph's definition held the values of all its instances: what one instance wrote into it, the next
one overwrote, which showed only where a value is asked for by name, or where a wire leads nowhere. Later pages keep an
instance's values at the instance.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from comfypin.digest import JsonValue
from comfypin.workflow.convert.layout import CHOICE, as_text
from comfypin.workflow.convert.packs import Variable
from comfypin.workflow.convert.pages import PageRules
from comfypin.workflow.convert.shapes import PRIMITIVE, LoadedNode, choose_option
from comfypin.workflow.convert.ui import INPUT_NODE, UiGraph
from comfypin.workflow.convert.widgets import CUSTOM_COMBO, UNSET, WidgetValue, widget_kind
from comfypin.workflow.node_inputs import COMBO


@dataclass(slots=True, kw_only=True)
class LoadedGraph:
    """A graph with its nodes' shapes, and each node's widget values by name (for an instance: by promoted input)."""

    graph: UiGraph
    loaded_nodes: dict[str, LoadedNode]
    values: dict[str, dict[str, WidgetValue]] = field(default_factory=dict)
    setters: Mapping[Variable, LoadedNode] = field(default_factory=dict)
    getters: Mapping[str, Variable] = field(default_factory=dict)
    decoration: frozenset[str] = frozenset()
    _targets: dict[str, list[tuple[LoadedNode, int]]] | None = None

    def linked_inputs(self) -> Iterator[tuple[str, LoadedNode, int]]:
        """(link id, node, input index) for every wire that ends at a node here."""
        for shape in self.loaded_nodes.values():
            for index, slot in enumerate(shape.inputs):
                if slot.link is not None:
                    yield slot.link, shape, index

    def link_targets(self) -> dict[str, list[tuple[LoadedNode, int]]]:
        """The inputs at which each link ends; kept until `forget_targets`."""
        if self._targets is None:
            self._targets = {}
            for link_id, shape, index in self.linked_inputs():
                self._targets.setdefault(link_id, []).append((shape, index))
        return self._targets

    def forget_targets(self) -> None:
        """Look at the wires again: some were added."""
        self._targets = None


LoadedGraphs = Mapping[str, LoadedGraph]
Promotions = Mapping[str, list[tuple[str, str]]]
"""The widgets inside, as (node id, widget), that each input of a subgraph stands for."""


def find_promotions(
    container: LoadedGraph, containers: LoadedGraphs, page: PageRules
) -> dict[str, list[tuple[str, str]]]:
    """The widgets inside that each input of a subgraph stands for, in the definition's order."""
    inner = container.link_targets()
    promoted: dict[str, list[tuple[str, str]]] = {}
    for position, port in enumerate(container.graph.inputs):
        links = port.links if page.promotes_by_entry else port.links or _wires_from(container.graph, position)
        targets = [
            (shape.ui_node.id, shape.inputs[index].name)
            for link_id in links
            for shape, index in inner.get(link_id, ())
            if has_widget_at(shape, shape.inputs[index].name, containers)
        ]
        if targets:
            promoted[port.name] = targets
    return promoted


def has_widget_at(shape: LoadedNode, name: str, containers: LoadedGraphs) -> bool:
    """Whether an input has a widget, its own or one that a subgraph promotes."""
    seen: set[tuple[str, str]] = set()
    waiting = [(shape, name)]
    while waiting:
        one, wanted = waiting.pop()
        if one.page_class is not None and wanted in one.widgets:
            return True
        if one.subgraph is None or (one.subgraph, wanted) in seen:
            continue
        seen.add((one.subgraph, wanted))
        inside = containers[one.subgraph]
        links = [link for port in inside.graph.inputs if port.name == wanted for link in port.links]
        waiting.extend(
            (target, target.inputs[at].name) for link in links for target, at in inside.link_targets().get(link, ())
        )
    return False


def initial_values(
    shape: LoadedNode, promoted: Promotions, containers: LoadedGraphs, page: PageRules, *, saved: bool = True
) -> dict[str, WidgetValue]:
    """The values of one node after loading; for an instance, those of its promoted inputs, saved ones by place."""
    if shape.layout is not None:
        return dict(shape.layout.values)
    if shape.subgraph is None:
        return _unknown_values(shape, page)
    inside = containers[shape.subgraph]
    state = {port: inside.values[targets[0][0]].get(targets[0][1], UNSET) for port, targets in promoted.items()}
    values = shape.ui_node.values
    if saved and isinstance(values, list):
        state.update(zip(list(state), values, strict=False))
    elif saved and isinstance(values, Mapping) and page.reads_dict_values:
        state.update({name: values[name] for name in state if name in values})
    return state


def settle_value(value: WidgetValue, target: tuple[str, str], inside: LoadedGraph, page: PageRules) -> WidgetValue:
    """A promoted value as the page shows it: the first choice for a null, a text in a field of several lines."""
    shape = inside.loaded_nodes[target[0]]
    spec = shape.widget_spec(target[1])
    if spec is None:
        return value
    if value is None and widget_kind(spec) == "COMBO" and spec.choices:
        return spec.choices[0]
    if value is None and shape.ui_node.type == CUSTOM_COMBO and target[1] == CHOICE:
        return inside.values[target[0]].get("option1", None)
    multiline = page.multiline_is_text and widget_kind(spec) == "STRING" and bool(spec.options.get("multiline"))
    return as_text(value) if multiline else value


def load_shared_values(containers: LoadedGraphs, order: Sequence[str], page: PageRules) -> None:
    """Give every widget its value by the rules of page 1.27: instances write theirs into what they share."""
    promoted = {name: find_promotions(containers[name], containers, page) for name in order if name}
    # The page loads definitions in the file's order: an instance of one that comes later cannot take its values yet.
    places = {name: place for place, name in enumerate(containers)}
    for name in order:
        container = containers[name]
        for node_id, shape in container.loaded_nodes.items():
            early = name != "" and shape.subgraph is not None and places[shape.subgraph] > places[name]
            ports = promoted[shape.subgraph] if shape.subgraph is not None else {}
            container.values[node_id] = initial_values(shape, ports, containers, page, saved=not early)
    for name in order:
        apply_primitives(containers[name])
    # Saving the graph, which the page does first, writes each instance's values into the nodes inside: the root's
    # instances, then those of the definitions in the file's order.
    for name in ["", *(name for name in containers if name)]:
        for shape in containers[name].loaded_nodes.values():
            if shape.subgraph is not None:
                inside = containers[shape.subgraph]
                for port, targets in promoted[shape.subgraph].items():
                    for node_id, widget in targets:
                        inside.values[node_id][widget] = containers[name].values[shape.ui_node.id][port]


def apply_primitives(container: LoadedGraph) -> None:
    """Copy every PrimitiveNode's value into the widgets that it is wired to, muted or not."""
    targets: dict[str, list[tuple[LoadedNode, str]]] = {}
    for link_id, shape, index in container.linked_inputs():
        link = container.graph.links.get(link_id)
        name = shape.inputs[index].name
        if link is not None and name in container.values[shape.ui_node.id]:
            targets.setdefault(link.origin_id, []).append((shape, name))
    for primitive in container.loaded_nodes.values():
        stored, wired = primitive.ui_node.values, targets.get(primitive.ui_node.id, [])
        if primitive.ui_node.type != PRIMITIVE or not wired or not isinstance(stored, list) or not stored:
            continue
        value = _in_common_range(stored[0], wired) if len(wired) > 1 else stored[0]
        for shape, widget in wired:
            container.values[shape.ui_node.id][widget] = value
            if (spec := shape.widget_spec(widget)) is not None and spec.type == COMBO:
                _choose_option(container, shape.ui_node.id, widget, value)


def _choose_option(container: LoadedGraph, node_id: str, combo: str, option: JsonValue) -> None:
    """Open the option of a dynamic combo that a primitive chose, where it is another one than the file's."""
    shape, values = container.loaded_nodes[node_id], container.values[node_id]
    if shape.layout is None or shape.layout.values.get(combo, UNSET) == option:
        return
    chosen = choose_option(shape, combo, option)
    kept = {name: value for name, value in values.items() if not name.startswith(f"{combo}.")}
    container.loaded_nodes[node_id] = chosen
    container.values[node_id] = {**chosen.layout.values, **kept} if chosen.layout else kept
    container.forget_targets()


def _wires_from(graph: UiGraph, slot: int) -> tuple[str, ...]:
    return tuple(link.id for link in graph.links.values() if link.origin_id == INPUT_NODE and link.origin_slot == slot)


def _unknown_values(shape: LoadedNode, page: PageRules) -> dict[str, WidgetValue]:
    stored = shape.ui_node.values
    if shape.is_virtual or not isinstance(stored, list) or not stored:
        return {}
    # The page shows a text field for each value; what is no text, number or truth value stands there as JSON.
    shown = [one if isinstance(one, str | int | float) else json.dumps(one, separators=(",", ":")) for one in stored]
    if not page.sends_all_unknown_values:
        return {"UNKNOWN": shown[-1]}
    return {f"UNKNOWN_{number}" if number else "UNKNOWN": value for number, value in enumerate(shown)}


def _in_common_range(value: JsonValue, targets: list[tuple[LoadedNode, str]]) -> JsonValue:
    if not isinstance(value, int | float):
        return value
    least: list[float] = []
    most: list[float] = []
    for shape, name in targets:
        spec = shape.widget_spec(name)
        if spec is None or widget_kind(spec) not in ("INT", "FLOAT"):
            continue
        low, high = spec.options.get("min"), spec.options.get("max")
        least.extend([low] if isinstance(low, int | float) else [])
        most.extend([high] if isinstance(high, int | float) else [])
    # A truth value counts as the number that JavaScript makes of it.
    return min([max([int(value) if isinstance(value, bool) else value, *least]), *most]) if least or most else value

"""Where a wire really comes from: through reroutes, bypassed nodes and the borders of subgraphs, without recursion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from comfypin.workflow.convert.packs import Variable, explain_missing_setter
from comfypin.workflow.convert.pages import PageRules
from comfypin.workflow.convert.shapes import LoadedNode, bypass_index
from comfypin.workflow.convert.state import LoadedGraph
from comfypin.workflow.convert.ui import BYPASSED, INPUT_NODE, MUTED, OUTPUT_NODE, UiGraph, UiLink
from comfypin.workflow.convert.widgets import WidgetValue


@dataclass(frozen=True, slots=True)
class Scope:
    """One unfolding of a graph: the root, or a subgraph by the path of instances that leads to it (`6:5:`)."""

    container: LoadedGraph
    prefix: str = ""
    parent: "Scope | None" = None
    instance: LoadedNode | None = None

    def find_node(self, node_id: str) -> LoadedNode | None:
        """The node with this id of the file, or None."""
        return self.container.loaded_nodes.get(node_id)

    def prompt_id(self, node_id: str) -> str:
        """The node's id in the prompt."""
        return f"{self.prefix}{node_id}"


@dataclass(frozen=True, slots=True)
class FromNode:
    """The wire comes from this output of a node of the prompt (which may be muted, and then is not in it)."""

    node_id: str
    slot: int


@dataclass(frozen=True, slots=True)
class FromWidget:
    """The wire comes from a promoted widget of a subgraph instance, or from what stands for a broadcast value."""

    value: WidgetValue
    scope: Scope
    instance: LoadedNode
    name: str


@dataclass(frozen=True, slots=True)
class BrokenWire:
    """The wire cannot be followed; ComfyUI's page would fail here."""

    reason: str


WireSource: TypeAlias = "FromNode | FromWidget | BrokenWire | None"
Scopes: TypeAlias = "Mapping[tuple[str, str], Scope]"
"""The scope inside an instance, by the prefix of the scope the instance is in and the instance's id."""


@dataclass(frozen=True, slots=True)
class _AtInput:
    scope: Scope
    shape: LoadedNode
    index: int


@dataclass(frozen=True, slots=True)
class _AtOutput:
    scope: Scope
    shape: LoadedNode
    slot: int


_Place: TypeAlias = "_AtInput | _AtOutput"


class WireResolver:
    """Follows wires; what was found on the way is kept, so that many wires over one long way cost it once."""

    def __init__(self, inside: Scopes, page: PageRules) -> None:
        self._inside = inside
        self._page = page
        self._known: dict[tuple[bool, str, str, int, str], WireSource] = {}

    def resolve_input(self, scope: Scope, shape: LoadedNode, index: int) -> WireSource:
        """Follow the wire at one input of a node to its end; None where nothing is connected."""
        wanted = shape.inputs[index].type
        place: _Place | WireSource = _AtInput(scope, shape, index)
        way: dict[tuple[bool, str, str, int, str], None] = {}
        while isinstance(place, _AtInput | _AtOutput):
            at_input = isinstance(place, _AtInput)
            number = place.index if isinstance(place, _AtInput) else place.slot
            key = (at_input, place.scope.prefix, place.shape.ui_node.id, number, wanted)
            if key in self._known:
                place = self._known[key]
                break
            if key in way:
                place = BrokenWire("the wire leads back to itself through bypassed nodes or reroutes")
                break
            way[key] = None
            place = _before_input(place) if isinstance(place, _AtInput) else self._before_output(place, wanted)
        self._known.update(dict.fromkeys(way, place))
        return place

    def _before_output(self, place: _AtOutput, wanted: str) -> "_Place | WireSource":
        scope, shape, slot = place.scope, place.shape, place.slot
        if shape.ui_node.mode == MUTED and self._page.muted_gives_nothing:
            return None
        if shape.ui_node.mode == BYPASSED:
            index = bypass_index(shape, slot, wanted, self._page)
            return None if index is None else _AtInput(scope, shape, index)
        if shape.subgraph is not None:
            return _inside_instance(self._inside[scope.prefix, shape.ui_node.id], shape, slot, self._page)
        if (variable := scope.container.getters.get(shape.ui_node.id)) is not None:
            return _at_setter(scope, variable) or BrokenWire(explain_missing_setter(variable))
        if shape.is_virtual:
            return _AtInput(scope, shape, slot) if 0 <= slot < len(shape.inputs) else None
        if self._page.refuses_missing_slots and not 0 <= slot < len(shape.outputs):
            return BrokenWire(f"{_describe_node(shape)} has no output number {slot}")
        return FromNode(scope.prompt_id(shape.ui_node.id), slot)


def _before_input(place: _AtInput) -> "_Place | WireSource":
    scope, shape = place.scope, place.shape
    if not 0 <= place.index < len(shape.inputs):
        return BrokenWire(f"{_describe_node(shape)} has no input number {place.index}")
    slot = shape.inputs[place.index]
    if slot.link is None:
        return None
    link = scope.container.graph.links.get(slot.link)
    if link is None:
        return BrokenWire(
            f"input {slot.name} of {_describe_node(shape)} is wired by link {slot.link}, which the file does not hold"
        )
    if link.origin_id == INPUT_NODE and scope.parent is not None and scope.instance is not None:
        return _outside_instance(scope, link)
    origin = scope.find_node(link.origin_id)
    if origin is None:
        return BrokenWire(f"link {link.id} comes from node {link.origin_id}, and there is no such node")
    return _AtOutput(scope, origin, link.origin_slot)


def _outside_instance(scope: Scope, link: UiLink) -> "_Place | WireSource":
    """From a subgraph's input to what is wired to the instance, or to the value that stands in its place."""
    parent, instance = scope.parent, scope.instance
    if parent is None or instance is None or not 0 <= link.origin_slot < len(instance.inputs):
        return BrokenWire(f"link {link.id} comes from input {link.origin_slot} of a subgraph that has none such")
    slot = instance.inputs[link.origin_slot]
    if slot.link is not None:
        return _AtInput(parent, instance, link.origin_slot)
    values = parent.container.values.get(instance.ui_node.id, {})
    if slot.name not in values:
        return None
    return FromWidget(values[slot.name], parent, instance, slot.name)


def _at_setter(scope: Scope, variable: Variable) -> "_AtInput | None":
    """The wire into the Set node of a variable, in this graph or in one around it."""
    at: Scope | None = scope
    while at is not None:
        setter = at.container.setters.get(variable)
        if setter is not None:
            return _AtInput(at, setter, next(i for i, slot in enumerate(setter.inputs) if slot.link is not None))
        at = at.parent
    return None


def _inside_instance(scope: Scope, instance: LoadedNode, slot: int, page: PageRules) -> "_Place | WireSource":
    """From an instance's output to the node inside that gives it."""
    graph = scope.container.graph
    if not 0 <= slot < len(graph.outputs):
        return BrokenWire(f"{_describe_node(instance)} has no output number {slot}")
    link = _output_link(graph, slot, page)
    if link is None:
        return None
    if link.origin_id == INPUT_NODE:
        if page.refuses_straight_wires:
            wire = f"input {link.origin_slot} is wired straight to output {slot}"
            return BrokenWire(
                f"in {_describe_node(instance)} {wire}, which ComfyUI's page cannot submit: put a Reroute between"
            )
        return _outside_instance(scope, link)
    origin = scope.find_node(link.origin_id)
    if origin is None:
        return BrokenWire(f"link {link.id} comes from node {link.origin_id}, and there is no such node")
    return _AtOutput(scope, origin, link.origin_slot)


def _output_link(graph: UiGraph, slot: int, page: PageRules) -> UiLink | None:
    """The link at a subgraph's output; where several lead to it, the first in the file's rows."""
    listed = graph.outputs[slot].links
    if page.first_row_gives_output and len(listed) != 1:
        rows = (link for link in graph.links.values() if link.target_id == OUTPUT_NODE and link.target_slot == slot)
        first = next(rows, None)
        if first is not None:
            return first
    return graph.links.get(listed[0]) if listed else None


def _describe_node(shape: LoadedNode) -> str:
    return f"node {shape.ui_node.id} ({shape.title or shape.ui_node.type})"

"""Follow a link to its real source, through reroutes, bypassed nodes and subgraph borders, without recursion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from comfypin.workflow.convert.loaded_nodes import LoadedNode, bypass_index
from comfypin.workflow.convert.page_only_nodes import Variable, explain_missing_setter
from comfypin.workflow.convert.page_versions import PageRules
from comfypin.workflow.convert.ui_graph import BYPASSED, INPUT_NODE, MUTED, OUTPUT_NODE, UiGraph, UiLink
from comfypin.workflow.convert.widget_values import LoadedGraph
from comfypin.workflow.convert.widgets import WidgetValue


@dataclass(frozen=True, slots=True)
class Scope:
    """One unfolding of a graph: the root, or a subgraph by the path of instances that leads to it (`6:5:`)."""

    loaded_graph: LoadedGraph
    prefix: str = ""
    parent: "Scope | None" = None
    instance: LoadedNode | None = None

    def find_node(self, node_id: str) -> LoadedNode | None:
        """Return the node with this id of the file, or None."""
        return self.loaded_graph.loaded_nodes.get(node_id)

    def prompt_id(self, node_id: str) -> str:
        """Return the node's id in the prompt."""
        return f"{self.prefix}{node_id}"


@dataclass(frozen=True, slots=True)
class FromNode:
    """The link comes from this output of a node of the prompt. If that node is muted, it is not in the prompt."""

    node_id: str
    slot: int


@dataclass(frozen=True, slots=True)
class FromWidget:
    """The link comes from a promoted widget of a subgraph instance, or from what stands for a broadcast value."""

    value: WidgetValue
    scope: Scope
    instance: LoadedNode
    name: str


@dataclass(frozen=True, slots=True)
class BrokenLink:
    """The link cannot be followed; ComfyUI's page would fail here."""

    reason: str


LinkSource: TypeAlias = "FromNode | FromWidget | BrokenLink | None"
# The scope inside an instance, by the prefix of the scope the instance is in and the instance's id.
Scopes: TypeAlias = "Mapping[tuple[str, str], Scope]"


@dataclass(frozen=True, slots=True)
class _AtInput:
    scope: Scope
    loaded_node: LoadedNode
    index: int


@dataclass(frozen=True, slots=True)
class _AtOutput:
    scope: Scope
    loaded_node: LoadedNode
    slot: int


_Place: TypeAlias = "_AtInput | _AtOutput"


class LinkResolver:
    """Follows links and remembers each result, so that many links over one long path cost it once."""

    def __init__(self, inner_scopes: Scopes, page_rules: PageRules) -> None:
        self._inner_scopes = inner_scopes
        self._page_rules = page_rules
        self._known: dict[tuple[bool, str, str, int, str], LinkSource] = {}

    def resolve_input(self, graph_scope: Scope, loaded_node: LoadedNode, input_index: int) -> LinkSource:
        """Follow the link at one input of a node to its end; return None if nothing is connected."""
        # The consumer's type decides which input a bypassed node on the way passes on.
        wanted_type = loaded_node.inputs[input_index].type
        link_end: _Place | LinkSource = _AtInput(graph_scope, loaded_node, input_index)
        # The positions passed so far, to notice a cycle.
        followed: dict[tuple[bool, str, str, int, str], None] = {}
        while isinstance(link_end, _AtInput | _AtOutput):
            at_input = isinstance(link_end, _AtInput)
            slot_number = link_end.index if isinstance(link_end, _AtInput) else link_end.slot
            link_key = (at_input, link_end.scope.prefix, link_end.loaded_node.ui_node.id, slot_number, wanted_type)
            if link_key in self._known:
                link_end = self._known[link_key]
                break
            if link_key in followed:
                link_end = BrokenLink("the link leads back to itself through bypassed nodes or reroutes")
                break
            followed[link_key] = None
            link_end = (
                _before_input(link_end)
                if isinstance(link_end, _AtInput)
                else self._before_output(link_end, wanted_type)
            )
        # All positions on the way have the same end, so the next link through them is found at once.
        self._known.update(dict.fromkeys(followed, link_end))
        return link_end

    def _before_output(self, link_end: _AtOutput, wanted_type: str) -> "_Place | LinkSource":
        graph_scope, loaded_node, slot_number = link_end.scope, link_end.loaded_node, link_end.slot
        if loaded_node.ui_node.mode == MUTED and self._page_rules.muted_gives_nothing:
            return None
        if loaded_node.ui_node.mode == BYPASSED:
            input_index = bypass_index(loaded_node, slot_number, wanted_type, self._page_rules)
            return None if input_index is None else _AtInput(graph_scope, loaded_node, input_index)
        if loaded_node.subgraph is not None:
            return _inside_instance(
                self._inner_scopes[graph_scope.prefix, loaded_node.ui_node.id],
                loaded_node,
                slot_number,
                self._page_rules,
            )
        if (variable := graph_scope.loaded_graph.getters.get(loaded_node.ui_node.id)) is not None:
            return _at_setter(graph_scope, variable) or BrokenLink(explain_missing_setter(variable))
        if loaded_node.is_virtual:
            return (
                _AtInput(graph_scope, loaded_node, slot_number) if 0 <= slot_number < len(loaded_node.inputs) else None
            )
        if self._page_rules.refuses_missing_slots and not 0 <= slot_number < len(loaded_node.outputs):
            return BrokenLink(f"{_describe_node(loaded_node)} has no output number {slot_number}")
        return FromNode(graph_scope.prompt_id(loaded_node.ui_node.id), slot_number)


def _before_input(link_end: _AtInput) -> "_Place | LinkSource":
    graph_scope, loaded_node = link_end.scope, link_end.loaded_node
    if not 0 <= link_end.index < len(loaded_node.inputs):
        return BrokenLink(f"{_describe_node(loaded_node)} has no input number {link_end.index}")
    input_slot = loaded_node.inputs[link_end.index]
    if input_slot.link is None:
        return None
    ui_link = graph_scope.loaded_graph.graph.links.get(input_slot.link)
    if ui_link is None:
        named_input = f"input {input_slot.name} of {_describe_node(loaded_node)}"
        return BrokenLink(f"{named_input} names link {input_slot.link}, which is not in the file")
    if ui_link.origin_id == INPUT_NODE and graph_scope.parent is not None and graph_scope.instance is not None:
        return _outside_instance(graph_scope, ui_link)
    origin_node = graph_scope.find_node(ui_link.origin_id)
    if origin_node is None:
        return BrokenLink(f"link {ui_link.id} comes from node {ui_link.origin_id}, and there is no such node")
    return _AtOutput(graph_scope, origin_node, ui_link.origin_slot)


def _outside_instance(graph_scope: Scope, ui_link: UiLink) -> "_Place | LinkSource":
    """Go from a subgraph's input to the source of the instance's input, or to the value that replaces it."""
    outer_scope, instance = graph_scope.parent, graph_scope.instance
    if outer_scope is None or instance is None or not 0 <= ui_link.origin_slot < len(instance.inputs):
        return BrokenLink(
            f"link {ui_link.id} comes from input {ui_link.origin_slot} of a subgraph without such an input"
        )
    input_slot = instance.inputs[ui_link.origin_slot]
    if input_slot.link is not None:
        return _AtInput(outer_scope, instance, ui_link.origin_slot)
    instance_values = outer_scope.loaded_graph.values.get(instance.ui_node.id, {})
    if input_slot.name not in instance_values:
        return None
    return FromWidget(instance_values[input_slot.name], outer_scope, instance, input_slot.name)


def _at_setter(start_scope: Scope, variable: Variable) -> "_AtInput | None":
    """Find the link into a variable's Set node, in this graph or in one around it."""
    current_scope: Scope | None = start_scope
    while current_scope is not None:
        set_node = current_scope.loaded_graph.setters.get(variable)
        if set_node is not None:
            return _AtInput(
                current_scope,
                set_node,
                next(
                    input_index for input_index, input_slot in enumerate(set_node.inputs) if input_slot.link is not None
                ),
            )
        current_scope = current_scope.parent
    return None


def _inside_instance(
    graph_scope: Scope, instance: LoadedNode, slot_number: int, page_rules: PageRules
) -> "_Place | LinkSource":
    """Go from an instance's output to the node inside that gives it."""
    ui_graph = graph_scope.loaded_graph.graph
    if not 0 <= slot_number < len(ui_graph.outputs):
        return BrokenLink(f"{_describe_node(instance)} has no output number {slot_number}")
    ui_link = _output_link(ui_graph, slot_number, page_rules)
    if ui_link is None:
        return None
    if ui_link.origin_id == INPUT_NODE:
        if page_rules.refuses_straight_links:
            straight_link = f"input {ui_link.origin_slot} is linked straight to output {slot_number}"
            return BrokenLink(
                f"in {_describe_node(instance)}, {straight_link}, which ComfyUI's page cannot submit: "
                "put a Reroute between them"
            )
        return _outside_instance(graph_scope, ui_link)
    origin_node = graph_scope.find_node(ui_link.origin_id)
    if origin_node is None:
        return BrokenLink(f"link {ui_link.id} comes from node {ui_link.origin_id}, and there is no such node")
    return _AtOutput(graph_scope, origin_node, ui_link.origin_slot)


def _output_link(ui_graph: UiGraph, slot_number: int, page_rules: PageRules) -> UiLink | None:
    """Return the link at a subgraph's output; if there are several, the first in the file's rows."""
    link_ids = ui_graph.outputs[slot_number].links
    if page_rules.first_row_gives_output and len(link_ids) != 1:
        output_links = (
            ui_link
            for ui_link in ui_graph.links.values()
            if ui_link.target_id == OUTPUT_NODE and ui_link.target_slot == slot_number
        )
        first_link = next(output_links, None)
        if first_link is not None:
            return first_link
    return ui_graph.links.get(link_ids[0]) if link_ids else None


def _describe_node(loaded_node: LoadedNode) -> str:
    return f"node {loaded_node.ui_node.id} ({loaded_node.title or loaded_node.ui_node.type})"

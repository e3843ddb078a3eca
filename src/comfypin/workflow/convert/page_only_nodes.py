"""Nodes that only a pack's page script knows: they are in no node list, and the page never sends them.

We recognize them by what they look like in the file, not by a list of names: pairs of classes that differ only in Set
and Get, reroutes, broadcasts (with the links that they saved), and decoration, which gives nothing to any other node.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from comfypin.digest import JsonValue
from comfypin.workflow.convert.loaded_nodes import LoadedNode
from comfypin.workflow.convert.ui_graph import BYPASSED, MUTED, OUTPUT_NODE, UiGraph, UiLink
from comfypin.workflow.findings import WorkflowFinding

# `SetNode`, `easy setNode`, `Get_X`, but not the words `Setting` and `Getting`.
_SET_OR_GET = re.compile(r"(set|get)(?![a-z]*ting)", re.IGNORECASE)
_SUBGRAPH_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_GROUP_NODE = ("workflow/", "workflow>")
_EVERYWHERE, _REROUTE = "everywhere", "reroute"
# What a broadcast's settings hold as long as nobody restricted it.
_NO_CONDITION: tuple[JsonValue, ...] = (None, "", ".*", "*", 0, [], {})
# Properties of the Anything Everywhere pack that say nothing about what a broadcast may feed.
_NO_CONDITIONS = frozenset({"version", "next_input_index", "seed_inputs"})


@dataclass(frozen=True, slots=True)
class Variable:
    """What a Set node stores and a Get node reads: the pair's classes, and the name that people gave it."""

    classes: str
    name: str


def as_setter(loaded_node: LoadedNode) -> Variable | None:
    """Return the variable that a node sets: its class is a Set class, and it has a name and one link in."""
    return (
        _read_variable(loaded_node, "set")
        if sum(input_slot.link is not None for input_slot in loaded_node.inputs) == 1
        else None
    )


def as_getter(loaded_node: LoadedNode) -> Variable | None:
    """Return the variable that a node gets: its class is a Get class, and it has a name and no link in."""
    connected = any(input_slot.link is not None for input_slot in loaded_node.inputs)
    return _read_variable(loaded_node, "get") if not connected and loaded_node.outputs else None


def _read_variable(loaded_node: LoadedNode, set_or_get: str) -> Variable | None:
    name_match = _SET_OR_GET.search(loaded_node.ui_node.type)
    saved_values = loaded_node.ui_node.values
    if (
        name_match is None
        or name_match[1].lower() != set_or_get
        or not isinstance(saved_values, list)
        or not saved_values
    ):
        return None
    variable_name = saved_values[0]
    # `SetNode` and `GetNode` both become `*node`, which makes them a pair.
    classes = (
        loaded_node.ui_node.type[: name_match.start()] + "*" + loaded_node.ui_node.type[name_match.end() :]
    ).casefold()
    return Variable(classes, variable_name) if isinstance(variable_name, str) and variable_name else None


def find_pairs(loaded_nodes: Sequence[LoadedNode]) -> frozenset[str]:
    """Return the pairs of classes whose Set half occurs in the workflow, in any of its graphs."""
    set_variables = [as_setter(loaded_node) for loaded_node in loaded_nodes if _is_foreign(loaded_node)]
    return frozenset(set_variable.classes for set_variable in set_variables if set_variable is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageNodes:
    """A graph with its page-only nodes marked, and the findings about them.

    `decoration` are nodes that give nothing to anybody; the page sends them as nodes of a missing class, and a job
    leaves them out. `setters` and `getters` are found by the resolver.
    """

    graph: UiGraph
    loaded_nodes: dict[str, LoadedNode]
    setters: Mapping[Variable, LoadedNode]
    getters: Mapping[str, Variable]
    decoration: frozenset[str]
    findings: tuple[WorkflowFinding, ...]


def read_page_nodes(
    ui_graph: UiGraph, loaded_nodes: Mapping[str, LoadedNode], pairs: frozenset[str], virtual_links: Sequence[JsonValue]
) -> PageNodes:
    """Tell a graph's page-only nodes from classes that are missing, and add the links that broadcasts stand for."""
    broadcasts = [loaded_node for loaded_node in loaded_nodes.values() if _is_broadcast(loaded_node, ui_graph)]
    if not broadcasts and not any(_is_foreign(loaded_node) for loaded_node in loaded_nodes.values()):
        return PageNodes(
            graph=ui_graph, loaded_nodes=dict(loaded_nodes), setters={}, getters={}, decoration=frozenset(), findings=()
        )
    marked_nodes = dict(loaded_nodes)
    setters: dict[Variable, LoadedNode] = {}
    getters: dict[str, Variable] = {}
    for node_id, loaded_node in loaded_nodes.items():
        if not _is_foreign(loaded_node):
            continue
        set_variable, get_variable = as_setter(loaded_node), as_getter(loaded_node)
        if set_variable is not None and set_variable.classes in pairs:
            # The first Set node of a name wins, as in the packs' own scripts.
            marked_nodes[node_id] = replace(loaded_node, virtual=True)
            setters.setdefault(set_variable, marked_nodes[node_id])
        elif get_variable is not None and get_variable.classes in pairs:
            marked_nodes[node_id] = replace(loaded_node, virtual=True)
            getters[node_id] = get_variable
        elif _is_reroute(loaded_node):
            marked_nodes[node_id] = replace(loaded_node, virtual=True)
    connected = _Broadcasts(ui_graph, marked_nodes, broadcasts, virtual_links)
    connected.connect_all()
    decoration = _find_decoration(connected.graph, connected.loaded_nodes)
    left_out = [_left_out_finding(connected.loaded_nodes[node_id]) for node_id in decoration]
    return PageNodes(
        graph=connected.graph,
        loaded_nodes=connected.loaded_nodes,
        setters=setters,
        getters=getters,
        decoration=frozenset(decoration),
        findings=(*connected.findings, *left_out),
    )


class _Broadcasts:
    """Connects what broadcasting nodes feed: by the links that the pack saved, else every open input of one type."""

    def __init__(
        self,
        ui_graph: UiGraph,
        loaded_nodes: dict[str, LoadedNode],
        broadcasts: Sequence[LoadedNode],
        saved: Sequence[JsonValue],
    ) -> None:
        self.graph = ui_graph
        self.loaded_nodes = loaded_nodes
        self.findings: list[WorkflowFinding] = []
        self._broadcasts = broadcasts
        self._saved = [saved_link for saved_link in saved if isinstance(saved_link, Mapping)]

    def connect_all(self) -> None:
        for broadcast in self._broadcasts:
            self.loaded_nodes[broadcast.ui_node.id] = replace(broadcast, virtual=True)
        # A muted broadcast is as if it were not there, but it must still not be sent.
        live_broadcasts = [
            broadcast for broadcast in self._broadcasts if broadcast.ui_node.mode not in (MUTED, BYPASSED)
        ]
        if not live_broadcasts:
            return
        # What the pack itself worked out and saved is better than any rule of ours.
        if self._saved:
            self._connect_saved()
            return
        broadcast_links = [
            (broadcast, ui_link) for broadcast in live_broadcasts for ui_link in self._links_into(broadcast)
        ]
        link_types = [self._link_type(ui_link) for _, ui_link in broadcast_links]
        for (broadcast, ui_link), link_type in zip(broadcast_links, link_types, strict=True):
            # Two broadcasts of one type are told apart by rules of the pack's script: do not guess.
            if link_type == "*" or link_types.count(link_type) > 1 or _is_restricted(broadcast):
                self.findings.append(_unresolved_finding(broadcast))
            else:
                self._feed_open_inputs(broadcast, ui_link, link_type)

    def _connect_saved(self) -> None:
        for link_number, saved_link in enumerate(self._saved):
            target_node = self.loaded_nodes.get(str(saved_link.get("downstream")))
            input_index, origin_id, origin_slot = (
                saved_link.get("downstream_slot"),
                saved_link.get("upstream"),
                saved_link.get("upstream_slot"),
            )
            is_usable = (
                target_node is not None and isinstance(input_index, int) and 0 <= input_index < len(target_node.inputs)
            )
            if (
                target_node is None
                or not is_usable
                or not isinstance(input_index, int)
                or str(origin_id) not in self.loaded_nodes
            ):
                self.findings.extend(_unresolved_finding(broadcast) for broadcast in self._broadcasts[:1])
                continue
            # A link that the user drew since the file was saved wins over the broadcast.
            if target_node.inputs[input_index].link is None:
                self._add_link(
                    f"broadcast:{link_number}",
                    str(origin_id),
                    origin_slot if isinstance(origin_slot, int) else 0,
                    target_node,
                    input_index,
                )

    def _feed_open_inputs(self, broadcast: LoadedNode, ui_link: UiLink, type_name: str) -> None:
        ancestors = self._find_ancestors(ui_link.origin_id)
        fed_inputs: list[str] = []
        for target_node in list(self.loaded_nodes.values()):
            is_live = target_node.page_class is not None and target_node.ui_node.mode not in (MUTED, BYPASSED)
            if not is_live or target_node.ui_node.id in ancestors or target_node.virtual:
                continue
            for input_index, input_slot in enumerate(target_node.inputs):
                # Never into a widget: its value is the user's.
                if input_slot.link is None and not input_slot.widget and input_slot.type == type_name:
                    link_id = f"broadcast:{ui_link.id}:{target_node.ui_node.id}:{input_index}"
                    fed_node = self.loaded_nodes[target_node.ui_node.id]
                    self._add_link(link_id, ui_link.origin_id, ui_link.origin_slot, fed_node, input_index)
                    fed_inputs.append(f"{target_node.ui_node.id}.{input_slot.name}")
        fed_text = (
            ", ".join([*fed_inputs[:8], *(["..."] if len(fed_inputs) > 8 else [])])
            or "nothing, because no input is open"
        )
        message = f"what it broadcasts ({type_name}) was linked to {fed_text}"
        self.findings.append(_node_finding(broadcast, "broadcast_resolved", message, severity="warning"))

    def _add_link(
        self, link_id: str, origin_id: str, origin_slot: int, target_node: LoadedNode, input_index: int
    ) -> None:
        ui_link = UiLink(
            id=link_id,
            origin_id=origin_id,
            origin_slot=origin_slot,
            target_id=target_node.ui_node.id,
            target_slot=input_index,
        )
        self.graph = replace(self.graph, links={**self.graph.links, link_id: ui_link})
        input_slots = list(target_node.inputs)
        input_slots[input_index] = replace(input_slots[input_index], link=link_id)
        self.loaded_nodes[target_node.ui_node.id] = replace(target_node, inputs=tuple(input_slots))

    def _links_into(self, loaded_node: LoadedNode) -> Iterator[UiLink]:
        for input_slot in loaded_node.inputs:
            ui_link = self.graph.links.get(input_slot.link) if input_slot.link is not None else None
            if ui_link is not None:
                yield ui_link

    def _link_type(self, ui_link: UiLink) -> str:
        origin_node = self.loaded_nodes.get(ui_link.origin_id)
        output_types = origin_node.outputs if origin_node else ()
        return output_types[ui_link.origin_slot] if 0 <= ui_link.origin_slot < len(output_types) else "*"

    def _find_ancestors(self, node_id: str) -> set[str]:
        """Return a node and all that it depends on: feeding one of them would make a cycle."""
        ancestor_ids: set[str] = set()
        unvisited = [node_id]
        while unvisited:
            ancestor_id = unvisited.pop()
            if ancestor_id in ancestor_ids or ancestor_id not in self.loaded_nodes:
                continue
            ancestor_ids.add(ancestor_id)
            unvisited.extend(ui_link.origin_id for ui_link in self._links_into(self.loaded_nodes[ancestor_id]))
        return ancestor_ids


def _is_foreign(loaded_node: LoadedNode) -> bool:
    """Return whether neither the engine nor the file nor ComfyUI's own page knows the node's class."""
    special_type = _SUBGRAPH_ID.fullmatch(loaded_node.ui_node.type) or loaded_node.ui_node.type.startswith(_GROUP_NODE)
    return loaded_node.is_unknown and not special_type


def _is_broadcast(loaded_node: LoadedNode, ui_graph: UiGraph) -> bool:
    is_linked = any(input_slot.link is not None for input_slot in loaded_node.inputs)
    is_class = loaded_node.page_class is not None or _is_foreign(loaded_node)
    if not is_class or not is_linked or _EVERYWHERE not in loaded_node.ui_node.type.casefold():
        return False
    # A node that feeds others by links is an ordinary node, whatever its name says.
    return all(ui_link.origin_id != loaded_node.ui_node.id for ui_link in ui_graph.links.values())


def _is_reroute(loaded_node: LoadedNode) -> bool:
    return (
        _REROUTE in loaded_node.ui_node.type.casefold()
        and len(loaded_node.inputs) == 1
        and len(loaded_node.outputs) == 1
    )


def _is_restricted(broadcast: LoadedNode) -> bool:
    """Return whether a broadcast has conditions (name patterns, groups, colours) that only its pack's script reads."""
    saved_values, properties = broadcast.ui_node.values, broadcast.ui_node.properties.get("ue_properties")
    held_settings = [*(saved_values.values() if isinstance(saved_values, Mapping) else saved_values or ())]
    if isinstance(properties, Mapping):
        held_settings.extend(
            saved_value for setting_name, saved_value in properties.items() if setting_name not in _NO_CONDITIONS
        )
    return any(not isinstance(saved_value, bool) and saved_value not in _NO_CONDITION for saved_value in held_settings)


def _find_decoration(ui_graph: UiGraph, loaded_nodes: Mapping[str, LoadedNode]) -> list[str]:
    """Find unknown nodes that give nothing to any other node: labels, bookmarks, muters, and what collects these."""
    readers_by_node = _find_readers(ui_graph, loaded_nodes)
    sources_by_node = _find_sources(readers_by_node)
    left_out_ids: dict[str, None] = {}
    # A node that goes frees what it read: its sources are looked at again, once for each.
    unvisited = [
        loaded_node.ui_node.id for loaded_node in reversed(list(loaded_nodes.values())) if _is_foreign(loaded_node)
    ]
    while unvisited:
        node_id = unvisited.pop()
        loaded_node = loaded_nodes.get(node_id)
        if (
            loaded_node is None
            or node_id in left_out_ids
            or readers_by_node.get(node_id)
            or not _is_foreign(loaded_node)
            or not _is_inert(loaded_node)
        ):
            continue
        left_out_ids[node_id] = None
        for source_id in sources_by_node.get(node_id, ()):
            readers_by_node[source_id].discard(node_id)
            unvisited.append(source_id)
    return list(left_out_ids)


def _find_readers(ui_graph: UiGraph, loaded_nodes: Mapping[str, LoadedNode]) -> dict[str, set[str]]:
    readers_by_node: dict[str, set[str]] = {}
    for loaded_node in loaded_nodes.values():
        for input_slot in loaded_node.inputs:
            ui_link = ui_graph.links.get(input_slot.link) if input_slot.link is not None else None
            if ui_link is not None:
                readers_by_node.setdefault(ui_link.origin_id, set()).add(loaded_node.ui_node.id)
    # What a subgraph gives out is read, although no node of this graph reads it.
    for ui_link in ui_graph.links.values():
        if ui_link.target_id == OUTPUT_NODE:
            readers_by_node.setdefault(ui_link.origin_id, set()).add(OUTPUT_NODE)
    return readers_by_node


def _find_sources(readers_by_node: Mapping[str, set[str]]) -> dict[str, list[str]]:
    sources_by_node: dict[str, list[str]] = {}
    for origin_id, target_ids in readers_by_node.items():
        for target_id in target_ids:
            sources_by_node.setdefault(target_id, []).append(origin_id)
    return sources_by_node


def _is_inert(loaded_node: LoadedNode) -> bool:
    """Return whether a node looks as if it did nothing: no slot has a real type, and it takes nothing without an
    output.
    """
    if loaded_node.ui_node.properties.get("cnr_id") == "comfy-core":
        # A class of ComfyUI itself: the engine is older than the file.
        return False
    connected = any(input_slot.link is not None for input_slot in loaded_node.inputs)
    type_names = [
        *(input_slot.type for input_slot in loaded_node.inputs if not input_slot.widget),
        *loaded_node.outputs,
    ]
    return all(type_name in ("", "*") for type_name in type_names) and (bool(loaded_node.outputs) or not connected)


def _left_out_finding(loaded_node: LoadedNode) -> WorkflowFinding:
    saved_values = loaded_node.ui_node.values
    value_count = len(saved_values) if saved_values else 0
    held_text = f" (it holds {value_count} saved {'value' if value_count == 1 else 'values'})" if value_count else ""
    message = (
        f"it is in no node list and gives nothing to any other node{held_text}, so it is left out: "
        "labels, bookmarks and switches of a pack live on the page only"
    )
    return _node_finding(loaded_node, "page_node_left_out", message, severity="warning")


def _unresolved_finding(broadcast: LoadedNode) -> WorkflowFinding:
    message = (
        "it feeds the open inputs of other nodes by rules that only its pack's page script knows: "
        "open the workflow on that page, and save it with Export (API)"
    )
    return _node_finding(broadcast, "broadcast_unresolved", message, severity="error")


def explain_missing_setter(variable: Variable) -> str:
    """Explain that nothing sets the variable of a Get node."""
    return f"it reads the variable {variable.name!r}, and no node of the workflow sets it"


def _node_finding(loaded_node: LoadedNode, code: str, message: str, *, severity: str) -> WorkflowFinding:
    return WorkflowFinding(
        code=code,
        message=message,
        node_id=loaded_node.ui_node.id,
        title=loaded_node.title,
        class_type=loaded_node.ui_node.type,
        severity="warning" if severity == "warning" else "error",
    )

"""Nodes that only a pack's page script knows: they are in no node list, and the page never sends them.

They are told by what they look like in the file, not by a list of names: pairs of classes that differ in Set and Get
only, reroutes, broadcasts (with the wires that they saved), and decoration, which gives nothing to anybody.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from comfypin.digest import JsonValue
from comfypin.workflow.convert.shapes import LoadedNode
from comfypin.workflow.convert.ui import BYPASSED, MUTED, OUTPUT_NODE, UiGraph, UiLink
from comfypin.workflow.findings import WorkflowFinding

_SET_OR_GET = re.compile(r"(set|get)(?![a-z]*ting)", re.IGNORECASE)
_SUBGRAPH_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_GROUP_NODE = ("workflow/", "workflow>")
_EVERYWHERE, _REROUTE = "everywhere", "reroute"
# What a broadcast's settings hold as long as nobody restricted it.
_NO_CONDITION: tuple[JsonValue, ...] = (None, "", ".*", "*", 0, [], {})
_NO_CONDITIONS = frozenset({"version", "next_input_index", "seed_inputs"})


@dataclass(frozen=True, slots=True)
class Variable:
    """What a Set node stores and a Get node reads: the pair's classes, and the name that people gave it."""

    classes: str
    name: str


def as_setter(shape: LoadedNode) -> Variable | None:
    """The variable that a node sets: a class of the Set kind with one wire in and a name."""
    return _read_variable(shape, "set") if sum(slot.link is not None for slot in shape.inputs) == 1 else None


def as_getter(shape: LoadedNode) -> Variable | None:
    """The variable that a node gets: a class of the Get kind with a name, and no wire in."""
    wired = any(slot.link is not None for slot in shape.inputs)
    return _read_variable(shape, "get") if not wired and shape.outputs else None


def _read_variable(shape: LoadedNode, kind: str) -> Variable | None:
    match = _SET_OR_GET.search(shape.ui_node.type)
    values = shape.ui_node.values
    if match is None or match[1].lower() != kind or not isinstance(values, list) or not values:
        return None
    name = values[0]
    classes = (shape.ui_node.type[: match.start()] + "*" + shape.ui_node.type[match.end() :]).casefold()
    return Variable(classes, name) if isinstance(name, str) and name else None


def find_pairs(shapes: Sequence[LoadedNode]) -> frozenset[str]:
    """The pairs of classes of which the workflow has the setting half, over all its graphs."""
    found = [as_setter(shape) for shape in shapes if _is_foreign(shape)]
    return frozenset(one.classes for one in found if one is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageNodes:
    """A graph with its page-only nodes marked, and what is to say of them.

    `decoration` are nodes that give nothing to anybody; the page sends them as nodes of a missing class, and a job
    leaves them out. `setters` and `getters` are found by the resolver.
    """

    graph: UiGraph
    shapes: dict[str, LoadedNode]
    setters: Mapping[Variable, LoadedNode]
    getters: Mapping[str, Variable]
    decoration: frozenset[str]
    findings: tuple[WorkflowFinding, ...]


def read_page_nodes(
    graph: UiGraph, shapes: Mapping[str, LoadedNode], pairs: frozenset[str], virtual_wires: Sequence[JsonValue]
) -> PageNodes:
    """Tell a graph's page-only nodes from classes that are missing, and add the wires that broadcasts stand for."""
    broadcasts = [shape for shape in shapes.values() if _is_broadcast(shape, graph)]
    if not broadcasts and not any(_is_foreign(shape) for shape in shapes.values()):
        return PageNodes(graph=graph, shapes=dict(shapes), setters={}, getters={}, decoration=frozenset(), findings=())
    marked = dict(shapes)
    setters: dict[Variable, LoadedNode] = {}
    getters: dict[str, Variable] = {}
    for node_id, shape in shapes.items():
        if not _is_foreign(shape):
            continue
        put, got = as_setter(shape), as_getter(shape)
        if put is not None and put.classes in pairs:
            marked[node_id] = replace(shape, virtual=True)
            setters.setdefault(put, marked[node_id])
        elif got is not None and got.classes in pairs:
            marked[node_id] = replace(shape, virtual=True)
            getters[node_id] = got
        elif _is_reroute(shape):
            marked[node_id] = replace(shape, virtual=True)
    wired = _Broadcasts(graph, marked, broadcasts, virtual_wires)
    wired.connect_all()
    decoration = _find_decoration(wired.graph, wired.shapes)
    left_out = [_left_out_finding(wired.shapes[node_id]) for node_id in decoration]
    return PageNodes(
        graph=wired.graph,
        shapes=wired.shapes,
        setters=setters,
        getters=getters,
        decoration=frozenset(decoration),
        findings=(*wired.findings, *left_out),
    )


class _Broadcasts:
    """Connects what broadcasting nodes feed: by the wires that the pack saved, else every open input of one type."""

    def __init__(
        self, graph: UiGraph, shapes: dict[str, LoadedNode], nodes: Sequence[LoadedNode], saved: Sequence[JsonValue]
    ) -> None:
        self.graph = graph
        self.shapes = shapes
        self.findings: list[WorkflowFinding] = []
        self._nodes = nodes
        self._saved = [one for one in saved if isinstance(one, Mapping)]

    def connect_all(self) -> None:
        for node in self._nodes:
            self.shapes[node.ui_node.id] = replace(node, virtual=True)
        live = [node for node in self._nodes if node.ui_node.mode not in (MUTED, BYPASSED)]
        if not live:
            return
        if self._saved:
            self._connect_saved()
            return
        sources = [(node, link) for node in live for link in self._links_into(node)]
        kinds = [self._link_type(link) for _, link in sources]
        for (node, link), kind in zip(sources, kinds, strict=True):
            if kind == "*" or kinds.count(kind) > 1 or _is_restricted(node):
                self.findings.append(_unresolved_finding(node))
            else:
                self._feed_open_inputs(node, link, kind)

    def _connect_saved(self) -> None:
        for number, wire in enumerate(self._saved):
            target = self.shapes.get(str(wire.get("downstream")))
            place, origin, slot = wire.get("downstream_slot"), wire.get("upstream"), wire.get("upstream_slot")
            usable = target is not None and isinstance(place, int) and 0 <= place < len(target.inputs)
            if target is None or not usable or not isinstance(place, int) or str(origin) not in self.shapes:
                self.findings.extend(_unresolved_finding(node) for node in self._nodes[:1])
                continue
            if target.inputs[place].link is None:
                self._add_link(f"broadcast:{number}", str(origin), slot if isinstance(slot, int) else 0, target, place)

    def _feed_open_inputs(self, node: LoadedNode, link: UiLink, kind: str) -> None:
        before = self._find_ancestors(link.origin_id)
        fed: list[str] = []
        for target in list(self.shapes.values()):
            live = target.page_class is not None and target.ui_node.mode not in (MUTED, BYPASSED)
            if not live or target.ui_node.id in before or target.virtual:
                continue
            for place, slot in enumerate(target.inputs):
                if slot.link is None and not slot.widget and slot.type == kind:
                    self._add_link(f"broadcast:{link.id}:{target.ui_node.id}:{place}", link.origin_id, link.origin_slot,
                               self.shapes[target.ui_node.id], place)  # fmt: skip
                    fed.append(f"{target.ui_node.id}.{slot.name}")
        places = ", ".join([*fed[:8], *(["..."] if len(fed) > 8 else [])]) or "nothing, for nothing is open"
        message = f"what it broadcasts ({kind}) was wired to {places}"
        self.findings.append(_node_finding(node, "broadcast_resolved", message, severity="warning"))

    def _add_link(self, link_id: str, origin: str, slot: int, target: LoadedNode, place: int) -> None:
        link = UiLink(id=link_id, origin_id=origin, origin_slot=slot, target_id=target.ui_node.id, target_slot=place)
        self.graph = replace(self.graph, links={**self.graph.links, link_id: link})
        inputs = list(target.inputs)
        inputs[place] = replace(inputs[place], link=link_id)
        self.shapes[target.ui_node.id] = replace(target, inputs=tuple(inputs))

    def _links_into(self, node: LoadedNode) -> Iterator[UiLink]:
        for slot in node.inputs:
            link = self.graph.links.get(slot.link) if slot.link is not None else None
            if link is not None:
                yield link

    def _link_type(self, link: UiLink) -> str:
        origin = self.shapes.get(link.origin_id)
        outputs = origin.outputs if origin else ()
        return outputs[link.origin_slot] if 0 <= link.origin_slot < len(outputs) else "*"

    def _find_ancestors(self, node_id: str) -> set[str]:
        """A node and all that it depends on: to feed one of them would make a circle."""
        found: set[str] = set()
        waiting = [node_id]
        while waiting:
            one = waiting.pop()
            if one in found or one not in self.shapes:
                continue
            found.add(one)
            waiting.extend(link.origin_id for link in self._links_into(self.shapes[one]))
        return found


def _is_foreign(shape: LoadedNode) -> bool:
    """Whether a node is of a class that neither the engine nor the file nor ComfyUI's own page knows."""
    named = _SUBGRAPH_ID.fullmatch(shape.ui_node.type) or shape.ui_node.type.startswith(_GROUP_NODE)
    return shape.is_unknown and not named


def _is_broadcast(shape: LoadedNode, graph: UiGraph) -> bool:
    wired_in = any(slot.link is not None for slot in shape.inputs)
    is_class = shape.page_class is not None or _is_foreign(shape)
    if not is_class or not wired_in or _EVERYWHERE not in shape.ui_node.type.casefold():
        return False
    return all(link.origin_id != shape.ui_node.id for link in graph.links.values())


def _is_reroute(shape: LoadedNode) -> bool:
    return _REROUTE in shape.ui_node.type.casefold() and len(shape.inputs) == 1 and len(shape.outputs) == 1


def _is_restricted(node: LoadedNode) -> bool:
    """Whether a broadcast has conditions (patterns of names, groups, colours) that only its pack's script reads."""
    values, properties = node.ui_node.values, node.ui_node.properties.get("ue_properties")
    held = [*(values.values() if isinstance(values, Mapping) else values or ())]
    if isinstance(properties, Mapping):
        held.extend(value for name, value in properties.items() if name not in _NO_CONDITIONS)
    return any(not isinstance(value, bool) and value not in _NO_CONDITION for value in held)


def _find_decoration(graph: UiGraph, shapes: Mapping[str, LoadedNode]) -> list[str]:
    """Nodes of no known class that give nothing to anybody: labels, bookmarks, muters, collectors of such."""
    readers = _find_readers(graph, shapes)
    sources = _find_sources(readers)
    gone: dict[str, None] = {}
    # A node that goes frees what it read: its sources are looked at again, once for each.
    waiting = [shape.ui_node.id for shape in reversed(list(shapes.values())) if _is_foreign(shape)]
    while waiting:
        node_id = waiting.pop()
        shape = shapes.get(node_id)
        if shape is None or node_id in gone or readers.get(node_id) or not _is_foreign(shape) or not _is_inert(shape):
            continue
        gone[node_id] = None
        for source in sources.get(node_id, ()):
            readers[source].discard(node_id)
            waiting.append(source)
    return list(gone)


def _find_readers(graph: UiGraph, shapes: Mapping[str, LoadedNode]) -> dict[str, set[str]]:
    readers: dict[str, set[str]] = {}
    for shape in shapes.values():
        for slot in shape.inputs:
            link = graph.links.get(slot.link) if slot.link is not None else None
            if link is not None:
                readers.setdefault(link.origin_id, set()).add(shape.ui_node.id)
    for link in graph.links.values():
        if link.target_id == OUTPUT_NODE:
            readers.setdefault(link.origin_id, set()).add(OUTPUT_NODE)
    return readers


def _find_sources(readers: Mapping[str, set[str]]) -> dict[str, list[str]]:
    sources: dict[str, list[str]] = {}
    for origin, targets in readers.items():
        for target in targets:
            sources.setdefault(target, []).append(origin)
    return sources


def _is_inert(shape: LoadedNode) -> bool:
    """Whether a node does nothing by the look of it: no slot of any real type, and no wire in without an output."""
    if shape.ui_node.properties.get("cnr_id") == "comfy-core":
        # A class of ComfyUI itself: the engine is older than the file.
        return False
    wired = any(slot.link is not None for slot in shape.inputs)
    kinds = [*(slot.type for slot in shape.inputs if not slot.widget), *shape.outputs]
    return all(kind in ("", "*") for kind in kinds) and (bool(shape.outputs) or not wired)


def _left_out_finding(shape: LoadedNode) -> WorkflowFinding:
    values = shape.ui_node.values
    count = len(values) if values else 0
    held = f" (it holds {count} saved {'value' if count == 1 else 'values'})" if count else ""
    message = (
        f"it is in no node list and gives nothing to any other node{held}, so it is left out: "
        "labels, bookmarks and switches of a pack live on the page only"
    )
    return _node_finding(shape, "page_node_left_out", message, severity="warning")


def _unresolved_finding(node: LoadedNode) -> WorkflowFinding:
    message = (
        "it feeds the open inputs of other nodes by rules that only its pack's page script knows: "
        "open the workflow on that page, and save it with Export (API)"
    )
    return _node_finding(node, "broadcast_unresolved", message, severity="error")


def explain_missing_setter(variable: Variable) -> str:
    """What to say of a Get node whose variable nothing sets."""
    return f"it gets {variable.name!r}, and no node of the workflow sets that"


def _node_finding(shape: LoadedNode, code: str, message: str, *, severity: str) -> WorkflowFinding:
    return WorkflowFinding(
        code=code,
        message=message,
        node_id=shape.ui_node.id,
        title=shape.title,
        class_type=shape.ui_node.type,
        severity="warning" if severity == "warning" else "error",
    )

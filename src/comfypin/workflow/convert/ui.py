"""A workflow in UI format as frozen values: nodes, links and subgraph definitions, read from whatever the file holds.

Wrong types never pass this module: what can be left out is left out as on the page, and what cannot is a finding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from comfypin.digest import JsonValue
from comfypin.workflow.findings import WorkflowFinding, show_value

MUTED, BYPASSED = 2, 4
INPUT_NODE, OUTPUT_NODE = "-10", "-20"

# The version whose links are arrays; every other one has objects (docs/workflows.md).
_ARRAY_LINKS_VERSION = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class UiLink:
    """A wire: from output `origin_slot` of one node to an input of another (which one, that node's input says)."""

    id: str
    origin_id: str
    origin_slot: int
    target_id: str
    target_slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UiSlot:
    """An input or output as the file lists it; `widget` tells that a widget lies under the input."""

    name: str
    type: str
    link: str | None = None
    widget: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UiNode:
    """A node as the file has it. `values` is None for a missing list, a mapping for the dict form."""

    id: str
    type: str
    title: str | None
    mode: int
    inputs: tuple[UiSlot, ...]
    outputs: tuple[UiSlot, ...]
    values: Sequence[JsonValue] | Mapping[str, JsonValue] | None
    properties: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class UiPort:
    """An input or output of a subgraph, and the inner links at it."""

    name: str
    type: str
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UiGraph:
    """Nodes and links: the root of a workflow, or the inside of a subgraph (which has ports and a name)."""

    id: str
    name: str
    nodes: Mapping[str, UiNode]
    links: Mapping[str, UiLink]
    inputs: tuple[UiPort, ...] = ()
    outputs: tuple[UiPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UiWorkflow:
    """A whole file: its root, the subgraphs it defines, and what the page keeps beside them.

    `group_nodes` are the group nodes of older files by name, `virtual_wires` what broadcasting nodes wired when it was
    saved, `last_id` the highest node id that was ever used.
    """

    root: UiGraph
    definitions: Mapping[str, UiGraph] = field(default_factory=dict)
    group_nodes: Mapping[str, JsonValue] = field(default_factory=dict)
    virtual_wires: Sequence[JsonValue] = ()
    last_id: int = 0


def read_ui_workflow(content: Mapping[str, JsonValue], findings: list[WorkflowFinding]) -> UiWorkflow:
    """Read a document in UI format; what is broken in it is added to the findings."""
    version = content.get("version")
    arrays = isinstance(version, int | float) and version == _ARRAY_LINKS_VERSION
    if not arrays and any(isinstance(link, list) for link in _as_list(content.get("links"))):
        message = f'its links are lists, which only "version": 0.4 has, and its version is {show_value(version)}'
        findings.append(WorkflowFinding(code="links_unreadable", message=message))
    root = _read_graph(content, findings, graph_id="", name="", arrays=arrays)
    definitions: dict[str, UiGraph] = {}
    for raw in _as_list(_as_mapping(content.get("definitions")).get("subgraphs")):
        graph = _as_mapping(raw)
        graph_id = graph.get("id")
        if not isinstance(graph_id, str) or not graph_id:
            message = f"a subgraph definition has no id: {show_value(graph_id)}"
            findings.append(WorkflowFinding(code="subgraph_without_id", message=message))
            continue
        name = graph.get("name")
        named = name if isinstance(name, str) else graph_id
        definitions[graph_id] = _read_graph(graph, findings, graph_id=graph_id, name=named, arrays=False)
    extra, state = _as_mapping(content.get("extra")), _as_mapping(content.get("state"))
    last_id = content.get("last_node_id") if arrays else state.get("lastNodeId")
    return UiWorkflow(
        root=root,
        definitions=definitions,
        group_nodes=_as_mapping(extra.get("groupNodes")),
        virtual_wires=_as_list(extra.get("ue_links")),
        last_id=last_id if isinstance(last_id, int) else 0,
    )


def read_group(raw: Mapping[str, JsonValue], findings: list[WorkflowFinding], *, graph_id: str, name: str) -> UiGraph:
    """Read the inside of a group node of an older file, rewritten as a subgraph's definition."""
    return _read_graph(raw, findings, graph_id=graph_id, name=name, arrays=False)


def _read_graph(
    raw: Mapping[str, JsonValue], findings: list[WorkflowFinding], *, graph_id: str, name: str, arrays: bool
) -> UiGraph:
    nodes: dict[str, UiNode] = {}
    for raw_node in _as_list(raw.get("nodes")):
        node = _read_node(raw_node, findings)
        if node is None:
            continue
        if node.id in nodes:
            message = "two nodes have this id"
            findings.append(WorkflowFinding(code="node_twice", message=message, node_id=node.id, class_type=node.type))
        nodes[node.id] = node
    links = (_read_link(raw_link, arrays=arrays) for raw_link in _as_list(raw.get("links")))
    return UiGraph(
        id=graph_id,
        name=name,
        nodes=nodes,
        links={link.id: link for link in links if link is not None},
        inputs=tuple(_read_port(port) for port in _as_list(raw.get("inputs"))),
        outputs=tuple(_read_port(port) for port in _as_list(raw.get("outputs"))),
    )


def _read_node(raw: JsonValue, findings: list[WorkflowFinding]) -> UiNode | None:
    node = _as_mapping(raw)
    node_id, kind = _read_id(node.get("id")), node.get("type")
    if node_id is None or not isinstance(kind, str):
        message = f"a node has no usable id and type: id {show_value(node.get('id'))}, type {show_value(kind)}"
        findings.append(WorkflowFinding(code="node_without_id", message=message, node_id=node_id))
        return None
    title, mode, values = node.get("title"), node.get("mode"), node.get("widgets_values")
    return UiNode(
        id=node_id,
        type=kind,
        title=title if isinstance(title, str) and title else None,
        mode=mode if isinstance(mode, int) else 0,
        inputs=tuple(_read_slot(slot) for slot in _as_list(node.get("inputs"))),
        outputs=tuple(_read_slot(slot) for slot in _as_list(node.get("outputs"))),
        values=values if isinstance(values, list | dict) else None,
        properties=_as_mapping(node.get("properties")),
    )


def _read_slot(raw: JsonValue) -> UiSlot:
    slot = _as_mapping(raw)
    name = slot.get("name")
    return UiSlot(
        name=name if isinstance(name, str) else "",
        type=type_text(slot.get("type")),
        link=_read_id(slot.get("link")),
        widget=isinstance(slot.get("widget"), dict),
    )


def _read_port(raw: JsonValue) -> UiPort:
    port = _as_mapping(raw)
    name = port.get("name")
    links = tuple(link for link in map(_read_id, _as_list(port.get("linkIds"))) if link is not None)
    return UiPort(name=name if isinstance(name, str) else "", type=type_text(port.get("type")), links=links)


def _read_link(raw: JsonValue, *, arrays: bool) -> UiLink | None:
    if isinstance(raw, Mapping):
        names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
        parts: list[JsonValue] = [raw.get(name) for name in names]
    elif arrays and isinstance(raw, list) and len(raw) >= 5:
        parts = raw[:5]
    else:
        return None
    link_id, origin_id, target_id = _read_id(parts[0]), _read_id(parts[1]), _read_id(parts[3])
    if link_id is None or origin_id is None or target_id is None:
        return None
    return UiLink(
        id=link_id,
        origin_id=origin_id,
        origin_slot=_read_number(parts[2]),
        target_id=target_id,
        target_slot=_read_number(parts[4]),
    )


def type_text(raw: JsonValue) -> str:
    """A slot's type as text; lists of choices are COMBO, and what is nothing connects to anything."""
    if isinstance(raw, str):
        return raw
    return "COMBO" if isinstance(raw, list) else "*"


def _read_id(raw: JsonValue) -> str | None:
    if isinstance(raw, bool):
        return None
    if isinstance(raw, float) and raw.is_integer():
        raw = int(raw)
    return str(raw) if isinstance(raw, int | str) and raw != "" else None


def _read_number(raw: JsonValue) -> int:
    if isinstance(raw, float) and raw.is_integer():
        return int(raw)
    if isinstance(raw, str) and raw.isascii() and raw.isdecimal() and len(raw) < 10:
        return int(raw)
    return raw if isinstance(raw, int) and not isinstance(raw, bool) else -1


def _as_list(raw: JsonValue) -> Sequence[JsonValue]:
    if isinstance(raw, dict):
        # Some files hold `links` as an object by id.
        return list(raw.values())
    return raw if isinstance(raw, list) else []


def _as_mapping(raw: JsonValue) -> Mapping[str, JsonValue]:
    return raw if isinstance(raw, dict) else {}

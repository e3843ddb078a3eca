"""A workflow in UI format as frozen values: nodes, links and subgraph definitions, whatever the file holds.

Wrong types never pass this module: what can be left out is left out as on the page, and what cannot is a finding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from comfypin.digest import JsonValue
from comfypin.workflow.findings import WorkflowFinding, show_value

# LiteGraph's modes NEVER and BYPASS; the others (always, on event, on trigger) all run.
MUTED, BYPASSED = 2, 4
# Links inside a subgraph begin and end at these ids, which no node has.
INPUT_NODE, OUTPUT_NODE = "-10", "-20"

# The version whose links are arrays; every other one has objects (docs/workflows.md).
_ARRAY_LINKS_VERSION = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class UiLink:
    """A link from output `origin_slot` of one node to another node, one of whose inputs names it."""

    id: str
    origin_id: str
    origin_slot: int
    target_id: str
    target_slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UiSlot:
    """An input or output as the file lists it; `widget` says that the input also has a widget."""

    name: str
    type: str
    link: str | None = None
    widget: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UiNode:
    """A node as the file has it. `values` is None if the file has no list, and a mapping if it has an object.

    `file_index` is its place in the graph's `nodes`, which stays if the node gets another id.
    """

    id: str
    type: str
    title: str | None
    mode: int
    inputs: tuple[UiSlot, ...]
    outputs: tuple[UiSlot, ...]
    values: Sequence[JsonValue] | Mapping[str, JsonValue] | None
    properties: Mapping[str, JsonValue]
    file_index: int = -1


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

    `group_nodes` are the group nodes of older files by name, `virtual_links` what broadcasting nodes linked when it was
    saved, `last_id` the highest node id that was ever used.
    """

    root: UiGraph
    definitions: Mapping[str, UiGraph] = field(default_factory=dict)
    group_nodes: Mapping[str, JsonValue] = field(default_factory=dict)
    virtual_links: Sequence[JsonValue] = ()
    last_id: int = 0


def read_ui_workflow(content: Mapping[str, JsonValue], findings: list[WorkflowFinding]) -> UiWorkflow:
    """Read a document in UI format; what is broken in it is added to the findings."""
    version = content.get("version")
    links_are_lists = isinstance(version, int | float) and version == _ARRAY_LINKS_VERSION
    if not links_are_lists and any(isinstance(json_link, list) for json_link in _as_list(content.get("links"))):
        message = f'its links are lists, which only "version": 0.4 has, and its version is {show_value(version)}'
        findings.append(WorkflowFinding(code="links_unreadable", message=message))
    root_graph = _read_graph(content, findings, graph_id="", group_name="", links_are_lists=links_are_lists)
    definitions: dict[str, UiGraph] = {}
    for json_definition in _as_list(_as_mapping(content.get("definitions")).get("subgraphs")):
        json_graph = _as_mapping(json_definition)
        graph_id = json_graph.get("id")
        if not isinstance(graph_id, str) or not graph_id:
            message = f"a subgraph definition has no id: {show_value(graph_id)}"
            findings.append(WorkflowFinding(code="subgraph_without_id", message=message))
            continue
        given_name = json_graph.get("name")
        graph_name = given_name if isinstance(given_name, str) else graph_id
        definitions[graph_id] = _read_graph(
            json_graph, findings, graph_id=graph_id, group_name=graph_name, links_are_lists=False
        )
    extra_data, saved_state = _as_mapping(content.get("extra")), _as_mapping(content.get("state"))
    # The two versions of the format keep the highest id in different places.
    last_id = content.get("last_node_id") if links_are_lists else saved_state.get("lastNodeId")
    return UiWorkflow(
        root=root_graph,
        definitions=definitions,
        group_nodes=_as_mapping(extra_data.get("groupNodes")),
        virtual_links=_as_list(extra_data.get("ue_links")),
        last_id=last_id if isinstance(last_id, int) else 0,
    )


def read_group(
    json_graph: Mapping[str, JsonValue], findings: list[WorkflowFinding], *, graph_id: str, group_name: str
) -> UiGraph:
    """Read the inside of a group node of an older file, rewritten as a subgraph's definition."""
    return _read_graph(json_graph, findings, graph_id=graph_id, group_name=group_name, links_are_lists=False)


def _read_graph(
    json_graph: Mapping[str, JsonValue],
    findings: list[WorkflowFinding],
    *,
    graph_id: str,
    group_name: str,
    links_are_lists: bool,
) -> UiGraph:
    ui_nodes: dict[str, UiNode] = {}
    for file_index, json_node in enumerate(_as_list(json_graph.get("nodes"))):
        ui_node = _read_node(json_node, file_index, findings)
        if ui_node is None:
            continue
        # The page keeps one of them, and nobody can tell which one the user sees.
        if ui_node.id in ui_nodes:
            message = "two nodes have this id"
            findings.append(
                WorkflowFinding(code="node_twice", message=message, node_id=ui_node.id, class_type=ui_node.type)
            )
        ui_nodes[ui_node.id] = ui_node
    ui_links = (
        _read_link(json_link, links_are_lists=links_are_lists) for json_link in _as_list(json_graph.get("links"))
    )
    return UiGraph(
        id=graph_id,
        name=group_name,
        nodes=ui_nodes,
        links={ui_link.id: ui_link for ui_link in ui_links if ui_link is not None},
        inputs=tuple(_read_port(json_port) for json_port in _as_list(json_graph.get("inputs"))),
        outputs=tuple(_read_port(json_port) for json_port in _as_list(json_graph.get("outputs"))),
    )


def _read_node(json_value: JsonValue, file_index: int, findings: list[WorkflowFinding]) -> UiNode | None:
    json_node = _as_mapping(json_value)
    node_id, type_name = _read_id(json_node.get("id")), json_node.get("type")
    if node_id is None or not isinstance(type_name, str):
        message = (
            f"a node has no usable id and type: id {show_value(json_node.get('id'))}, type {show_value(type_name)}"
        )
        findings.append(WorkflowFinding(code="node_without_id", message=message, node_id=node_id))
        return None
    node_title, node_mode, widget_values = (
        json_node.get("title"),
        json_node.get("mode"),
        json_node.get("widgets_values"),
    )
    return UiNode(
        id=node_id,
        type=type_name,
        title=node_title if isinstance(node_title, str) and node_title else None,
        mode=node_mode if isinstance(node_mode, int) else 0,
        inputs=tuple(_read_slot(json_slot) for json_slot in _as_list(json_node.get("inputs"))),
        outputs=tuple(_read_slot(json_slot) for json_slot in _as_list(json_node.get("outputs"))),
        values=widget_values if isinstance(widget_values, list | dict) else None,
        properties=_as_mapping(json_node.get("properties")),
        file_index=file_index,
    )


def _read_slot(json_value: JsonValue) -> UiSlot:
    json_slot = _as_mapping(json_value)
    given_name = json_slot.get("name")
    return UiSlot(
        name=given_name if isinstance(given_name, str) else "",
        type=type_text(json_slot.get("type")),
        link=_read_id(json_slot.get("link")),
        widget=isinstance(json_slot.get("widget"), dict),
    )


def _read_port(json_value: JsonValue) -> UiPort:
    json_port = _as_mapping(json_value)
    given_name = json_port.get("name")
    link_ids = tuple(link_id for link_id in map(_read_id, _as_list(json_port.get("linkIds"))) if link_id is not None)
    return UiPort(
        name=given_name if isinstance(given_name, str) else "", type=type_text(json_port.get("type")), links=link_ids
    )


def _read_link(json_value: JsonValue, *, links_are_lists: bool) -> UiLink | None:
    if isinstance(json_value, Mapping):
        link_fields = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
        link_parts: list[JsonValue] = [json_value.get(link_field) for link_field in link_fields]
    elif links_are_lists and isinstance(json_value, list) and len(json_value) >= 5:
        link_parts = json_value[:5]
    else:
        return None
    link_id, origin_id, target_id = _read_id(link_parts[0]), _read_id(link_parts[1]), _read_id(link_parts[3])
    if link_id is None or origin_id is None or target_id is None:
        return None
    return UiLink(
        id=link_id,
        origin_id=origin_id,
        origin_slot=_read_number(link_parts[2]),
        target_id=target_id,
        target_slot=_read_number(link_parts[4]),
    )


def type_text(json_value: JsonValue) -> str:
    """Return a slot's type as text. A list of choices is COMBO; without a type, a slot connects to anything."""
    if isinstance(json_value, str):
        return json_value
    return "COMBO" if isinstance(json_value, list) else "*"


def _read_id(json_value: JsonValue) -> str | None:
    # In Python true is the number 1.
    if isinstance(json_value, bool):
        return None
    if isinstance(json_value, float) and json_value.is_integer():
        json_value = int(json_value)
    return str(json_value) if isinstance(json_value, int | str) and json_value != "" else None


def _read_number(json_value: JsonValue) -> int:
    if isinstance(json_value, float) and json_value.is_integer():
        return int(json_value)
    if isinstance(json_value, str) and json_value.isascii() and json_value.isdecimal() and len(json_value) < 10:
        return int(json_value)
    return json_value if isinstance(json_value, int) and not isinstance(json_value, bool) else -1


def _as_list(json_value: JsonValue) -> Sequence[JsonValue]:
    if isinstance(json_value, dict):
        # Some files hold `links` as an object by id.
        return list(json_value.values())
    return json_value if isinstance(json_value, list) else []


def _as_mapping(json_value: JsonValue) -> Mapping[str, JsonValue]:
    return json_value if isinstance(json_value, dict) else {}

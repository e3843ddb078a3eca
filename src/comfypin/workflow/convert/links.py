"""Connect links as the page does: an input's own link wins, and a row of `links` connects an input that is open."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from comfypin.workflow.convert.loaded_nodes import LoadedNode, types_connect
from comfypin.workflow.convert.page_versions import PageRules
from comfypin.workflow.convert.ui_graph import OUTPUT_NODE, UiGraph, UiLink, UiSlot
from comfypin.workflow.findings import WorkflowFinding


def connect_links(
    ui_graph: UiGraph, loaded_nodes: Mapping[str, LoadedNode], page_rules: PageRules, findings: list[WorkflowFinding]
) -> dict[str, LoadedNode]:
    """Mend the links that contradict each other in the file. A link that is lost on the way becomes a warning."""
    if not page_rules.connects_by_rows:
        return dict(loaded_nodes)
    # A row whose link some input names is used by that input, wherever the row itself ends.
    named_links = {
        input_slot.link
        for ui_node in ui_graph.nodes.values()
        for input_slot in ui_node.inputs
        if input_slot.link is not None
    }
    rows_by_target: dict[str, list[UiLink]] = {}
    for ui_link in ui_graph.links.values():
        # Links to a subgraph's outputs have no input that could name them.
        if ui_link.id not in named_links and ui_link.target_id != OUTPUT_NODE:
            rows_by_target.setdefault(ui_link.target_id, []).append(ui_link)
    connected: dict[str, LoadedNode] = {}
    for node_id, loaded_node in loaded_nodes.items():
        kept_node = _without_lost_links(ui_graph, loaded_node, findings)
        connected[node_id] = (
            _connect_rows(ui_graph, kept_node, rows_by_target[node_id], loaded_nodes)
            if node_id in rows_by_target
            else kept_node
        )
        findings.extend(_dropped_links(loaded_node))
        findings.extend(_disputed_links(ui_graph, loaded_node))
    return connected


def _without_lost_links(ui_graph: UiGraph, loaded_node: LoadedNode, findings: list[WorkflowFinding]) -> LoadedNode:
    lost_slots = [
        input_slot
        for input_slot in loaded_node.inputs
        if input_slot.link is not None and input_slot.link not in ui_graph.links
    ]
    if not lost_slots:
        return loaded_node
    for input_slot in lost_slots:
        message = f"it names link {input_slot.link}, which is not in the file, so it counts as not connected"
        findings.append(_link_warning(loaded_node, "link_lost", message, input_slot.name))
    input_slots = tuple(
        replace(input_slot, link=None) if input_slot in lost_slots else input_slot for input_slot in loaded_node.inputs
    )
    return replace(loaded_node, inputs=input_slots)


def _disputed_links(ui_graph: UiGraph, loaded_node: LoadedNode) -> Iterator[WorkflowFinding]:
    """Warn of links whose row in the file ends at another node: the input wins, as on page 1.49."""
    for input_slot in loaded_node.inputs:
        ui_link = ui_graph.links.get(input_slot.link) if input_slot.link is not None else None
        if ui_link is not None and ui_link.target_id != loaded_node.ui_node.id:
            message = f"it names link {ui_link.id}, whose row ends at node {ui_link.target_id}; the input wins"
            yield _link_warning(loaded_node, "link_disputed", message, input_slot.name)


def _connect_rows(
    ui_graph: UiGraph, loaded_node: LoadedNode, link_rows: list[UiLink], loaded_nodes: Mapping[str, LoadedNode]
) -> LoadedNode:
    input_slots = list(loaded_node.inputs)
    for link_row in link_rows:
        if not 0 <= link_row.target_slot < len(input_slots) or input_slots[link_row.target_slot].link is not None:
            continue
        # A stale row may point at an input that has another type by now.
        if types_connect(_type_of(ui_graph, link_row, loaded_nodes), input_slots[link_row.target_slot].type):
            input_slots[link_row.target_slot] = replace(input_slots[link_row.target_slot], link=link_row.id)
    return replace(loaded_node, inputs=tuple(input_slots))


def _type_of(ui_graph: UiGraph, link_row: UiLink, loaded_nodes: Mapping[str, LoadedNode]) -> str:
    origin_node = loaded_nodes.get(link_row.origin_id)
    output_types: tuple[str, ...] = (
        origin_node.outputs if origin_node else tuple(graph_input.type for graph_input in ui_graph.inputs)
    )
    return output_types[link_row.origin_slot] if 0 <= link_row.origin_slot < len(output_types) else "*"


def _dropped_links(loaded_node: LoadedNode) -> list[WorkflowFinding]:
    message = "it is linked, but the chosen option has no such input, so the link is dropped as on ComfyUI's page"
    return [
        _link_warning(loaded_node, "option_wire_dropped", message, input_slot.name)
        for input_slot in loaded_node.dropped
        if _is_linked(input_slot)
    ]


def _is_linked(input_slot: UiSlot) -> bool:
    return input_slot.link is not None


def _link_warning(loaded_node: LoadedNode, code: str, message: str, input_name: str) -> WorkflowFinding:
    return WorkflowFinding(
        code=code,
        message=message,
        node_id=loaded_node.ui_node.id,
        title=loaded_node.title,
        class_type=loaded_node.ui_node.type,
        input_name=input_name,
        severity="warning",
    )

"""Wires as the page finds them: what an input names wins, and an open input is connected by a row that leads to it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from comfypin.workflow.convert.pages import PageRules
from comfypin.workflow.convert.shapes import LoadedNode, types_connect
from comfypin.workflow.convert.ui import OUTPUT_NODE, UiGraph, UiLink, UiSlot
from comfypin.workflow.findings import WorkflowFinding


def connect_links(
    graph: UiGraph, shapes: Mapping[str, LoadedNode], page: PageRules, findings: list[WorkflowFinding]
) -> dict[str, LoadedNode]:
    """The shapes with their wires mended where the file contradicts itself; what is lost thereby is a warning."""
    if not page.connects_by_rows:
        return dict(shapes)
    named = {slot.link for node in graph.nodes.values() for slot in node.inputs if slot.link is not None}
    rows: dict[str, list[UiLink]] = {}
    for link in graph.links.values():
        if link.id not in named and link.target_id != OUTPUT_NODE:
            rows.setdefault(link.target_id, []).append(link)
    wired: dict[str, LoadedNode] = {}
    for node_id, shape in shapes.items():
        kept = _without_lost_links(graph, shape, findings)
        wired[node_id] = _connect_rows(graph, kept, rows[node_id], shapes) if node_id in rows else kept
        findings.extend(_dropped_links(shape))
        findings.extend(_disputed_links(graph, shape))
    return wired


def _without_lost_links(graph: UiGraph, shape: LoadedNode, findings: list[WorkflowFinding]) -> LoadedNode:
    lost = [slot for slot in shape.inputs if slot.link is not None and slot.link not in graph.links]
    if not lost:
        return shape
    for slot in lost:
        message = f"it is wired by link {slot.link}, which the file does not hold, so it is taken as open"
        findings.append(_link_warning(shape, "link_lost", message, slot.name))
    inputs = tuple(replace(slot, link=None) if slot in lost else slot for slot in shape.inputs)
    return replace(shape, inputs=inputs)


def _disputed_links(graph: UiGraph, shape: LoadedNode) -> Iterator[WorkflowFinding]:
    """Wires whose row in the file ends at another node: the input wins, as on page 1.49."""
    for slot in shape.inputs:
        link = graph.links.get(slot.link) if slot.link is not None else None
        if link is not None and link.target_id != shape.ui_node.id:
            message = f"it is wired by link {link.id}, whose row ends at node {link.target_id}; the input is believed"
            yield _link_warning(shape, "link_disputed", message, slot.name)


def _connect_rows(
    graph: UiGraph, shape: LoadedNode, rows: list[UiLink], shapes: Mapping[str, LoadedNode]
) -> LoadedNode:
    inputs = list(shape.inputs)
    for row in rows:
        if not 0 <= row.target_slot < len(inputs) or inputs[row.target_slot].link is not None:
            continue
        if types_connect(_type_of(graph, row, shapes), inputs[row.target_slot].type):
            inputs[row.target_slot] = replace(inputs[row.target_slot], link=row.id)
    return replace(shape, inputs=tuple(inputs))


def _type_of(graph: UiGraph, row: UiLink, shapes: Mapping[str, LoadedNode]) -> str:
    origin = shapes.get(row.origin_id)
    outputs: tuple[str, ...] = origin.outputs if origin else tuple(port.type for port in graph.inputs)
    return outputs[row.origin_slot] if 0 <= row.origin_slot < len(outputs) else "*"


def _dropped_links(shape: LoadedNode) -> list[WorkflowFinding]:
    message = "it is wired, and the chosen option has no such input, so the wire is dropped as on ComfyUI's page"
    return [_link_warning(shape, "option_wire_dropped", message, slot.name) for slot in shape.dropped if _is_wire(slot)]


def _is_wire(slot: UiSlot) -> bool:
    return slot.link is not None


def _link_warning(shape: LoadedNode, code: str, message: str, input_name: str) -> WorkflowFinding:
    return WorkflowFinding(
        code=code,
        message=message,
        node_id=shape.ui_node.id,
        title=shape.title,
        class_type=shape.ui_node.type,
        input_name=input_name,
        severity="warning",
    )

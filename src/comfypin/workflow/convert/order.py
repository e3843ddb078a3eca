"""Subgraph definitions from the inside out, and how many nodes they unfold to: cycles and explosions come out here."""

from collections.abc import Mapping

from comfypin.workflow.convert.ui import UiGraph
from comfypin.workflow.document import MAX_NODES
from comfypin.workflow.findings import WorkflowFinding

MAX_NESTING = 100


def definition_order(graphs: Mapping[str, UiGraph], findings: list[WorkflowFinding]) -> list[str]:
    """The graphs (the root is ""), each after those it uses. Cycles, deep nesting and explosions are findings."""
    order: list[str] = []
    sizes: dict[str, int] = {}
    depths: dict[str, int] = {}
    for start in graphs:
        path: list[tuple[str, list[str]]] = []
        if start not in sizes:
            path.append((start, _used_definitions(graphs[start], graphs)))
        while path:
            name, waiting = path[-1]
            if not waiting:
                path.pop()
                used = _used_definitions(graphs[name], graphs)
                sizes[name] = len(graphs[name].nodes) + sum(min(sizes.get(one, 0), MAX_NODES) for one in used)
                depths[name] = 1 + max((depths.get(one, 0) for one in used), default=0)
                order.append(name)
                continue
            inner = waiting.pop()
            if inner in sizes:
                continue
            if any(name == inner for name, _ in path):
                message = f"the subgraph {graphs[inner].name!r} contains itself, so it can never be unfolded"
                findings.append(WorkflowFinding(code="subgraph_cycle", message=message))
                return order
            path.append((inner, _used_definitions(graphs[inner], graphs)))
    if sizes.get("", 0) > MAX_NODES:
        message = f"its subgraphs unfold to more than {MAX_NODES:,} nodes, which is the most a workflow may have"
        findings.append(WorkflowFinding(code="too_many_nodes", message=message))
    if depths.get("", 0) > MAX_NESTING:
        message = f"its subgraphs are nested {depths['']} deep, and {MAX_NESTING} is the most there may be"
        findings.append(WorkflowFinding(code="nested_too_deeply", message=message))
    return order


def _used_definitions(graph: UiGraph, graphs: Mapping[str, UiGraph]) -> list[str]:
    return [node.type for node in graph.nodes.values() if node.type in graphs and node.type != ""]

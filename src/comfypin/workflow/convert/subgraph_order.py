"""Sort subgraph definitions from the inside out, and refuse cycles and those that unfold to too many nodes."""

from collections.abc import Mapping

from comfypin.workflow.convert.ui_graph import UiGraph
from comfypin.workflow.document import MAX_NODES
from comfypin.workflow.findings import WorkflowFinding

# Nobody nests this deep by hand; the code that follows links costs time for each level.
MAX_NESTING = 100


def definition_order(ui_graphs: Mapping[str, UiGraph], findings: list[WorkflowFinding]) -> list[str]:
    """Return the graphs (the root is ""), each after those it uses. Cycles and graphs that are too big are findings."""
    finished: list[str] = []
    unfolded_sizes: dict[str, int] = {}
    nesting_depths: dict[str, int] = {}
    for start_id in ui_graphs:
        open_graphs: list[tuple[str, list[str]]] = []
        if start_id not in unfolded_sizes:
            open_graphs.append((start_id, _used_definitions(ui_graphs[start_id], ui_graphs)))
        while open_graphs:
            graph_id, unvisited = open_graphs[-1]
            if not unvisited:
                open_graphs.pop()
                used_ids = _used_definitions(ui_graphs[graph_id], ui_graphs)
                # Bounded while it adds up: fifty levels of two instances each would unfold to 2**50 nodes.
                unfolded_sizes[graph_id] = len(ui_graphs[graph_id].nodes) + sum(
                    min(unfolded_sizes.get(used_id, 0), MAX_NODES) for used_id in used_ids
                )
                nesting_depths[graph_id] = 1 + max((nesting_depths.get(used_id, 0) for used_id in used_ids), default=0)
                finished.append(graph_id)
                continue
            inner_id = unvisited.pop()
            if inner_id in unfolded_sizes:
                continue
            if any(graph_id == inner_id for graph_id, _ in open_graphs):
                message = f"the subgraph {ui_graphs[inner_id].name!r} contains itself, so it can never be unfolded"
                findings.append(WorkflowFinding(code="subgraph_cycle", message=message))
                return finished
            open_graphs.append((inner_id, _used_definitions(ui_graphs[inner_id], ui_graphs)))
    if unfolded_sizes.get("", 0) > MAX_NODES:
        message = f"its subgraphs unfold to more than the {MAX_NODES:,} nodes that a workflow may have"
        findings.append(WorkflowFinding(code="too_many_nodes", message=message))
    if nesting_depths.get("", 0) > MAX_NESTING:
        message = f"its subgraphs are nested {nesting_depths['']} levels deep, and at most {MAX_NESTING} are allowed"
        findings.append(WorkflowFinding(code="nested_too_deeply", message=message))
    return finished


def _used_definitions(ui_graph: UiGraph, ui_graphs: Mapping[str, UiGraph]) -> list[str]:
    return [ui_node.type for ui_node in ui_graph.nodes.values() if ui_node.type in ui_graphs and ui_node.type != ""]

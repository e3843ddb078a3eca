"""Tell which node a person means: by id, by title, or by a class that only one node has."""

from comfypin.workflow.errors import OverrideInvalid
from comfypin.workflow.findings import closest_names, did_you_mean
from comfypin.workflow.graph import ApiGraph, ApiNode, NodeId

# Enough to see how targets are written.
_LISTED = 10


def candidate_nodes(graph: ApiGraph, node_name: str) -> tuple[NodeId, ...]:
    """Return the nodes that a name may mean: the one with this id, else all with this title, else all of this class."""
    if node_name in graph.nodes:
        return (node_name,)
    # Titles before classes: a user who gave a title means that node.
    titled_ids = tuple(node.id for node in graph.nodes.values() if node.title == node_name)
    return titled_ids or tuple(node.id for node in graph.nodes.values() if node.class_type == node_name)


def find_node(graph: ApiGraph, node_name: str, *, override: str) -> ApiNode:
    """Return the one node that is meant. Raises `OverrideInvalid` if there is no such node, or several."""
    matching_ids = candidate_nodes(graph, node_name)
    if len(matching_ids) == 1:
        return graph.nodes[matching_ids[0]]
    if matching_ids:
        listed_ids = ", ".join(matching_ids[:_LISTED]) + (", ..." if len(matching_ids) > _LISTED else "")
        reason = f"{node_name!r} means {len(matching_ids)} nodes ({listed_ids}); name one of them by its id"
        raise OverrideInvalid(override=override, reason=reason)
    close_names = closest_names(node_name, [*graph.nodes, *_titles_and_classes(graph)])
    reason = f"the workflow has no node with the id, title or class {node_name!r}{did_you_mean(close_names)}"
    if not close_names:
        reason += f"; it has {_list_nodes(graph)}"
    raise OverrideInvalid(override=override, reason=reason)


def _titles_and_classes(graph: ApiGraph) -> list[str]:
    titles = [node.title for node in graph.nodes.values() if node.title]
    return [*titles, *(node.class_type for node in graph.nodes.values())]


def _list_nodes(graph: ApiGraph) -> str:
    nodes = [f"{node.id} ({node.title or node.class_type})" for node in graph.nodes.values()]
    return ", ".join(nodes[:_LISTED]) + (", ..." if len(nodes) > _LISTED else "") if nodes else "no nodes"

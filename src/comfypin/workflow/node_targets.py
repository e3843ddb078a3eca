"""Which node a person means: by id, by title, or by a class that only one node has."""

from comfypin.workflow.errors import OverrideInvalid
from comfypin.workflow.findings import closest_names, did_you_mean
from comfypin.workflow.graph import ApiGraph, ApiNode, NodeId

_LISTED = 10


def candidate_nodes(graph: ApiGraph, name: str) -> tuple[NodeId, ...]:
    """The nodes a name may mean: the id alone where it is one, else all with that title, else all of that class."""
    if name in graph.nodes:
        return (name,)
    titled = tuple(node.id for node in graph.nodes.values() if node.title == name)
    return titled or tuple(node.id for node in graph.nodes.values() if node.class_type == name)


def find_node(graph: ApiGraph, name: str, *, override: str) -> ApiNode:
    """The one node that is meant. Raises `OverrideInvalid` where none is, or several are."""
    found = candidate_nodes(graph, name)
    if len(found) == 1:
        return graph.nodes[found[0]]
    if found:
        listed = ", ".join(found[:_LISTED]) + (", ..." if len(found) > _LISTED else "")
        reason = f"{name!r} means {len(found)} nodes ({listed}); name one of them by its id"
        raise OverrideInvalid(override=override, reason=reason)
    names = [*graph.nodes, *_titles_and_classes(graph)]
    reason = f"the workflow has no node with the id, title or class {name!r}{did_you_mean(closest_names(name, names))}"
    if not closest_names(name, names):
        reason += f"; it has {_list_nodes(graph)}"
    raise OverrideInvalid(override=override, reason=reason)


def _titles_and_classes(graph: ApiGraph) -> list[str]:
    titles = [node.title for node in graph.nodes.values() if node.title]
    return [*titles, *(node.class_type for node in graph.nodes.values())]


def _list_nodes(graph: ApiGraph) -> str:
    nodes = [f"{node.id} ({node.title or node.class_type})" for node in graph.nodes.values()]
    return ", ".join(nodes[:_LISTED]) + (", ..." if len(nodes) > _LISTED else "") if nodes else "no nodes"

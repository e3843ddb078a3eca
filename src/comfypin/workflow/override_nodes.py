"""Tells, without an engine, that an override names a node that the workflow lacks."""

from collections.abc import Iterable, Iterator, Mapping

from comfypin.errors import WorkflowError
from comfypin.workflow.document import Document
from comfypin.workflow.errors import OverrideInvalid
from comfypin.workflow.findings import closest_names, did_you_mean
from comfypin.workflow.node_targets import candidate_nodes, find_node
from comfypin.workflow.overrides import Override
from comfypin.workflow.parse import parse_document


def require_override_nodes(document: Document, overrides: Iterable[Override]) -> None:
    """Raise `OverrideInvalid` if an override names a node that is not in the workflow.

    In UI format only ids are judged: which classes and titles there will be shows when an engine's node list converts
    it. Inputs are judged by the server, which knows them.
    """
    if document.format == "ui":
        known_ids = {str(name) for name in _ui_names(document.content)}
        for override in overrides:
            node_name = override.target.partition(".")[0]
            if node_name.isdigit() and node_name not in known_ids:
                near = did_you_mean(closest_names(node_name, sorted(known_ids)))
                raise OverrideInvalid(override=str(override), reason=f"the workflow has no node {node_name}{near}")
        return
    try:
        graph = parse_document(document)
    except WorkflowError:
        # The server says what is wrong with a graph, with what its engine knows of it.
        return
    for override in overrides:
        target_parts = override.target.split(".")
        names = [".".join(target_parts[:count]) for count in range(len(target_parts) - 1, 0, -1)]
        if names and not any(candidate_nodes(graph, name) for name in names):
            find_node(graph, names[0], override=str(override))


def _ui_names(content: Mapping[str, object]) -> Iterator[object]:
    """Yield the ids and titles of all nodes, also of those in subgraphs."""
    nodes = content.get("nodes")
    for node in nodes if isinstance(nodes, list) else []:
        if isinstance(node, Mapping):
            yield node.get("id")
            yield node.get("title")
    definitions = content.get("definitions")
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
    for subgraph in subgraphs if isinstance(subgraphs, list) else []:
        if isinstance(subgraph, Mapping):
            yield from _ui_names(subgraph)

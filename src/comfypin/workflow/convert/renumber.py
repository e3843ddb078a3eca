"""Ids within subgraphs made unique, as the page does it on loading: the prompt's ids then differ from the file's."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from comfypin.digest import JsonValue
from comfypin.workflow.convert.ui import UiGraph, UiLink, UiNode, UiWorkflow

PROXY_WIDGETS = "proxyWidgets"


def renumber_nodes(workflow: UiWorkflow) -> UiWorkflow:
    """Give every inner id that the root or an earlier definition already uses the next one that is free."""
    if not workflow.definitions:
        return workflow
    used = set(workflow.root.nodes)
    last = workflow.last_id
    maps: dict[str, dict[str, str]] = {}
    definitions: dict[str, UiGraph] = {}
    for name, graph in workflow.definitions.items():
        moved: dict[str, str] = {}
        for node_id in graph.nodes:
            if node_id in used:
                last = _next_free(last, used)
                moved[node_id] = str(last)
            elif (number := parse_node_number(node_id)) is not None:
                last = max(last, number)
            used.add(moved.get(node_id, node_id))
        maps[name] = moved
        definitions[name] = _renumber_graph(graph, moved) if moved else graph
    patched = {name: _patch_graph(graph, maps) for name, graph in definitions.items()}
    return replace(workflow, root=_patch_graph(workflow.root, maps), definitions=patched, last_id=last)


def parse_node_number(node_id: str) -> int | None:
    """An id that is a plain whole number, or None."""
    return int(node_id) if node_id.isascii() and node_id.isdecimal() and len(node_id) < 16 else None


def _next_free(last: int, used: set[str]) -> int:
    last += 1
    while str(last) in used:
        last += 1
    return last


def _renumber_graph(graph: UiGraph, moved: Mapping[str, str]) -> UiGraph:
    nodes = {moved.get(key, key): replace(node, id=moved.get(key, key)) for key, node in graph.nodes.items()}
    return replace(graph, nodes=nodes, links={key: _renumber_link(link, moved) for key, link in graph.links.items()})


def _renumber_link(link: UiLink, moved: Mapping[str, str]) -> UiLink:
    origin, target = moved.get(link.origin_id, link.origin_id), moved.get(link.target_id, link.target_id)
    return replace(link, origin_id=origin, target_id=target)


def _patch_graph(graph: UiGraph, maps: Mapping[str, Mapping[str, str]]) -> UiGraph:
    if not any(maps.get(node.type) for node in graph.nodes.values()):
        return graph
    nodes = {key: _patch_node(node, maps.get(node.type, {})) for key, node in graph.nodes.items()}
    return replace(graph, nodes=nodes)


def _patch_node(node: UiNode, moved: Mapping[str, str]) -> UiNode:
    entries = node.properties.get(PROXY_WIDGETS)
    if not moved or not isinstance(entries, list):
        return node
    return replace(node, properties={**node.properties, PROXY_WIDGETS: list(_patch_entries(entries, moved))})


def _patch_entries(entries: list[JsonValue], moved: Mapping[str, str]) -> Iterator[JsonValue]:
    for entry in entries:
        if isinstance(entry, list) and entry and str(entry[0]) in moved:
            yield [moved[str(entry[0])], *entry[1:]]
        else:
            yield entry

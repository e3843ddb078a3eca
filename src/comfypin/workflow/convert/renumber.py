"""Make ids within subgraphs unique, as the page does on loading: the prompt's ids then differ from the file's."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from comfypin.digest import JsonValue
from comfypin.workflow.convert.ui_graph import UiGraph, UiLink, UiNode, UiWorkflow

PROXY_WIDGETS = "proxyWidgets"


def renumber_nodes(workflow: UiWorkflow) -> UiWorkflow:
    """Give the next free id to every inner node whose id the root or an earlier definition already uses."""
    if not workflow.definitions:
        return workflow
    # The root keeps its ids, as on the page; overrides name them.
    used_ids = set(workflow.root.nodes)
    last_id = workflow.last_id
    new_ids_by_graph: dict[str, dict[str, str]] = {}
    definitions: dict[str, UiGraph] = {}
    for graph_id, ui_graph in workflow.definitions.items():
        new_ids: dict[str, str] = {}
        for node_id in ui_graph.nodes:
            if node_id in used_ids:
                last_id = _next_free(last_id, used_ids)
                new_ids[node_id] = str(last_id)
            # New ids must be higher than any that the file uses, not only than those of the root.
            elif (node_number := parse_node_number(node_id)) is not None:
                last_id = max(last_id, node_number)
            used_ids.add(new_ids.get(node_id, node_id))
        new_ids_by_graph[graph_id] = new_ids
        definitions[graph_id] = _renumber_graph(ui_graph, new_ids) if new_ids else ui_graph
    patched_graphs = {graph_id: _patch_graph(ui_graph, new_ids_by_graph) for graph_id, ui_graph in definitions.items()}
    return replace(
        workflow, root=_patch_graph(workflow.root, new_ids_by_graph), definitions=patched_graphs, last_id=last_id
    )


def parse_node_number(node_id: str) -> int | None:
    """Return an id as a number if it is a plain whole number, else None."""
    return int(node_id) if node_id.isascii() and node_id.isdecimal() and len(node_id) < 16 else None


def _next_free(last_id: int, used_ids: set[str]) -> int:
    last_id += 1
    while str(last_id) in used_ids:
        last_id += 1
    return last_id


def _renumber_graph(ui_graph: UiGraph, new_ids: Mapping[str, str]) -> UiGraph:
    ui_nodes = {
        new_ids.get(node_id, node_id): replace(ui_node, id=new_ids.get(node_id, node_id))
        for node_id, ui_node in ui_graph.nodes.items()
    }
    return replace(
        ui_graph,
        nodes=ui_nodes,
        links={link_id: _renumber_link(ui_link, new_ids) for link_id, ui_link in ui_graph.links.items()},
    )


def _renumber_link(ui_link: UiLink, new_ids: Mapping[str, str]) -> UiLink:
    origin_id, target_id = (
        new_ids.get(ui_link.origin_id, ui_link.origin_id),
        new_ids.get(ui_link.target_id, ui_link.target_id),
    )
    return replace(ui_link, origin_id=origin_id, target_id=target_id)


def _patch_graph(ui_graph: UiGraph, new_ids_by_graph: Mapping[str, Mapping[str, str]]) -> UiGraph:
    if not any(new_ids_by_graph.get(ui_node.type) for ui_node in ui_graph.nodes.values()):
        return ui_graph
    ui_nodes = {
        node_id: _patch_node(ui_node, new_ids_by_graph.get(ui_node.type, {}))
        for node_id, ui_node in ui_graph.nodes.items()
    }
    return replace(ui_graph, nodes=ui_nodes)


def _patch_node(ui_node: UiNode, new_ids: Mapping[str, str]) -> UiNode:
    proxy_entries = ui_node.properties.get(PROXY_WIDGETS)
    if not new_ids or not isinstance(proxy_entries, list):
        return ui_node
    return replace(
        ui_node, properties={**ui_node.properties, PROXY_WIDGETS: list(_patch_entries(proxy_entries, new_ids))}
    )


def _patch_entries(proxy_entries: list[JsonValue], new_ids: Mapping[str, str]) -> Iterator[JsonValue]:
    for proxy_entry in proxy_entries:
        # `proxyWidgets` names inner nodes by id, so it must follow them.
        if isinstance(proxy_entry, list) and proxy_entry and str(proxy_entry[0]) in new_ids:
            yield [new_ids[str(proxy_entry[0])], *proxy_entry[1:]]
        else:
            yield proxy_entry

"""Read which inputs a workflow's author chose for ComfyUI's app mode (`extra.linearData`), in the author's order.

An entry is `[node id, widget]` or, since page 1.44, `[root graph:node:widget, name]`. Older files name a node inside a
subgraph by its own id; the page then takes the input of the one instance that stands for it, and so do we.
https://github.com/Comfy-Org/ComfyUI_frontend/blob/main/src/stores/appModeStore.ts
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from comfypin.digest import JsonValue
from comfypin.workflow.convert.loaded_nodes import PRIMITIVE, REROUTE, LoadedNode
from comfypin.workflow.convert.page_versions import PageRules
from comfypin.workflow.convert.widget_values import LoadedGraph, LoadedGraphs, find_promotions
from comfypin.workflow.graph import NodeId

# An author chooses a dozen; a document that claims more must not slow the list down.
_MAX_ENTRIES = 1000
_MAX_PLACES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class AppInput:
    """One input that the author chose: the name that the page shows, and the prompt's inputs that it sets."""

    name: str
    title: str | None
    host_id: NodeId
    places: tuple[tuple[NodeId, str], ...]


def find_app_inputs(
    content: Mapping[str, JsonValue], loaded_graphs: LoadedGraphs, page_rules: PageRules
) -> tuple[AppInput, ...]:
    """Return the chosen inputs; entries that the page could not resolve are left out, as there."""
    chooser = _Chooser(loaded_graphs, page_rules)
    app_inputs_found = (chooser.resolve(node_name, input_name) for node_name, input_name in _read_entries(content))
    chosen: dict[tuple[tuple[NodeId, str], ...], AppInput] = {}
    for app_input in app_inputs_found:
        if app_input is not None and app_input.places:
            chosen.setdefault(app_input.places, app_input)
    return tuple(chosen.values())


def _read_entries(content: Mapping[str, JsonValue]) -> Iterator[tuple[str, str]]:
    extra = content.get("extra")
    linear = extra.get("linearData") if isinstance(extra, Mapping) else None
    entries = linear.get("inputs") if isinstance(linear, Mapping) else None
    for entry in entries[:_MAX_ENTRIES] if isinstance(entries, list) else ():
        if not isinstance(entry, list) or len(entry) < 2:
            continue
        node_name, input_name = entry[:2]
        if (
            isinstance(node_name, str | int)
            and not isinstance(node_name, bool)
            and isinstance(input_name, str)
            and input_name
        ):
            yield str(node_name), input_name


class _Chooser:
    def __init__(self, loaded_graphs: LoadedGraphs, page_rules: PageRules) -> None:
        self._loaded_graphs = loaded_graphs
        self._page_rules = page_rules
        self._root = loaded_graphs[""]
        self._promotions: dict[str, Mapping[str, list[tuple[str, str]]]] = {}

    def resolve(self, node_name: str, input_name: str) -> AppInput | None:
        """Return what an entry stands for, or None if nothing of the workflow, or more than one thing."""
        parts = node_name.split(":")
        if len(parts) == 3 and all(parts):
            return self._app_input(unquote(parts[1]), unquote(parts[2]), shown_name=input_name)
        if len(parts) == 2:
            return self._app_input(parts[1], input_name, shown_name=input_name)
        return self._app_input(node_name, input_name, shown_name=input_name) or self._inside_instance(
            node_name, input_name
        )

    def _app_input(self, node_id: str, widget: str, *, shown_name: str) -> AppInput | None:
        host = self._root.loaded_nodes.get(node_id)
        if host is None:
            return None
        places = tuple(dict.fromkeys(self._places("", self._root, host, widget)))[:_MAX_PLACES]
        return AppInput(name=shown_name, title=host.title, host_id=node_id, places=places) if places else None

    def _inside_instance(self, inner_id: str, widget: str) -> AppInput | None:
        matches = [
            (host.ui_node.id, port_name)
            for host in self._root.loaded_nodes.values()
            if host.subgraph is not None
            for port_name, targets in self._promoted(host.subgraph).items()
            if targets[0] == (inner_id, widget)
        ]
        return self._app_input(*matches[0], shown_name=matches[0][1]) if len(matches) == 1 else None

    def _places(
        self, prefix: str, graph: LoadedGraph, loaded_node: LoadedNode, widget: str
    ) -> Iterator[tuple[NodeId, str]]:
        # An explicit stack: subgraphs may be nested deeper than Python may recurse.
        unvisited = [(prefix, graph, loaded_node, widget)]
        for _ in range(_MAX_PLACES * 10):
            if not unvisited:
                return
            prefix, graph, loaded_node, widget = unvisited.pop(0)
            node_id = loaded_node.ui_node.id
            if loaded_node.subgraph is not None:
                inner = self._loaded_graphs[loaded_node.subgraph]
                unvisited += [
                    (f"{prefix}{node_id}:", inner, inner.loaded_nodes[inner_id], inner_widget)
                    for inner_id, inner_widget in self._promoted(loaded_node.subgraph).get(widget, ())
                ]
            elif loaded_node.ui_node.type in (PRIMITIVE, REROUTE):
                # It is not in the prompt: its value is that of the widgets it is linked to.
                unvisited += [(prefix, graph, target, input_name) for target, input_name in _targets_of(graph, node_id)]
            elif widget in graph.values.get(node_id, {}):
                yield f"{prefix}{node_id}", widget

    def _promoted(self, graph_id: str) -> Mapping[str, list[tuple[str, str]]]:
        if graph_id not in self._promotions:
            loaded_graph = self._loaded_graphs[graph_id]
            self._promotions[graph_id] = find_promotions(loaded_graph, self._loaded_graphs, self._page_rules)
        return self._promotions[graph_id]


def _targets_of(graph: LoadedGraph, origin_id: str) -> Iterator[tuple[LoadedNode, str]]:
    for link_id, target, input_index in graph.linked_inputs():
        ui_link = graph.graph.links.get(link_id)
        if ui_link is not None and ui_link.origin_id == origin_id:
            yield target, target.inputs[input_index].name

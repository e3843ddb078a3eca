"""Find the node that `%Node.widget%` names: by "Node name for S&R", then by title, in the root and all subgraphs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from comfypin.workflow.convert.link_sources import Scope
from comfypin.workflow.convert.loaded_nodes import LoadedNode
from comfypin.workflow.convert.widget_values import LoadedGraph
from comfypin.workflow.convert.widgets import UNSET, WidgetValue
from comfypin.workflow.graph import ApiGraph, ApiLink, InputValue, NodeId
from comfypin.workflow.text_macros import javascript_text

_NAME_PROPERTY = "Node name for S&R"


@dataclass(frozen=True, slots=True)
class NamedNode:
    """A node that can be named: its values and its id in the prompt (the first id if its subgraph is used twice)."""

    node_id: NodeId
    values: Mapping[str, WidgetValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeNames:
    """Nodes by the page's names and by their titles. If several share one, it means the first."""

    by_name: Mapping[str, NamedNode]
    by_title: Mapping[str, NamedNode]

    def lookup_widget(self, node_name: str, widget_name: str, *, graph: ApiGraph, converted: ApiGraph) -> str | None:
        """Return a widget's value as text: what a caller set in the graph since the conversion, or else the file's."""
        named_node = self.by_name[node_name] if node_name in self.by_name else self.by_title.get(node_name)
        if named_node is None or widget_name not in named_node.values:
            return None
        # Compared with the converted graph, because an override must win over the file, and only an override.
        present_value, converted_value = (
            _input_value(api_graph, named_node.node_id, widget_name) for api_graph in (graph, converted)
        )
        if present_value != converted_value and not isinstance(present_value, ApiLink):
            return javascript_text(present_value)
        widget_value = named_node.values[widget_name]
        return "" if widget_value is UNSET else javascript_text(widget_value)


def name_nodes(loaded_graphs: Mapping[str, LoadedGraph], scopes: Iterable[Scope]) -> NodeNames:
    """Collect the names of all nodes, in the order in which the page looks at them."""
    # A subgraph that is used twice has two ids per node in the prompt; the page looks at the first.
    prefixes: dict[str, str] = {}
    for scope in scopes:
        prefixes.setdefault(scope.loaded_graph.graph.id, scope.prefix)
    by_name: dict[str, NamedNode] = {}
    by_title: dict[str, NamedNode] = {}
    for loaded_graph, loaded_node in _all_nodes(loaded_graphs):
        prefix = prefixes.get(loaded_graph.graph.id, "")
        named_node = NamedNode(f"{prefix}{loaded_node.ui_node.id}", loaded_graph.values[loaded_node.ui_node.id])
        known_name = loaded_node.ui_node.properties.get(_NAME_PROPERTY)
        if isinstance(known_name, str):
            by_name.setdefault(known_name, named_node)
        # The page itself fills the property with the class's name when a node is made.
        elif loaded_node.page_class is not None:
            by_name.setdefault(loaded_node.ui_node.type, named_node)
        if loaded_node.title is not None:
            by_title.setdefault(loaded_node.title, named_node)
    return NodeNames(by_name=by_name, by_title=by_title)


def _all_nodes(loaded_graphs: Mapping[str, LoadedGraph]) -> Iterator[tuple[LoadedGraph, LoadedNode]]:
    """Yield every node once, the inside of a subgraph before its instance."""
    # An explicit stack: subgraphs may be nested deeper than Python may recurse.
    root_graph = loaded_graphs[""]
    seen_graphs = {""}
    unfinished = [(root_graph, iter(root_graph.loaded_nodes.values()))]
    instances: list[tuple[LoadedGraph, LoadedNode]] = []
    while unfinished:
        loaded_graph, loaded_nodes = unfinished[-1]
        loaded_node = next(loaded_nodes, None)
        if loaded_node is None:
            unfinished.pop()
            if instances:
                yield instances.pop()
        elif loaded_node.subgraph is not None and loaded_node.subgraph not in seen_graphs:
            seen_graphs.add(loaded_node.subgraph)
            instances.append((loaded_graph, loaded_node))
            inner_graph = loaded_graphs[loaded_node.subgraph]
            unfinished.append((inner_graph, iter(inner_graph.loaded_nodes.values())))
        else:
            yield loaded_graph, loaded_node


def _input_value(graph: ApiGraph, node_id: NodeId, input_name: str) -> InputValue:
    api_node = graph.nodes.get(node_id)
    return api_node.inputs.get(input_name) if api_node else None

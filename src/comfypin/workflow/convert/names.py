"""The nodes that `%Node.widget%` may name: by "Node name for S&R", then by title, in the root and in all subgraphs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from comfypin.workflow.convert.resolve import Scope
from comfypin.workflow.convert.shapes import LoadedNode
from comfypin.workflow.convert.state import LoadedGraph
from comfypin.workflow.convert.widgets import UNSET, WidgetValue
from comfypin.workflow.graph import ApiGraph, ApiLink, InputValue, NodeId
from comfypin.workflow.text_macros import javascript_text

_NAME_PROPERTY = "Node name for S&R"


@dataclass(frozen=True, slots=True)
class NamedNode:
    """A node that can be named: its values, and its id in the prompt (the first, where a subgraph is used again)."""

    node_id: NodeId
    values: Mapping[str, WidgetValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeNames:
    """Nodes by the page's names and by titles; the first one of a name is meant."""

    by_name: Mapping[str, NamedNode]
    by_title: Mapping[str, NamedNode]

    def lookup_widget(self, name: str, widget: str, *, graph: ApiGraph, converted: ApiGraph) -> str | None:
        """A widget's value as text: what a caller set in the graph since it was converted, else the file's."""
        named = self.by_name[name] if name in self.by_name else self.by_title.get(name)
        if named is None or widget not in named.values:
            return None
        now, then = (_input_value(one, named.node_id, widget) for one in (graph, converted))
        if now != then and not isinstance(now, ApiLink):
            return javascript_text(now)
        value = named.values[widget]
        return "" if value is UNSET else javascript_text(value)


def name_nodes(containers: Mapping[str, LoadedGraph], scopes: Iterable[Scope]) -> NodeNames:
    """Collect the names of all nodes, in the order in which the page looks at them."""
    prefixes: dict[str, str] = {}
    for scope in scopes:
        prefixes.setdefault(scope.container.graph.id, scope.prefix)
    by_name: dict[str, NamedNode] = {}
    by_title: dict[str, NamedNode] = {}
    for container, shape in _all_nodes(containers):
        prefix = prefixes.get(container.graph.id, "")
        named = NamedNode(f"{prefix}{shape.ui_node.id}", container.values[shape.ui_node.id])
        known = shape.ui_node.properties.get(_NAME_PROPERTY)
        if isinstance(known, str):
            by_name.setdefault(known, named)
        elif shape.page_class is not None:
            by_name.setdefault(shape.ui_node.type, named)
        if shape.title is not None:
            by_title.setdefault(shape.title, named)
    return NodeNames(by_name=by_name, by_title=by_title)


def _all_nodes(containers: Mapping[str, LoadedGraph]) -> Iterator[tuple[LoadedGraph, LoadedNode]]:
    """Every node once, the inside of a subgraph before its instance."""
    root = containers[""]
    seen = {""}
    waiting = [(root, iter(root.loaded_nodes.values()))]
    instances: list[tuple[LoadedGraph, LoadedNode]] = []
    while waiting:
        container, shapes = waiting[-1]
        shape = next(shapes, None)
        if shape is None:
            waiting.pop()
            if instances:
                yield instances.pop()
        elif shape.subgraph is not None and shape.subgraph not in seen:
            seen.add(shape.subgraph)
            instances.append((container, shape))
            inside = containers[shape.subgraph]
            waiting.append((inside, iter(inside.loaded_nodes.values())))
        else:
            yield container, shape


def _input_value(graph: ApiGraph, node_id: NodeId, name: str) -> InputValue:
    node = graph.nodes.get(node_id)
    return node.inputs.get(name) if node else None

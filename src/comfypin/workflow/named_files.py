"""Lists the texts in a workflow that may name files, in the order in which its nodes run, without an engine. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from comfypin.digest import JsonValue
from comfypin.workflow.document import Document
from comfypin.workflow.graph_walk import GraphWalk
from comfypin.workflow.parse import parse_document

# No widget's value nests this deep, but a hostile file's may.
_MAX_DEPTH = 8


def named_texts(document: Document) -> tuple[str, ...]:
    """Return the texts of a document's nodes, each once, in the order in which its nodes run. Raises `WorkflowError`.

    Only a list of models can tell which of them name models.
    """
    texts = _ui_texts(document.content) if document.format == "ui" else _api_texts(document)
    return tuple(dict.fromkeys(path_text.replace("\\", "/") for path_text in texts))


def class_names(document: Document) -> frozenset[str]:
    """Return the classes of a document's nodes, in subgraphs too. Raises `WorkflowError`."""
    if document.format != "ui":
        return frozenset(node.class_type for node in parse_document(document).nodes.values())
    types = (node.get("type") for node in _ui_nodes(document.content))
    return frozenset(class_name for class_name in types if isinstance(class_name, str))


def _api_texts(document: Document) -> Iterator[str]:
    graph = parse_document(document)
    consumed = {link.node_id for node in graph.nodes.values() for _, link in node.linked_inputs()}
    # Without an engine nobody knows the output nodes; they are among those that no other node needs.
    ends = [node_id for node_id in graph.nodes if node_id not in consumed]
    walk = GraphWalk.from_outputs(graph, ends, lambda node: (link.node_id for _, link in node.linked_inputs()))
    for node_id in walk.reached:
        for value in graph.nodes[node_id].inputs.values():
            if isinstance(value, str):
                yield value


def _ui_texts(content: Mapping[str, JsonValue]) -> Iterator[str]:
    for node in sorted(_ui_nodes(content), key=_run_order):
        yield from _texts_in(node.get("widgets_values"), depth=0)


def _ui_nodes(content: Mapping[str, JsonValue]) -> Iterator[Mapping[str, JsonValue]]:
    definitions = content.get("definitions")
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
    graphs = [content, *(subgraphs if isinstance(subgraphs, list) else ())]
    for graph in graphs:
        nodes = graph.get("nodes") if isinstance(graph, Mapping) else None
        yield from (node for node in (nodes if isinstance(nodes, list) else ()) if isinstance(node, Mapping))


def _run_order(node: Mapping[str, JsonValue]) -> float:
    order = node.get("order")
    return order if isinstance(order, int | float) else float("inf")


def _texts_in(value: JsonValue, *, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        return
    if depth < _MAX_DEPTH and isinstance(value, Mapping | list):
        inner: Sequence[JsonValue] = list(value.values()) if isinstance(value, Mapping) else value
        for part in inner:
            yield from _texts_in(part, depth=depth + 1)

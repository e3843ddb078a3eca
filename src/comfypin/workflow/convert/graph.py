"""The conversion: every live node of the unfolded workflow, with its values and its wires followed to their ends."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from comfypin.digest import JsonValue
from comfypin.workflow.convert.dynamic import Choose
from comfypin.workflow.convert.groups import rename_classes, unpack_group_nodes
from comfypin.workflow.convert.links import connect_links
from comfypin.workflow.convert.order import definition_order
from comfypin.workflow.convert.packs import find_pairs, read_page_nodes
from comfypin.workflow.convert.pages import PageRules, choose_page_rules
from comfypin.workflow.convert.promote import load_instance_values
from comfypin.workflow.convert.renumber import renumber_nodes
from comfypin.workflow.convert.shapes import NodeLoader
from comfypin.workflow.convert.state import LoadedGraph, load_shared_values
from comfypin.workflow.convert.ui import UiWorkflow, read_ui_workflow
from comfypin.workflow.convert.unplaced import SocketTypes, place_values
from comfypin.workflow.convert.write import Seed, WrittenPrompt, write_prompt
from comfypin.workflow.findings import WorkflowFinding, explain_unknown_class, raise_if_errors
from comfypin.workflow.graph import ApiGraph, ApiNode
from comfypin.workflow.object_info import Catalogue
from comfypin.workflow.text_macros import expand_text


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedWorkflow:
    """A converted workflow: the graph, the seeds in it, and a finding for each class that the engine does not have.

    The graph's file names still hold `%...%` texts, so that values can be set first; `fill_texts` fills them in. A node
    of an unknown class keeps the class's name in the graph, for preflight to judge. `sent` is what the page sends: the
    graph, and nodes that only a pack's page script knows. `warnings` say what was left out of the file, or mended.
    """

    graph: ApiGraph
    sent: ApiGraph
    seeds: tuple[Seed, ...]
    unknown: tuple[WorkflowFinding, ...]
    warnings: tuple[WorkflowFinding, ...]
    written: WrittenPrompt

    def fill_texts(self, graph: ApiGraph, now: datetime) -> ApiGraph:
        """This conversion's graph, with values set or not, with the page's texts filled in."""

        def lookup_widget(name: str, widget: str) -> str | None:
            return self.written.names.lookup_widget(name, widget, graph=graph, converted=self.graph)

        nodes = dict(graph.nodes)
        for node_id, name in self.written.texts:
            text = nodes[node_id].inputs.get(name) if node_id in nodes else None
            if isinstance(text, str) and "%" in text:
                filled = {**nodes[node_id].inputs, name: expand_text(text, lookup_widget, now)}
                nodes[node_id] = replace(nodes[node_id], inputs=filled)
        return ApiGraph(nodes=nodes)

    def to_api(self, now: datetime) -> Mapping[str, JsonValue]:
        """What the page sends: texts filled in, and nodes of unknown classes without a class."""
        unknown = {finding.node_id for finding in self.unknown} | self.written.decoration
        wire = self.fill_texts(self.sent, now).to_api()
        return {node_id: _without_class(node) if node_id in unknown else node for node_id, node in wire.items()}


def convert_workflow(
    content: Mapping[str, JsonValue],
    catalogue: Catalogue,
    *,
    choose: Choose,
    source: str = "given",
    page: PageRules | None = None,
) -> ConvertedWorkflow:
    """Convert a document in UI format. Raises `WorkflowInvalid` with everything that is broken in it.

    `choose` picks one of the choices of a dynamic prompt. `page` says whose rules are followed; without it the node
    catalogue tells.
    """
    page = page or choose_page_rules(catalogue)
    findings: list[WorkflowFinding] = []
    workflow = read_ui_workflow(content, findings)
    if page.promotes_by_entry:
        workflow = unpack_group_nodes(renumber_nodes(workflow), catalogue, page, findings)
    workflow = rename_classes(workflow, page)
    graphs = {"": workflow.root, **workflow.definitions}
    order = definition_order(graphs, findings)
    raise_if_errors(source, findings)
    containers = _load_graphs(workflow, catalogue, page, findings)
    (load_instance_values if page.promotes_by_entry else load_shared_values)(containers, order, page)
    written = write_prompt(containers, page, choose=choose, findings=findings)
    raise_if_errors(source, findings)
    return _collect_nodes(written, findings)


def _load_graphs(
    workflow: UiWorkflow, catalogue: Catalogue, page: PageRules, findings: list[WorkflowFinding]
) -> dict[str, LoadedGraph]:
    shapes = NodeLoader(catalogue, workflow.definitions, page)
    graphs = {"": workflow.root, **workflow.definitions}
    sockets = SocketTypes(catalogue)
    made = {
        name: {key: place_values(shapes.load_node(node), sockets, findings) for key, node in graph.nodes.items()}
        for name, graph in graphs.items()
    }
    pairs = find_pairs([shape for several in made.values() for shape in several.values()])
    containers: dict[str, LoadedGraph] = {}
    for name, graph in graphs.items():
        wired = connect_links(graph, made[name], page, findings)
        read = read_page_nodes(graph, wired, pairs, workflow.virtual_wires if name == "" else ())
        findings.extend(read.findings)
        containers[name] = LoadedGraph(
            graph=read.graph,
            loaded_nodes=read.shapes,
            setters=read.setters,
            getters=read.getters,
            decoration=read.decoration,
        )
    return containers


def _collect_nodes(written: WrittenPrompt, findings: Iterable[WorkflowFinding]) -> ConvertedWorkflow:
    nodes: dict[str, ApiNode] = {}
    # JavaScript lists an object's keys that are whole numbers first, ascending; ComfyUI runs outputs in that order.
    sent: dict[str, ApiNode] = {}
    for node_id in sorted(written.nodes, key=_javascript_key_order):
        shape = written.loaded_nodes[node_id]
        node = ApiNode(id=node_id, class_type=shape.ui_node.type, inputs=written.nodes[node_id], title=shape.title)
        sent[node_id] = node
        if node_id not in written.decoration:
            nodes[node_id] = node
    unknown = tuple(_unknown_class_finding(node) for node in nodes.values() if written.loaded_nodes[node.id].is_unknown)
    return ConvertedWorkflow(
        graph=ApiGraph(nodes=nodes),
        sent=ApiGraph(nodes=sent),
        seeds=written.seeds,
        unknown=unknown,
        warnings=tuple(finding for finding in findings if finding.severity == "warning"),
        written=written,
    )


def _javascript_key_order(key: str) -> tuple[int, int]:
    return (0, int(key)) if key.isascii() and key.isdecimal() and len(key) <= 10 else (1, 0)


def _without_class(node: JsonValue) -> JsonValue:
    if not isinstance(node, Mapping):
        return node
    return {"_meta": {}, **{name: value for name, value in node.items() if name != "class_type"}}


def _unknown_class_finding(node: ApiNode) -> WorkflowFinding:
    return WorkflowFinding(
        code="class_unknown",
        message=explain_unknown_class(node.class_type),
        node_id=node.id,
        title=node.title,
        class_type=node.class_type,
    )

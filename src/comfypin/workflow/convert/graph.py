"""The conversion: every live node of the unfolded workflow, with its values and its wires followed to their ends."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from comfypin.digest import JsonValue
from comfypin.workflow.convert.dynamic import Choose
from comfypin.workflow.convert.groups import renamed, with_group_nodes
from comfypin.workflow.convert.links import wire_up
from comfypin.workflow.convert.order import definition_order
from comfypin.workflow.convert.packs import pairs_of, read_page_nodes
from comfypin.workflow.convert.pages import PageRules, page_rules
from comfypin.workflow.convert.promote import load_instance_values
from comfypin.workflow.convert.renumber import renumbered
from comfypin.workflow.convert.shapes import Shapes
from comfypin.workflow.convert.state import Container, load_shared_values
from comfypin.workflow.convert.ui import UiWorkflow, read_ui
from comfypin.workflow.convert.unplaced import Sockets, place_values
from comfypin.workflow.convert.write import Seed, Written, write
from comfypin.workflow.findings import Finding, refuse, unknown_class
from comfypin.workflow.graph import Graph, Node
from comfypin.workflow.object_info import Catalogue
from comfypin.workflow.text_macros import expand_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A converted workflow: the graph, the seeds in it, and a finding for each class that the engine does not have.

    The graph's file names still hold `%...%` texts, so that values can be set first; `expand` fills them in. A node of
    an unknown class keeps the class's name in the graph, for preflight to judge. `sent` is what the page sends: the
    graph, and nodes that only a pack's page script knows. `warnings` say what was left out of the file, or mended.
    """

    graph: Graph
    sent: Graph
    seeds: tuple[Seed, ...]
    unknown: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    written: Written

    def expand(self, graph: Graph, now: datetime) -> Graph:
        """This conversion's graph, with values set or not, with the page's texts filled in."""

        def lookup(name: str, widget: str) -> str | None:
            return self.written.names.lookup(name, widget, graph=graph, converted=self.graph)

        nodes = dict(graph.nodes)
        for node_id, name in self.written.texts:
            text = nodes[node_id].inputs.get(name) if node_id in nodes else None
            if isinstance(text, str) and "%" in text:
                filled = {**nodes[node_id].inputs, name: expand_text(text, lookup, now)}
                nodes[node_id] = replace(nodes[node_id], inputs=filled)
        return Graph(nodes=nodes)

    def to_api(self, now: datetime) -> Mapping[str, JsonValue]:
        """What the page sends: texts filled in, and nodes of unknown classes without a class."""
        unknown = {finding.node_id for finding in self.unknown} | self.written.decoration
        wire = self.expand(self.sent, now).to_api()
        return {node_id: _classless(node) if node_id in unknown else node for node_id, node in wire.items()}


def convert(
    content: Mapping[str, JsonValue],
    catalogue: Catalogue,
    *,
    choose: Choose,
    source: str = "given",
    page: PageRules | None = None,
) -> Conversion:
    """Convert a document in UI format. Raises `WorkflowInvalid` with everything that is broken in it.

    `choose` picks one of the choices of a dynamic prompt. `page` says whose rules are followed; without it the node
    catalogue tells.
    """
    page = page or page_rules(catalogue)
    findings: list[Finding] = []
    workflow = read_ui(content, findings)
    if page.promotes_by_entry:
        workflow = with_group_nodes(renumbered(workflow), catalogue, page, findings)
    workflow = renamed(workflow, page)
    graphs = {"": workflow.root, **workflow.definitions}
    order = definition_order(graphs, findings)
    refuse(source, findings)
    containers = _containers(workflow, catalogue, page, findings)
    (load_instance_values if page.promotes_by_entry else load_shared_values)(containers, order, page)
    written = write(containers, page, choose=choose, findings=findings)
    refuse(source, findings)
    return _conversion(written, findings)


def _containers(
    workflow: UiWorkflow, catalogue: Catalogue, page: PageRules, findings: list[Finding]
) -> dict[str, Container]:
    shapes = Shapes(catalogue, workflow.definitions, page)
    graphs = {"": workflow.root, **workflow.definitions}
    sockets = Sockets(catalogue)
    made = {
        name: {key: place_values(shapes.of(node), sockets, findings) for key, node in graph.nodes.items()}
        for name, graph in graphs.items()
    }
    pairs = pairs_of([shape for several in made.values() for shape in several.values()])
    containers: dict[str, Container] = {}
    for name, graph in graphs.items():
        wired = wire_up(graph, made[name], page, findings)
        read = read_page_nodes(graph, wired, pairs, workflow.virtual_wires if name == "" else ())
        findings.extend(read.findings)
        containers[name] = Container(
            graph=read.graph,
            shapes=read.shapes,
            setters=read.setters,
            getters=read.getters,
            decoration=read.decoration,
        )
    return containers


def _conversion(written: Written, findings: Iterable[Finding]) -> Conversion:
    nodes: dict[str, Node] = {}
    # JavaScript lists an object's keys that are whole numbers first, ascending; ComfyUI runs outputs in that order.
    sent: dict[str, Node] = {}
    for node_id in sorted(written.nodes, key=_place):
        shape = written.shapes[node_id]
        node = Node(id=node_id, class_type=shape.node.type, inputs=written.nodes[node_id], title=shape.title)
        sent[node_id] = node
        if node_id not in written.decoration:
            nodes[node_id] = node
    unknown = tuple(_unknown(node) for node in nodes.values() if written.shapes[node.id].is_unknown)
    return Conversion(
        graph=Graph(nodes=nodes),
        sent=Graph(nodes=sent),
        seeds=written.seeds,
        unknown=unknown,
        warnings=tuple(finding for finding in findings if finding.severity == "warning"),
        written=written,
    )


def _place(key: str) -> tuple[int, int]:
    return (0, int(key)) if key.isascii() and key.isdecimal() and len(key) <= 10 else (1, 0)


def _classless(node: JsonValue) -> JsonValue:
    if not isinstance(node, Mapping):
        return node
    return {"_meta": {}, **{name: value for name, value in node.items() if name != "class_type"}}


def _unknown(node: Node) -> Finding:
    return Finding(
        code="class_unknown",
        message=unknown_class(node.class_type),
        node_id=node.id,
        title=node.title,
        class_type=node.class_type,
    )

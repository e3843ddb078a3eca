"""The conversion itself: write every live node of the unfolded workflow, and follow its links to their ends."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from comfypin.digest import JsonValue
from comfypin.workflow.convert.app_mode import AppInput, find_app_inputs
from comfypin.workflow.convert.dynamic_prompts import Choose
from comfypin.workflow.convert.group_nodes import rename_classes, unpack_group_nodes
from comfypin.workflow.convert.links import connect_links
from comfypin.workflow.convert.loaded_nodes import NodeLoader
from comfypin.workflow.convert.page_only_nodes import find_pairs, read_page_nodes
from comfypin.workflow.convert.page_versions import PageRules, choose_page_rules
from comfypin.workflow.convert.promoted_widgets import load_instance_values
from comfypin.workflow.convert.prompt_nodes import Seed, WrittenPrompt, write_prompt
from comfypin.workflow.convert.renumber import renumber_nodes
from comfypin.workflow.convert.subgraph_order import definition_order
from comfypin.workflow.convert.ui_graph import UiWorkflow, read_ui_workflow
from comfypin.workflow.convert.unplaced_values import SocketTypes, place_values
from comfypin.workflow.convert.widget_values import LoadedGraph, load_shared_values
from comfypin.workflow.findings import WorkflowFinding, explain_unknown_class, raise_if_errors
from comfypin.workflow.graph import ApiGraph, ApiNode
from comfypin.workflow.object_info import Catalogue
from comfypin.workflow.text_macros import expand_text


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedWorkflow:
    """A converted workflow: the graph, the seeds in it, and a finding for each class that the engine does not have.

    The graph's file names still hold `%...%` texts, so that values can be set first; `fill_texts` fills them in. A node
    of an unknown class keeps the class's name in the graph, for preflight to judge. `sent` is what the page sends: the
    graph, and nodes that only a pack's page script knows. `warnings` say what was left out of the file, or mended;
    `app_inputs` are what the author chose for app mode.
    """

    graph: ApiGraph
    sent: ApiGraph
    seeds: tuple[Seed, ...]
    unknown: tuple[WorkflowFinding, ...]
    warnings: tuple[WorkflowFinding, ...]
    written: WrittenPrompt
    app_inputs: tuple[AppInput, ...] = ()

    def fill_texts(self, graph: ApiGraph, local_time: datetime) -> ApiGraph:
        """Fill the page's texts into this conversion's graph, whether values were set in it since or not."""

        def lookup_widget(node_name: str, widget_name: str) -> str | None:
            return self.written.names.lookup_widget(node_name, widget_name, graph=graph, converted=self.graph)

        nodes = dict(graph.nodes)
        for node_id, input_name in self.written.texts:
            macro_text = nodes[node_id].inputs.get(input_name) if node_id in nodes else None
            if isinstance(macro_text, str) and "%" in macro_text:
                filled_inputs = {
                    **nodes[node_id].inputs,
                    input_name: expand_text(macro_text, lookup_widget, local_time),
                }
                nodes[node_id] = replace(nodes[node_id], inputs=filled_inputs)
        return ApiGraph(nodes=nodes)

    def to_api(self, local_time: datetime) -> Mapping[str, JsonValue]:
        """Return what the page sends: texts filled in, and nodes of unknown classes without a class."""
        without_class = {finding.node_id for finding in self.unknown} | self.written.decoration
        api_prompt = self.fill_texts(self.sent, local_time).to_api()
        return {
            node_id: _without_class(node) if node_id in without_class else node for node_id, node in api_prompt.items()
        }


def convert_workflow(
    content: Mapping[str, JsonValue],
    catalogue: Catalogue,
    *,
    choose: Choose,
    source: str = "given",
    page_rules: PageRules | None = None,
) -> ConvertedWorkflow:
    """Convert a document in UI format. Raises `WorkflowInvalid` with everything that is broken in it.

    `choose` picks one of the choices of a dynamic prompt. Without `page_rules`, the node catalogue tells which page's
    rules to follow.
    """
    page_rules = page_rules or choose_page_rules(catalogue)
    findings: list[WorkflowFinding] = []
    workflow = read_ui_workflow(content, findings)
    # Ids must be unique before group nodes take new ones behind the highest.
    if page_rules.promotes_by_entry:
        workflow = unpack_group_nodes(renumber_nodes(workflow), catalogue, page_rules, findings)
    workflow = rename_classes(workflow, page_rules)
    ui_graphs = {"": workflow.root, **workflow.definitions}
    # Before anything is unfolded: a cycle would never end, and nesting multiplies the nodes.
    graph_order = definition_order(ui_graphs, findings)
    # A file with a broken structure would give misleading findings further on, so these stop here.
    raise_if_errors(source, findings)
    loaded_graphs = _load_graphs(workflow, catalogue, page_rules, findings)
    (load_instance_values if page_rules.promotes_by_entry else load_shared_values)(
        loaded_graphs, graph_order, page_rules
    )
    written_prompt = write_prompt(loaded_graphs, page_rules, choose=choose, findings=findings)
    raise_if_errors(source, findings)
    app_inputs = find_app_inputs(content, loaded_graphs, page_rules)
    return replace(_collect_nodes(written_prompt, findings), app_inputs=app_inputs)


def _load_graphs(
    workflow: UiWorkflow, catalogue: Catalogue, page_rules: PageRules, findings: list[WorkflowFinding]
) -> dict[str, LoadedGraph]:
    node_loader = NodeLoader(catalogue, workflow.definitions, page_rules)
    ui_graphs = {"": workflow.root, **workflow.definitions}
    socket_types = SocketTypes(catalogue)
    placed_nodes = {
        graph_id: {
            node_id: place_values(node_loader.load_node(node), socket_types, findings)
            for node_id, node in ui_graph.nodes.items()
        }
        for graph_id, ui_graph in ui_graphs.items()
    }
    # Over all graphs together: a Get node may read what a Set node outside its subgraph stores.
    set_get_pairs = find_pairs(
        [loaded_node for graph_nodes in placed_nodes.values() for loaded_node in graph_nodes.values()]
    )
    loaded_graphs: dict[str, LoadedGraph] = {}
    for graph_id, ui_graph in ui_graphs.items():
        connected_nodes = connect_links(ui_graph, placed_nodes[graph_id], page_rules, findings)
        page_nodes = read_page_nodes(
            # A broadcasting pack saves its links in the file's `extra`, which belongs to the root.
            ui_graph,
            connected_nodes,
            set_get_pairs,
            workflow.virtual_links if graph_id == "" else (),
        )
        findings.extend(page_nodes.findings)
        loaded_graphs[graph_id] = LoadedGraph(
            graph=page_nodes.graph,
            loaded_nodes=page_nodes.loaded_nodes,
            setters=page_nodes.setters,
            getters=page_nodes.getters,
            decoration=page_nodes.decoration,
        )
    return loaded_graphs


def _collect_nodes(written_prompt: WrittenPrompt, findings: Iterable[WorkflowFinding]) -> ConvertedWorkflow:
    nodes: dict[str, ApiNode] = {}
    # JavaScript lists an object's keys that are whole numbers first, ascending; ComfyUI runs outputs in that order.
    sent_nodes: dict[str, ApiNode] = {}
    for node_id in sorted(written_prompt.nodes, key=_javascript_key_order):
        loaded_node = written_prompt.loaded_nodes[node_id]
        node = ApiNode(
            id=node_id,
            class_type=loaded_node.ui_node.type,
            inputs=written_prompt.nodes[node_id],
            title=loaded_node.title,
        )
        sent_nodes[node_id] = node
        if node_id not in written_prompt.decoration:
            nodes[node_id] = node
    unknown_nodes = tuple(
        _unknown_class_finding(node) for node in nodes.values() if written_prompt.loaded_nodes[node.id].is_unknown
    )
    return ConvertedWorkflow(
        graph=ApiGraph(nodes=nodes),
        sent=ApiGraph(nodes=sent_nodes),
        seeds=written_prompt.seeds,
        unknown=unknown_nodes,
        warnings=tuple(finding for finding in findings if finding.severity == "warning"),
        written=written_prompt,
    )


def _javascript_key_order(object_key: str) -> tuple[int, int]:
    # JavaScript treats keys up to 2**32 - 2 as array indexes; ten digits are near enough for node ids.
    return (0, int(object_key)) if object_key.isascii() and object_key.isdecimal() and len(object_key) <= 10 else (1, 0)


def _without_class(node: JsonValue) -> JsonValue:
    if not isinstance(node, Mapping):
        return node
    return {
        # The page sends a node of a missing class like this; the server then refuses it by its missing class.
        "_meta": {},
        **{field_name: field_value for field_name, field_value in node.items() if field_name != "class_type"},
    }


def _unknown_class_finding(node: ApiNode) -> WorkflowFinding:
    return WorkflowFinding(
        code="class_unknown",
        message=explain_unknown_class(node.class_type),
        node_id=node.id,
        title=node.title,
        class_type=node.class_type,
    )

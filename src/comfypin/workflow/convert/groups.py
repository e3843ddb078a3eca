"""Group nodes of older files turned into subgraphs, as the page does it on loading."""

from dataclasses import replace

from comfypin.workflow.catalogue import Catalogue
from comfypin.workflow.convert.pages import PageRules
from comfypin.workflow.convert.ui import UiGraph, UiWorkflow
from comfypin.workflow.findings import Finding


def renamed(workflow: UiWorkflow, page: PageRules) -> UiWorkflow:
    """The workflow with the names that the page itself gives to classes of long ago."""
    if not page.renamed_classes:
        return workflow
    definitions = {name: _renamed(graph, page) for name, graph in workflow.definitions.items()}
    return replace(workflow, root=_renamed(workflow.root, page), definitions=definitions)


def with_group_nodes(
    workflow: UiWorkflow, catalogue: Catalogue, page: PageRules, findings: list[Finding]
) -> UiWorkflow:
    return workflow


def _renamed(graph: UiGraph, page: PageRules) -> UiGraph:
    names = page.renamed_classes
    nodes = {key: replace(node, type=names.get(node.type, node.type)) for key, node in graph.nodes.items()}
    return replace(graph, nodes=nodes)

"""Load a document of either format as one graph, ready for overrides, filled-in texts and changed seeds."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from comfypin.digest import JsonValue
from comfypin.workflow.convert.app_mode import AppInput
from comfypin.workflow.convert.build_prompt import ConvertedWorkflow, convert_workflow
from comfypin.workflow.convert.dynamic_prompts import Choose
from comfypin.workflow.convert.page_versions import choose_page_rules
from comfypin.workflow.convert.prompt_nodes import Seed
from comfypin.workflow.convert.widgets import is_controlled
from comfypin.workflow.document import Document
from comfypin.workflow.filename_mark import remove_marks
from comfypin.workflow.findings import WorkflowFinding
from comfypin.workflow.graph import ApiGraph, NodeId
from comfypin.workflow.node_inputs import open_inputs
from comfypin.workflow.object_info import Catalogue
from comfypin.workflow.parse import parse_document
from comfypin.workflow.replacements import replace_classes
from comfypin.workflow.smallest_graph import smoke_graph
from comfypin.workflow.text_macros import expand_texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A workflow ready for a job: its graph, and the seeds that may change between jobs.

    `warnings` say what was taken in another way than it is written. `expanded_classes` are those in whose file names
    the engine's own page would fill texts in. `app_inputs` are what the author chose for app mode; API format has none.
    """

    source: str
    graph: ApiGraph
    seeds: tuple[Seed, ...]
    conversion: ConvertedWorkflow | None = None
    warnings: tuple[WorkflowFinding, ...] = ()
    expanded_classes: frozenset[str] = frozenset()
    app_inputs: tuple[AppInput, ...] = ()

    @property
    def node_packs(self) -> Mapping[NodeId, str]:
        """Return the node pack that the file names for each node; API format names none."""
        loaded_nodes = self.conversion.written.loaded_nodes if self.conversion else {}
        packs_by_node = {
            node_id: read_pack(loaded_node.ui_node.properties) for node_id, loaded_node in loaded_nodes.items()
        }
        return {node_id: node_pack for node_id, node_pack in packs_by_node.items() if node_pack is not None}

    def fill_texts(self, graph: ApiGraph, now: datetime) -> ApiGraph:
        """Fill the page's texts into this workflow's graph, overridden or not (`now` is in the user's time zone)."""
        return (
            self.conversion.fill_texts(graph, now)
            if self.conversion
            else expand_texts(graph, now, classes=self.expanded_classes)
        )


def read_pack(properties: Mapping[str, JsonValue]) -> str | None:
    """Return the pack that a saved node names, by registry id or repository; None for ComfyUI's own nodes."""
    for property_name in ("cnr_id", "aux_id"):
        node_pack = properties.get(property_name)
        if isinstance(node_pack, str) and node_pack and node_pack != "comfy-core":
            return node_pack
    return None


def choose_at_random(options: Sequence[str]) -> str:
    """Choose one option of a dynamic prompt."""
    return secrets.choice(options)


def load_workflow(document: Document, catalogue: Catalogue, *, choose: Choose = choose_at_random) -> Workflow:
    """Read a document: API format as it is, UI format converted, an empty one as the smoke test.

    Raises `WorkflowInvalid` with every finding.
    """
    if document.format == "ui":
        conversion = convert_workflow(document.content, catalogue, choose=choose, source=document.source)
        return Workflow(
            source=document.source,
            graph=conversion.graph,
            seeds=conversion.seeds,
            conversion=conversion,
            warnings=conversion.warnings,
            app_inputs=conversion.app_inputs,
        )
    if document.format == "empty":
        return Workflow(source=document.source, graph=smoke_graph(), seeds=())
    # Marks first: a saved picture holds the graph that we sent, with our own nodes in it.
    replaced = replace_classes(remove_marks(parse_document(document)), catalogue)
    graph = replaced.graph
    return Workflow(
        source=document.source,
        graph=graph,
        seeds=_find_seeds(graph, catalogue),
        warnings=replaced.findings,
        expanded_classes=choose_page_rules(catalogue).expanded_classes,
    )


def _find_seeds(graph: ApiGraph, catalogue: Catalogue) -> tuple[Seed, ...]:
    """Find the seeds of an API graph. It does not say how the page would change them, so new ones are random."""
    seeds_found: list[Seed] = []
    for node in graph.nodes.values():
        for input_spec in open_inputs(catalogue.get(node.class_type, {}), node.inputs).specs.values():
            input_value = node.inputs.get(input_spec.name)
            if input_spec.type == "INT" and is_controlled(input_spec) and isinstance(input_value, int | float):
                seed_group = f"{node.id}.{input_spec.name}"
                seeds_found.append(
                    Seed(node_id=node.id, input_name=input_spec.name, control="randomize", group=seed_group)
                )
    return tuple(seeds_found)

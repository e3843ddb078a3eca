"""Finds the inputs of a graph that name models of the job itself, and spells them like the paths. Pure."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from comfypin.workflow.graph import ApiGraph, ApiNode, NodeId
from comfypin.workflow.node_inputs import open_inputs
from comfypin.workflow.object_info import Catalogue, names_file


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNames:
    """A graph that names models by their paths, the inputs that do so (node id, input name), and those paths."""

    graph: ApiGraph
    inputs: frozenset[tuple[NodeId, str]] = frozenset()
    used: frozenset[str] = frozenset()


def find_model_names(graph: ApiGraph, paths: Collection[str], catalogue: Catalogue) -> ModelNames:
    """Find where a graph names these models, each by its path below its folder (`style/x.safetensors`).

    An engine lists its files again for each prompt, but its catalogue may be older than the job's models.
    """
    if not paths:
        return ModelNames(graph=graph)
    nodes: dict[NodeId, ApiNode] = {}
    model_names: set[tuple[NodeId, str]] = set()
    used: set[str] = set()
    for node in graph.nodes.values():
        changed: dict[str, str] = {}
        for spec in open_inputs(catalogue.get(node.class_type, {}), node.inputs).specs.values():
            value = node.inputs.get(spec.name)
            if not isinstance(value, str) or spec.choices is None or names_file(node.class_type, spec):
                continue
            # Windows writes backslashes.
            path = value.replace("\\", "/")
            if path in paths:
                model_names.add((node.id, spec.name))
                used.add(path)
                changed[spec.name] = path
        nodes[node.id] = replace(node, inputs={**node.inputs, **changed}) if changed else node
    return ModelNames(graph=ApiGraph(nodes=nodes), inputs=frozenset(model_names), used=frozenset(used))

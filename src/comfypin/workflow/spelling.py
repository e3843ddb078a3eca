"""Choices and file names as this engine spells them, in workflows that were written on another machine.

Windows writes `XL\\base.safetensors`, and a file may be named in other letters there. A choice that differs in nothing
else from exactly one choice of the engine is that choice; each one that is taken so is a warning.
"""

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from comfypin.digest import JsonValue
from comfypin.workflow.filename_mark import PREFIX_INPUT
from comfypin.workflow.findings import WorkflowFinding
from comfypin.workflow.graph import ApiGraph, ApiNode, InputValue, NodeId
from comfypin.workflow.node_inputs import open_inputs
from comfypin.workflow.object_info import Catalogue, InputSpec, is_output, names_file

# An option may bring further ones whose spelling differs too; no class nests them deeper.
_MAX_ROUNDS = 20
_DRIVE = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Respelt:
    """A graph as the engine spells it, and a warning for each value that was changed."""

    graph: ApiGraph
    findings: tuple[WorkflowFinding, ...] = ()


def respell_graph(graph: ApiGraph, catalogue: Catalogue, *, brought: Set[tuple[NodeId, str]] = frozenset()) -> Respelt:
    """Take the engine's spelling. `brought` are the file inputs (node id, name) that the job brings files for."""
    nodes: dict[NodeId, ApiNode] = {}
    findings: list[WorkflowFinding] = []
    for node in graph.nodes.values():
        nodes[node.id] = node
        for _ in range(_MAX_ROUNDS):
            changed = _respelt(nodes[node.id], catalogue, brought)
            if not changed:
                break
            findings += [
                _respelt_finding(node, name, nodes[node.id].inputs[name], value) for name, value in changed.items()
            ]
            nodes[node.id] = replace(node, inputs={**nodes[node.id].inputs, **changed})
    return Respelt(graph=ApiGraph(nodes=nodes) if findings else graph, findings=tuple(findings))


def _respelt(node: ApiNode, catalogue: Catalogue, brought: Set[tuple[NodeId, str]]) -> dict[str, str]:
    """The inputs of a node that the engine spells in another way."""
    definition = catalogue.get(node.class_type)
    if definition is None:
        return {}
    changed: dict[str, str] = {}
    for spec in open_inputs(definition, node.inputs).specs.values():
        value = node.inputs.get(spec.name)
        if isinstance(value, str) and (node.id, spec.name) not in brought:
            spelling = _respell_choice(value, spec, is_file=names_file(node.class_type, spec))
            if spelling != value:
                changed[spec.name] = spelling
    prefix = node.inputs.get(PREFIX_INPUT)
    if is_output(definition) and isinstance(prefix, str) and "\\" in prefix and not _DRIVE.match(prefix):
        changed[PREFIX_INPUT] = prefix.replace("\\", "/")
    return changed


def spelling_of(value: str, choices: Sequence[JsonValue]) -> str | None:
    """Return the one choice that a value differs from in nothing but slashes or letters, or that it is; else None."""
    if value in choices:
        return value
    same_but_slashes = _matching_choices(value.replace("\\", "/"), choices, fold=False)
    alike = same_but_slashes or _matching_choices(value.replace("\\", "/").casefold(), choices, fold=True)
    return alike[0] if len(alike) == 1 else None


def _respell_choice(value: str, spec: InputSpec, *, is_file: bool) -> str:
    if spec.choices is None:
        return value
    spelling = spelling_of(value, spec.choices)
    if spelling is not None:
        return spelling
    # The engine lists only what lies at the top of its input folder.
    return value.replace("\\", "/") if is_file else value


def _matching_choices(wanted: str, choices: Sequence[JsonValue], *, fold: bool) -> list[str]:
    texts = [choice for choice in choices if isinstance(choice, str)]
    keys = [text.replace("\\", "/") for text in texts]
    return [text for text, key in zip(texts, keys, strict=True) if (key.casefold() if fold else key) == wanted]


def _respelt_finding(node: ApiNode, input_name: str, value: InputValue, spelling: str) -> WorkflowFinding:
    return WorkflowFinding(
        code="respelt",
        message=f"{value!r} is {spelling!r} on this engine, and was taken as that",
        node_id=node.id,
        title=node.title if node.title != node.class_type else None,
        class_type=node.class_type,
        input_name=input_name,
        closest=(spelling,),
        severity="warning",
    )

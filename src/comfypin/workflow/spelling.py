"""Spell choices and file names as this engine does, in workflows that were written on another machine.

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
    """Take the engine's spelling. `brought` are the file inputs (node id, name) for which the job brings files."""
    nodes: dict[NodeId, ApiNode] = {}
    findings: list[WorkflowFinding] = []
    for node in graph.nodes.values():
        nodes[node.id] = node
        for _ in range(_MAX_ROUNDS):
            changed_inputs = _respelt(nodes[node.id], catalogue, brought)
            if not changed_inputs:
                break
            findings += [
                _respelt_finding(node, input_name, nodes[node.id].inputs[input_name], input_value)
                for input_name, input_value in changed_inputs.items()
            ]
            nodes[node.id] = replace(node, inputs={**nodes[node.id].inputs, **changed_inputs})
    return Respelt(graph=ApiGraph(nodes=nodes) if findings else graph, findings=tuple(findings))


def _respelt(node: ApiNode, catalogue: Catalogue, brought: Set[tuple[NodeId, str]]) -> dict[str, str]:
    """Return the inputs of a node that the engine spells in another way."""
    definition = catalogue.get(node.class_type)
    if definition is None:
        return {}
    changed_inputs: dict[str, str] = {}
    for input_spec in open_inputs(definition, node.inputs).specs.values():
        input_value = node.inputs.get(input_spec.name)
        if isinstance(input_value, str) and (node.id, input_spec.name) not in brought:
            spelling = _respell_choice(input_value, input_spec, is_file=names_file(node.class_type, input_spec))
            if spelling != input_value:
                changed_inputs[input_spec.name] = spelling
    prefix = node.inputs.get(PREFIX_INPUT)
    # A backslash is an ordinary character of a file's name on Linux, and would give one odd file.
    if is_output(definition) and isinstance(prefix, str) and "\\" in prefix and not _DRIVE.match(prefix):
        changed_inputs[PREFIX_INPUT] = prefix.replace("\\", "/")
    return changed_inputs


def spelling_of(written_name: str, choices: Sequence[JsonValue]) -> str | None:
    """Return the only choice that equals a value but for slashes and case, or None."""
    if written_name in choices:
        return written_name
    same_but_slashes = _matching_choices(written_name.replace("\\", "/"), choices, fold_case=False)
    matching = same_but_slashes or _matching_choices(
        written_name.replace("\\", "/").casefold(), choices, fold_case=True
    )
    return matching[0] if len(matching) == 1 else None


def _respell_choice(input_value: str, input_spec: InputSpec, *, is_file: bool) -> str:
    if input_spec.choices is None:
        return input_value
    spelling = spelling_of(input_value, input_spec.choices)
    if spelling is not None:
        return spelling
    # The engine lists only the top level of its input folder.
    return input_value.replace("\\", "/") if is_file else input_value


def _matching_choices(wanted_key: str, choices: Sequence[JsonValue], *, fold_case: bool) -> list[str]:
    text_choices = [choice for choice in choices if isinstance(choice, str)]
    compared_keys = [text_choice.replace("\\", "/") for text_choice in text_choices]
    return [
        text_choice
        for text_choice, compared_key in zip(text_choices, compared_keys, strict=True)
        if (compared_key.casefold() if fold_case else compared_key) == wanted_key
    ]


def _respelt_finding(node: ApiNode, input_name: str, input_value: InputValue, spelling: str) -> WorkflowFinding:
    return WorkflowFinding(
        code="respelt",
        message=f"this engine spells {input_value!r} as {spelling!r}, and that is used",
        node_id=node.id,
        title=node.title if node.title != node.class_type else None,
        class_type=node.class_type,
        input_name=input_name,
        closest=(spelling,),
        severity="warning",
    )

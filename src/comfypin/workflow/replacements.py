"""Rewrite graphs that name classes which ComfyUI has replaced, as its server does.

Since 0.33 the server does this for prompts in API format whose class is not registered (`app/node_replace_manager.py`),
and `GET /node_replacements` tells which; node packs add theirs. Doing it here lets preflight and `--set` see the real
class, and helps with engines that do not do it yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from comfypin.digest import JsonValue
from comfypin.workflow.findings import WorkflowFinding
from comfypin.workflow.graph import ApiGraph, ApiLink, ApiNode, InputValue
from comfypin.workflow.object_info import Catalogue, EngineCatalogue

# ComfyUI 0.33's own, in the shape of its answer, for engines that are older and for catalogues kept in a file.
_CORE: Mapping[str, JsonValue] = {
    "T2IAdapterLoader": [
        {
            "new_node_id": "ControlNetLoader",
            "input_mapping": [{"new_id": "control_net_name", "old_id": "t2i_adapter_name"}],
        }
    ],
    "Load3DAnimation": [{"new_node_id": "Load3D"}],
    "Preview3DAnimation": [{"new_node_id": "Preview3D"}],
    "SDV_img2vid_Conditioning": [{"new_node_id": "SVD_img2vid_Conditioning"}],
    "ConditioningAverage ": [{"new_node_id": "ConditioningAverage"}],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassReplacement:
    """What replaces a class: its inputs by their new names (None: the same ones), and the outputs that moved."""

    new_class: str
    inputs: Sequence[Mapping[str, JsonValue]] | None
    outputs: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacedGraph:
    """A graph without replaced classes, and a warning for each node that had one."""

    graph: ApiGraph
    findings: tuple[WorkflowFinding, ...] = ()


def replace_classes(graph: ApiGraph, catalogue: Catalogue) -> ReplacedGraph:
    """Replace the classes that the engine lacks, if it or ComfyUI knows a replacement."""
    found_by_node = {node.id: _find_replacement(node.class_type, catalogue) for node in graph.nodes.values()}
    replacements = {
        node_id: class_replacement
        for node_id, class_replacement in found_by_node.items()
        if class_replacement is not None
    }
    if not replacements:
        return ReplacedGraph(graph=graph)
    nodes: dict[str, ApiNode] = {}
    findings: list[WorkflowFinding] = []
    for node in graph.nodes.values():
        moved_inputs = {
            input_name: _move_link(input_value, replacements) for input_name, input_value in node.inputs.items()
        }
        replacement = replacements.get(node.id)
        if replacement is None:
            nodes[node.id] = replace(node, inputs=moved_inputs)
            continue
        nodes[node.id] = replace(
            node, class_type=replacement.new_class, inputs=_rename_inputs(moved_inputs, replacement)
        )
        message = f"the engine has no {node.class_type!r}; {replacement.new_class} replaces it, as in ComfyUI itself"
        findings.append(
            WorkflowFinding(
                code="class_replaced",
                message=message,
                node_id=node.id,
                title=node.title if node.title != node.class_type else None,
                class_type=node.class_type,
                severity="warning",
            )
        )
    return ReplacedGraph(graph=ApiGraph(nodes=nodes), findings=tuple(findings))


def _find_replacement(class_type: str, catalogue: Catalogue) -> ClassReplacement | None:
    # Without a catalogue nothing is known to be missing.
    if not catalogue or class_type in catalogue:
        return None
    engine_replacements = catalogue.replacements if isinstance(catalogue, EngineCatalogue) else {}
    known_replacements = engine_replacements.get(class_type) or _CORE.get(class_type)
    # The server takes the first one, and none if that is not there.
    first_replacement = known_replacements[0] if isinstance(known_replacements, list) and known_replacements else None
    if not isinstance(first_replacement, Mapping):
        return None
    new_class, input_mapping, output_mapping = (
        first_replacement.get("new_node_id"),
        first_replacement.get("input_mapping"),
        first_replacement.get("output_mapping"),
    )
    if not isinstance(new_class, str) or new_class not in catalogue:
        return None
    return ClassReplacement(
        new_class=new_class,
        inputs=[mapping_entry for mapping_entry in input_mapping if isinstance(mapping_entry, Mapping)]
        if isinstance(input_mapping, list)
        else None,
        outputs=_moved_outputs(output_mapping),
    )


def _moved_outputs(output_mapping: JsonValue) -> dict[int, int]:
    moved_slots: dict[int, int] = {}
    for mapping_entry in output_mapping if isinstance(output_mapping, list) else ():
        old_slot, new_slot = (
            (mapping_entry.get("old_idx"), mapping_entry.get("new_idx"))
            if isinstance(mapping_entry, Mapping)
            else (None, None)
        )
        if isinstance(old_slot, int) and isinstance(new_slot, int):
            moved_slots[old_slot] = new_slot
    return moved_slots


def _move_link(input_value: InputValue, replacements: Mapping[str, ClassReplacement]) -> InputValue:
    if not isinstance(input_value, ApiLink) or input_value.node_id not in replacements:
        return input_value
    return ApiLink(
        input_value.node_id, replacements[input_value.node_id].outputs.get(input_value.slot, input_value.slot)
    )


def _rename_inputs(old_inputs: Mapping[str, InputValue], replacement: ClassReplacement) -> dict[str, InputValue]:
    # Without a mapping the server drops every input, and then refuses the node for their absence; the classes that
    # name none have the same inputs as before.
    if replacement.inputs is None:
        return dict(old_inputs)
    renamed_inputs: dict[str, InputValue] = {}
    for mapping_entry in replacement.inputs:
        new_name, old_name = mapping_entry.get("new_id"), mapping_entry.get("old_id")
        if not isinstance(new_name, str):
            continue
        if "set_value" in mapping_entry:
            renamed_inputs[new_name] = mapping_entry["set_value"]
        elif isinstance(old_name, str) and old_name in old_inputs:
            renamed_inputs[new_name] = old_inputs[old_name]
    return renamed_inputs

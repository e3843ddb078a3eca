"""What a user may want to set in a workflow: prompts, seeds, sizes, files, models and the rest, by stable names."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from comfypin.digest import JsonValue
from comfypin.workflow.convert.widgets import is_controlled
from comfypin.workflow.graph import ApiGraph, ApiLink, ApiNode, NodeId
from comfypin.workflow.graph_walk import GraphWalk
from comfypin.workflow.node_inputs import open_inputs
from comfypin.workflow.object_info import Catalogue, InputSpec, is_output, names_file

InputKind = Literal["prompt", "seed", "size", "file", "model", "number", "choice", "flag", "text"]

# The kinds that nearly everybody sets; the others are for those who ask.
MAIN_KINDS: tuple[InputKind, ...] = ("prompt", "seed", "size", "file", "model")

# How samplers call what a picture should show, and what it should not.
_ROLES = ("positive", "negative")
# What people change from job to job; a longer list would bury them among numbers.
_SIZES = frozenset({"width", "height", "batch_size", "length", "megapixels", "frames", "num_frames"})
_MODEL_ENDINGS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx")
# `ckpt_name`, `lora_name`, `clip_name2`: how ComfyUI and most packs name a loader's input.
_LOADER_INPUT = re.compile(r"_name\d*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowInput:
    """One value that can be set: `name` is its stable name, `target` the `NODE.INPUT` it stands for.

    `default` is what the workflow says now, or (`preset`) what its inputs file says. `minimum` and `maximum` are for
    numbers, `choices` for choices. `also` are further inputs that get the same value. `role` tells two prompts apart:
    which input of a sampler it leads to, positive or negative.
    """

    name: str
    node_id: NodeId
    input_name: str
    kind: InputKind
    type: str
    default: JsonValue
    title: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[JsonValue, ...] | None = None
    description: str | None = None
    required: bool = False
    max_length: int | None = None
    preset: bool = False
    also: tuple[tuple[NodeId, str], ...] = ()
    role: str | None = None

    @property
    def target(self) -> str:
        """Return the input as `--set` takes it."""
        return f"{self.node_id}.{self.input_name}"

    @property
    def places(self) -> tuple[tuple[NodeId, str], ...]:
        """Return all inputs that are set, the target first."""
        return ((self.node_id, self.input_name), *self.also)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the input as JSON; keys without a value are left out."""
        known_facts: dict[str, JsonValue] = {
            "name": self.name,
            "target": self.target,
            "kind": self.kind,
            "type": self.type,
            "title": self.title,
            "role": self.role,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "choices": list(self.choices) if self.choices is not None else None,
            "description": self.description,
            "max_length": self.max_length,
            "required": self.required or None,
            "also": [f"{node_id}.{input_name}" for node_id, input_name in self.also] or None,
        }
        return {
            **{fact_name: fact for fact_name, fact in known_facts.items() if fact is not None},
            "default": self.default,
        }


def describe_inputs(graph: ApiGraph, catalogue: Catalogue) -> tuple[WorkflowInput, ...]:
    """List every value of the nodes that the outputs need, prompts and seeds first, by unique and stable names.

    A name is the node's title if somebody gave it one and nothing else of the node is of a main kind, else
    `Title.input` or `Class.input`, else `id.input`.
    """
    settable = [
        (node, input_spec, input_kind)
        for node in _needed_nodes(graph, catalogue)
        for input_spec, input_kind in _settable_specs(node, catalogue.get(node.class_type, {}))
    ]
    unique_names = _unique_names(settable, catalogue)
    consumers = _consumers(graph)
    described = [
        replace(
            _describe_input(node, input_spec, input_kind, input_name),
            role=_role_of(node.id, consumers) if input_kind == "prompt" else None,
        )
        for (node, input_spec, input_kind), input_name in zip(settable, unique_names, strict=True)
    ]
    kind_order: Sequence[InputKind] = (*MAIN_KINDS, "number", "choice", "flag", "text")
    return tuple(sorted(described, key=lambda workflow_input: kind_order.index(workflow_input.kind)))


def is_model_file(input_value: JsonValue) -> bool:
    """Return whether a value is the name of a model file, by its ending."""
    return isinstance(input_value, str) and "\n" not in input_value and input_value.lower().endswith(_MODEL_ENDINGS)


def input_names(inputs: Sequence[WorkflowInput]) -> dict[str, tuple[NodeId, str]]:
    """Return the inputs' names as further targets of `--set`."""
    return {workflow_input.name: (workflow_input.node_id, workflow_input.input_name) for workflow_input in inputs}


def input_schema(inputs: Sequence[WorkflowInput], *, title: str, description: str | None = None) -> JsonValue:
    """Write a JSON Schema (2020-12) of an object that sets these inputs by name, for a typed endpoint."""
    schema: dict[str, JsonValue] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "type": "object",
        "properties": {workflow_input.name: _input_property(workflow_input) for workflow_input in inputs},
        "required": [workflow_input.name for workflow_input in inputs if workflow_input.required],
        "additionalProperties": False,
    }
    return {**schema, "description": description} if description else schema


def _needed_nodes(graph: ApiGraph, catalogue: Catalogue) -> Iterator[ApiNode]:
    outputs = [node.id for node in graph.nodes.values() if is_output(catalogue.get(node.class_type, {}))]
    graph_walk = GraphWalk.from_outputs(graph, outputs, lambda node: (link.node_id for _, link in node.linked_inputs()))
    reached_ids = set(graph_walk.reached)
    return (node for node in graph.nodes.values() if node.id in reached_ids)


def _consumers(graph: ApiGraph) -> Mapping[NodeId, list[tuple[NodeId, str]]]:
    """Return which inputs of which nodes take something of each node."""
    consumers: dict[NodeId, list[tuple[NodeId, str]]] = {}
    for node in graph.nodes.values():
        for input_name, link in node.linked_inputs():
            consumers.setdefault(link.node_id, []).append((node.id, input_name))
    return consumers


def _role_of(prompt_id: NodeId, consumers: Mapping[NodeId, list[tuple[NodeId, str]]]) -> str | None:
    """Return the role of a prompt if it leads to inputs of one role alone, through nodes that know none."""
    roles, seen, unvisited = set(), {prompt_id}, [prompt_id]
    while unvisited:
        for consumer_id, input_name in consumers.get(unvisited.pop(), ()):
            if input_name in _ROLES:
                roles.add(input_name)
            elif consumer_id not in seen:
                seen.add(consumer_id)
                unvisited.append(consumer_id)
    return roles.pop() if len(roles) == 1 else None


def _settable_specs(node: ApiNode, definition: Mapping[str, JsonValue]) -> Iterator[tuple[InputSpec, InputKind]]:
    for input_spec in open_inputs(definition, node.inputs).specs.values():
        input_value = node.inputs.get(input_spec.name)
        if input_spec.name not in node.inputs or isinstance(input_value, ApiLink):
            continue
        input_kind = _input_kind(node.class_type, input_spec, input_value)
        if input_kind is not None:
            yield input_spec, input_kind


def _input_kind(class_type: str, input_spec: InputSpec, input_value: JsonValue) -> InputKind | None:
    if names_file(class_type, input_spec):
        return "file"
    match input_spec.widget_type:
        case "INT":
            return "seed" if is_controlled(input_spec) and "seed" in input_spec.name else _number_kind(input_spec)
        case "FLOAT":
            return _number_kind(input_spec)
        case "BOOLEAN":
            return "flag"
        case "STRING":
            return (
                "prompt" if input_spec.options.get("multiline") or input_spec.options.get("dynamicPrompts") else "text"
            )
        case "COMBO":
            return "model" if _is_model_choice(input_spec, input_value) else "choice"
        case _:
            return None


def _number_kind(input_spec: InputSpec) -> InputKind:
    return "size" if input_spec.name.rpartition(".")[2] in _SIZES else "number"


def _is_model_choice(input_spec: InputSpec, input_value: JsonValue) -> bool:
    # Some loaders also offer choices that are not files (VAELoader: pixel_space), or these alone if there are no files.
    if any(is_model_file(choice) for choice in (input_value, *(input_spec.choices or ()))):
        return True
    # A loader without any file to load has no choices at all.
    return not input_spec.choices and _LOADER_INPUT.search(input_spec.name) is not None


def _unique_names(settable: Sequence[tuple[ApiNode, InputSpec, InputKind]], catalogue: Catalogue) -> list[str]:
    main_counts: dict[NodeId, int] = {}
    for node, _, input_kind in settable:
        main_counts[node.id] = main_counts.get(node.id, 0) + (input_kind in MAIN_KINDS)
    wanted_names = []
    for node, input_spec, input_kind in settable:
        given_title = node.title if node.title and not _is_default(node, catalogue) else None
        # A title alone is the shortest name, but only if it cannot mean another input of the node.
        is_alone = given_title is not None and input_kind in MAIN_KINDS and main_counts[node.id] == 1
        wanted_names.append(
            given_title
            if given_title is not None and is_alone
            else f"{given_title or node.class_type}.{input_spec.name}"
        )
    name_counts: dict[str, int] = {}
    for wanted_name in wanted_names:
        name_counts[wanted_name] = name_counts.get(wanted_name, 0) + 1
    return [
        wanted_name if name_counts[wanted_name] == 1 else f"{node.id}.{input_spec.name}"
        for wanted_name, (node, input_spec, _) in zip(wanted_names, settable, strict=True)
    ]


def _is_default(node: ApiNode, catalogue: Catalogue) -> bool:
    return node.title in (node.class_type, catalogue.get(node.class_type, {}).get("display_name"))


def _describe_input(node: ApiNode, input_spec: InputSpec, input_kind: InputKind, input_name: str) -> WorkflowInput:
    input_value = node.inputs[input_spec.name]
    tooltip = input_spec.options.get("tooltip")
    is_numeric = input_spec.widget_type in ("INT", "FLOAT")
    return WorkflowInput(
        name=input_name,
        node_id=node.id,
        input_name=input_spec.name,
        kind=input_kind,
        type=input_spec.widget_type,
        default=None if isinstance(input_value, ApiLink) else input_value,
        title=node.title,
        minimum=_number(input_spec.options.get("min")) if is_numeric else None,
        maximum=_number(input_spec.options.get("max")) if is_numeric else None,
        choices=tuple(input_spec.choices) if input_spec.choices is not None and input_kind != "file" else None,
        description=tooltip if isinstance(tooltip, str) else None,
    )


def _input_property(workflow_input: WorkflowInput) -> dict[str, JsonValue]:
    schema_types: Mapping[str, JsonValue] = {
        "INT": "integer", "FLOAT": "number", "BOOLEAN": "boolean", "STRING": "string",
    }  # fmt: skip
    known_facts: dict[str, JsonValue] = {
        "title": workflow_input.title,
        "description": workflow_input.description,
        "type": schema_types.get(workflow_input.type, "string" if workflow_input.kind == "file" else None),
        "enum": list(workflow_input.choices) if workflow_input.choices else None,
        "minimum": workflow_input.minimum,
        "maximum": workflow_input.maximum,
        "maxLength": workflow_input.max_length,
        "default": workflow_input.default,
    }
    schema: dict[str, JsonValue] = {fact_name: fact for fact_name, fact in known_facts.items() if fact is not None}
    if workflow_input.kind == "seed":
        plain_schema: dict[str, JsonValue] = {
            fact_name: schema.pop(fact_name) for fact_name in ("type", "minimum", "maximum") if fact_name in schema
        }
        # A seed may also be the word that asks for a new one.
        schema["anyOf"] = [plain_schema, {"const": "random"}]
    return schema


def _number(option_value: JsonValue) -> float | None:
    return option_value if isinstance(option_value, int | float) and not isinstance(option_value, bool) else None

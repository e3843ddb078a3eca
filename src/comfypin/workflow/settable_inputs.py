"""What a user may want to set in a workflow: prompts, seeds, sizes, files, models, and the rest, by stable names."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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

_SIZES = frozenset({"width", "height", "batch_size", "length", "megapixels", "frames", "num_frames"})
_MODEL_ENDINGS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx")
_LOADER_INPUT = re.compile(r"_name\d*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowInput:
    """One value that can be set: `name` is its stable name, `target` the `NODE.INPUT` it stands for.

    `default` is what the workflow says now, or (`preset`) what its inputs file says. `minimum` and `maximum` are for
    numbers, `choices` for choices.
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

    @property
    def target(self) -> str:
        """The input as `--set` takes it."""
        return f"{self.node_id}.{self.input_name}"

    def to_json(self) -> dict[str, JsonValue]:
        """The input for machines; keys without a value are left out."""
        facts: dict[str, JsonValue] = {
            "name": self.name,
            "target": self.target,
            "kind": self.kind,
            "type": self.type,
            "title": self.title,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "choices": list(self.choices) if self.choices is not None else None,
            "description": self.description,
            "max_length": self.max_length,
            "required": self.required or None,
        }
        return {**{name: value for name, value in facts.items() if value is not None}, "default": self.default}


def describe_inputs(graph: ApiGraph, catalogue: Catalogue) -> tuple[WorkflowInput, ...]:
    """Every value of the nodes that the outputs need, prompts and seeds first; names are unique and stable.

    A name is the node's title where somebody gave it one and nothing else of the node is of a main kind, else
    `Title.input` or `Class.input`, else `id.input`.
    """
    found = [
        (node, spec, kind)
        for node in _needed_nodes(graph, catalogue)
        for spec, kind in _settable_specs(node, catalogue.get(node.class_type, {}))
    ]
    names = _unique_names(found, catalogue)
    described = [_describe_input(node, spec, kind, name) for (node, spec, kind), name in zip(found, names, strict=True)]
    order: Sequence[InputKind] = (*MAIN_KINDS, "number", "choice", "flag", "text")
    return tuple(sorted(described, key=lambda one: order.index(one.kind)))


def is_model_file(value: JsonValue) -> bool:
    """Return whether a value is the name of a model file, by its ending."""
    return isinstance(value, str) and "\n" not in value and value.lower().endswith(_MODEL_ENDINGS)


def input_names(inputs: Sequence[WorkflowInput]) -> dict[str, tuple[NodeId, str]]:
    """The inputs' names as further targets of `--set`."""
    return {one.name: (one.node_id, one.input_name) for one in inputs}


def input_schema(inputs: Sequence[WorkflowInput], *, title: str, description: str | None = None) -> JsonValue:
    """A JSON Schema (2020-12) of an object that sets these inputs by name, for a typed endpoint of the workflow."""
    schema: dict[str, JsonValue] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "type": "object",
        "properties": {one.name: _input_property(one) for one in inputs},
        "required": [one.name for one in inputs if one.required],
        "additionalProperties": False,
    }
    return {**schema, "description": description} if description else schema


def _needed_nodes(graph: ApiGraph, catalogue: Catalogue) -> Iterator[ApiNode]:
    outputs = [node.id for node in graph.nodes.values() if is_output(catalogue.get(node.class_type, {}))]
    walk = GraphWalk.from_outputs(graph, outputs, lambda node: (link.node_id for _, link in node.linked_inputs()))
    reached = set(walk.reached)
    return (node for node in graph.nodes.values() if node.id in reached)


def _settable_specs(node: ApiNode, definition: Mapping[str, JsonValue]) -> Iterator[tuple[InputSpec, InputKind]]:
    for spec in open_inputs(definition, node.inputs).specs.values():
        value = node.inputs.get(spec.name)
        if spec.name not in node.inputs or isinstance(value, ApiLink):
            continue
        kind = _input_kind(node.class_type, spec, value)
        if kind is not None:
            yield spec, kind


def _input_kind(class_type: str, spec: InputSpec, value: JsonValue) -> InputKind | None:
    if names_file(class_type, spec):
        return "file"
    match spec.widget_type:
        case "INT":
            return "seed" if is_controlled(spec) and "seed" in spec.name else _number_kind(spec)
        case "FLOAT":
            return _number_kind(spec)
        case "BOOLEAN":
            return "flag"
        case "STRING":
            return "prompt" if spec.options.get("multiline") or spec.options.get("dynamicPrompts") else "text"
        case "COMBO":
            return "model" if _is_model_choice(spec, value) else "choice"
        case _:
            return None


def _number_kind(spec: InputSpec) -> InputKind:
    return "size" if spec.name.rpartition(".")[2] in _SIZES else "number"


def _is_model_choice(spec: InputSpec, value: JsonValue) -> bool:
    # Some loaders offer choices that are no files (VAELoader: pixel_space), and no files where there are none.
    if any(is_model_file(choice) for choice in (value, *(spec.choices or ()))):
        return True
    # A loader without any file to load has no choices at all.
    return not spec.choices and _LOADER_INPUT.search(spec.name) is not None


def _unique_names(found: Sequence[tuple[ApiNode, InputSpec, InputKind]], catalogue: Catalogue) -> list[str]:
    main: dict[NodeId, int] = {}
    for node, _, kind in found:
        main[node.id] = main.get(node.id, 0) + (kind in MAIN_KINDS)
    wished = []
    for node, spec, kind in found:
        given = node.title if node.title and not _is_default(node, catalogue) else None
        alone = given is not None and kind in MAIN_KINDS and main[node.id] == 1
        wished.append(given if given is not None and alone else f"{given or node.class_type}.{spec.name}")
    counts: dict[str, int] = {}
    for name in wished:
        counts[name] = counts.get(name, 0) + 1
    return [
        name if counts[name] == 1 else f"{node.id}.{spec.name}"
        for name, (node, spec, _) in zip(wished, found, strict=True)
    ]


def _is_default(node: ApiNode, catalogue: Catalogue) -> bool:
    return node.title in (node.class_type, catalogue.get(node.class_type, {}).get("display_name"))


def _describe_input(node: ApiNode, spec: InputSpec, kind: InputKind, name: str) -> WorkflowInput:
    value = node.inputs[spec.name]
    tooltip = spec.options.get("tooltip")
    numeric = spec.widget_type in ("INT", "FLOAT")
    return WorkflowInput(
        name=name,
        node_id=node.id,
        input_name=spec.name,
        kind=kind,
        type=spec.widget_type,
        default=None if isinstance(value, ApiLink) else value,
        title=node.title,
        minimum=_number(spec.options.get("min")) if numeric else None,
        maximum=_number(spec.options.get("max")) if numeric else None,
        choices=tuple(spec.choices) if spec.choices is not None and kind != "file" else None,
        description=tooltip if isinstance(tooltip, str) else None,
    )


def _input_property(one: WorkflowInput) -> dict[str, JsonValue]:
    types: Mapping[str, JsonValue] = {
        "INT": "integer", "FLOAT": "number", "BOOLEAN": "boolean", "STRING": "string",
    }  # fmt: skip
    facts: dict[str, JsonValue] = {
        "title": one.title,
        "description": one.description,
        "type": types.get(one.type, "string" if one.kind == "file" else None),
        "enum": list(one.choices) if one.choices else None,
        "minimum": one.minimum,
        "maximum": one.maximum,
        "maxLength": one.max_length,
        "default": one.default,
    }
    schema: dict[str, JsonValue] = {name: value for name, value in facts.items() if value is not None}
    if one.kind == "seed":
        kept: dict[str, JsonValue] = {
            name: schema.pop(name) for name in ("type", "minimum", "maximum") if name in schema
        }
        schema["anyOf"] = [kept, {"const": "random"}]
    return schema


def _number(raw: JsonValue) -> float | None:
    return raw if isinstance(raw, int | float) and not isinstance(raw, bool) else None

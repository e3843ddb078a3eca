"""Compares two engines' node classes, as /object_info gives them, for the workflows that use them (pure)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from comfypin.digest import JsonValue
from comfypin.workflow.graph import ApiGraph
from comfypin.workflow.object_info import Catalogue, InputSpec, input_specs


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassChange:
    """What another engine changes for one node of a workflow; `breaks` if the workflow cannot run there as it is."""

    node: str
    class_name: str
    detail: str
    breaks: bool

    def __str__(self) -> str:
        return f"node {self.node} ({self.class_name}): {self.detail}"

    def to_json(self) -> dict[str, JsonValue]:
        return {"node": self.node, "class": self.class_name, "detail": self.detail, "breaks": self.breaks}


def find_class_changes(graph: ApiGraph, before: Catalogue, after: Catalogue) -> tuple[ClassChange, ...]:
    """Return what changes for the graph's nodes: classes, inputs, choices and outputs."""
    changes: list[ClassChange] = []
    for node_id, node in graph.nodes.items():
        details = _changes_of_node(node.inputs, before.get(node.class_type), after.get(node.class_type))
        changes += [
            ClassChange(node=str(node_id), class_name=node.class_type, detail=detail, breaks=breaks)
            for detail, breaks in details
        ]
    return tuple(changes)


def _changes_of_node(
    values: Mapping[str, object],
    before: Mapping[str, JsonValue] | None,
    after: Mapping[str, JsonValue] | None,
) -> Iterator[tuple[str, bool]]:
    if after is None:
        if before is not None:
            yield "the class is gone", True
        return
    if before is None:
        yield "the class is new", False
        return
    old_inputs, new_inputs = input_specs(before), input_specs(after)
    for input_name, old_input in old_inputs.items():
        if input_name in values and input_name not in new_inputs:
            # ComfyUI ignores inputs that a class does not have, so the prompt runs, with something missing.
            yield f"the input {input_name} is gone", old_input.category == "required"
        elif input_name in new_inputs:
            yield from _changes_of_input(input_name, values, old_input, new_inputs[input_name])
    for input_name, new_input in new_inputs.items():
        if input_name not in old_inputs and input_name not in values and new_input.category == "required":
            yield f"the input {input_name} ({new_input.type}) is new and required", True
    if before.get("output") != after.get("output"):
        yield f"its outputs are {_joined(after.get('output'))} instead of {_joined(before.get('output'))}", True


def _changes_of_input(
    input_name: str, values: Mapping[str, object], old_input: InputSpec, new_input: InputSpec
) -> Iterator[tuple[str, bool]]:
    if input_name not in values:
        if old_input.category == "optional" and new_input.category == "required":
            yield f"the input {input_name} is required now", True
        return
    if old_input.type != new_input.type:
        yield f"the input {input_name} is of the type {new_input.type} instead of {old_input.type}", True
        return
    value = values[input_name]
    # Lists of files differ between machines; what the workflow chose is what counts.
    was_choice = isinstance(value, str | int | float) and value in (old_input.choices or ())
    if was_choice and new_input.choices is not None and value not in new_input.choices:
        yield f"the choice {value!r} of {input_name} is gone", True
    if old_input.options.get("default") != new_input.options.get("default"):
        yield (
            f"the default of {input_name} is {new_input.options.get('default')!r} now; the workflow sets its own",
            False,
        )


def _joined(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) and value else "none"

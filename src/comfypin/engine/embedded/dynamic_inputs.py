"""Resolves inputs that depend on a prompt's values: choices that bring further inputs, and groups that grow.

In a prompt their parts have dotted names (`resize_type.width`, `images.image0`); a node's function gets each group as
one dict: https://docs.comfy.org/custom-nodes/backend/dynamic-inputs
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from comfypin.engine.embedded.declare import NodeInput, NodeValue


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedInput:
    """Pairs an input that this prompt's node really has with the argument path that its value goes to."""

    input: NodeInput
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedInputs:
    """Holds every input that a node has for a prompt's values; `empty_groups` are groups without a member."""

    members: tuple[ResolvedInput, ...]
    empty_groups: tuple[tuple[str, ...], ...] = ()

    def node_inputs(self) -> tuple[NodeInput, ...]:
        """Return the inputs by their dotted names."""
        return tuple(member.input for member in self.members)

    def call_arguments(self, values: Mapping[str, NodeValue]) -> dict[str, Any]:
        """Turn values by dotted name into a call's arguments: the parts of a group become one dict."""
        arguments: dict[str, Any] = {}
        for member in self.members:
            if len(member.path) > 1:
                _put_argument(arguments, member.path, values.get(member.input.name))
            elif member.input.name in values:
                arguments[member.input.name] = values[member.input.name]
        for path in self.empty_groups:
            _put_argument(arguments, path, {})
        return arguments


def resolve_inputs(inputs: Sequence[NodeInput], given_values: Mapping[str, Any]) -> ResolvedInputs:
    """Return the inputs that a class has for these values.

    A missing or unknown choice brings nothing, not even itself, as in ComfyUI: its node fails when it runs.
    """
    empty_groups: list[tuple[str, ...]] = []
    members = tuple(_resolve_members(inputs, given_values, (), empty_groups))
    return ResolvedInputs(members=members, empty_groups=tuple(empty_groups))


def _resolve_members(
    inputs: Sequence[NodeInput],
    given_values: Mapping[str, Any],
    prefix: tuple[str, ...],
    empty_groups: list[tuple[str, ...]],
) -> Iterator[ResolvedInput]:
    """Yield the inputs that these values open up, below a path."""
    for node_input in inputs:
        path = (*prefix, node_input.name)
        if node_input.variants is not None:
            yield from _resolve_choice(node_input, given_values, path, empty_groups)
        elif node_input.growth is not None:
            yield from _resolve_group(node_input, given_values, path, empty_groups)
        else:
            yield ResolvedInput(input=replace(node_input, name=".".join(path)), path=path)


def _resolve_choice(
    node_input: NodeInput, given_values: Mapping[str, Any], path: tuple[str, ...], empty_groups: list[tuple[str, ...]]
) -> Iterator[ResolvedInput]:
    input_name, variants = ".".join(path), node_input.variants or {}
    chosen = given_values.get(input_name)
    if not isinstance(chosen, str) or chosen not in variants:
        return
    yield from _resolve_members(variants[chosen], given_values, path, empty_groups)
    # The choice itself goes into its own group: {"resize_type": "scale width", "width": 40}.
    yield ResolvedInput(input=replace(node_input, name=input_name), path=(*path, node_input.name))


def _resolve_group(
    node_input: NodeInput, given_values: Mapping[str, Any], path: tuple[str, ...], empty_groups: list[tuple[str, ...]]
) -> Iterator[ResolvedInput]:
    """Yield the members of a growing group: those that are required, and those that the prompt gives."""
    growth = node_input.growth
    assert growth is not None
    has_member = False
    for index, member_name in enumerate(growth.member_names()):
        member_path = (*path, member_name)
        input_name = ".".join(member_path)
        needed = index < growth.least and not growth.input.optional
        # The first `least` members are required, so they exist even if the prompt does not give them.
        if input_name in given_values or needed:
            yield ResolvedInput(input=replace(growth.input, name=input_name, optional=not needed), path=member_path)
        has_member = has_member or input_name in given_values
    if not has_member:
        empty_groups.append(path)


def _put_argument(arguments: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    *groups, leaf_name = path
    for group in groups:
        arguments = arguments.setdefault(group, {})
    arguments.setdefault(leaf_name, value)

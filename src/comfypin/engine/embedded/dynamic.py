"""Inputs that depend on what a prompt holds: choices that bring inputs of their own, and groups that grow.

In a prompt their parts have dotted names (`resize_type.width`, `images.image0`); a node's function gets each group as
one dict: https://docs.comfy.org/custom-nodes/backend/dynamic-inputs
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from comfypin.engine.embedded.declare import Input, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenInput:
    """An input that a prompt's node really has, and where its value goes in the call of the node's function."""

    input: Input
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenInputs:
    """Every input that a node has for the values that a prompt gives; `empty` are groups without a member."""

    members: tuple[OpenInput, ...]
    empty: tuple[tuple[str, ...], ...] = ()

    def inputs(self) -> tuple[Input, ...]:
        """Return the inputs by their dotted names."""
        return tuple(each.input for each in self.members)

    def arguments(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """Return values by dotted name as the arguments of a call: the parts of a group are one dict."""
        arguments: dict[str, Any] = {}
        for each in self.members:
            if len(each.path) > 1:
                _put(arguments, each.path, values.get(each.input.name))
            elif each.input.name in values:
                arguments[each.input.name] = values[each.input.name]
        for path in self.empty:
            _put(arguments, path, {})
        return arguments


def open_inputs(inputs: Sequence[Input], given: Mapping[str, Any]) -> OpenInputs:
    """Return the inputs that a class has for these values.

    A choice that is missing or unknown brings nothing, not even itself, as in ComfyUI: its node fails when it runs.
    """
    empty: list[tuple[str, ...]] = []
    members = tuple(_opened(inputs, given, (), empty))
    return OpenInputs(members=members, empty=tuple(empty))


def _opened(
    inputs: Sequence[Input], given: Mapping[str, Any], prefix: tuple[str, ...], empty: list[tuple[str, ...]]
) -> Iterator[OpenInput]:
    for each in inputs:
        path = (*prefix, each.name)
        if each.variants is not None:
            yield from _opened_choice(each, given, path, empty)
        elif each.growth is not None:
            yield from _opened_group(each, given, path, empty)
        else:
            yield OpenInput(input=replace(each, name=".".join(path)), path=path)


def _opened_choice(
    each: Input, given: Mapping[str, Any], path: tuple[str, ...], empty: list[tuple[str, ...]]
) -> Iterator[OpenInput]:
    name, variants = ".".join(path), each.variants or {}
    key = given.get(name)
    if not isinstance(key, str) or key not in variants:
        return
    yield from _opened(variants[key], given, path, empty)
    # The choice itself goes into its own group: {"resize_type": "scale width", "width": 40}.
    yield OpenInput(input=replace(each, name=name), path=(*path, each.name))


def _opened_group(
    each: Input, given: Mapping[str, Any], path: tuple[str, ...], empty: list[tuple[str, ...]]
) -> Iterator[OpenInput]:
    growth = each.growth
    assert growth is not None
    found = False
    for index, member in enumerate(growth.names()):
        place = (*path, member)
        name = ".".join(place)
        needed = index < growth.least and not growth.input.optional
        if name in given or needed:
            yield OpenInput(input=replace(growth.input, name=name, optional=not needed), path=place)
        found = found or name in given
    if not found:
        empty.append(path)


def _put(arguments: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    *groups, last = path
    for group in groups:
        arguments = arguments.setdefault(group, {})
    arguments.setdefault(last, value)

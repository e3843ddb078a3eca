"""How a node class is declared: its inputs, outputs and place in the catalogue, and the function that runs it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from comfypin.digest import JsonValue
from comfypin.engine.embedded.folders import Folders

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Value: TypeAlias = "npt.NDArray[np.float32] | bool | int | float | str | list[Value] | None"
else:
    Value: TypeAlias = object

Options: TypeAlias = Mapping[str, JsonValue]
Choices: TypeAlias = Callable[[Folders], list[str]]

MAX_SIDE = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input of a class: a type with its options, or a choice of values (fixed, or read from the folders)."""

    name: str
    type: str = "COMBO"
    options: Options | None = None
    choices: tuple[str, ...] | Choices | None = None
    optional: bool = False

    def allowed(self, folders: Folders) -> list[str] | None:
        """The values to choose from, or None where any value of the type will do."""
        if self.choices is None:
            return None
        return list(self.choices) if isinstance(self.choices, tuple) else self.choices(folders)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a running node may use besides its inputs.

    `check` raises `Interrupted` where the prompt was interrupted: long loops call it. `graph` and `extra_pnginfo` go
    into the metadata of pictures.
    """

    folders: Folders
    node_id: str
    check: Callable[[], None]
    progress: Callable[[int, int], None]
    graph: Mapping[str, JsonValue] = field(default_factory=dict)
    extra_pnginfo: Mapping[str, JsonValue] | None = None
    metadata: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a node wants shown to the user (its part of the history), beside the values it passes on."""

    ui: Mapping[str, Sequence[JsonValue]]
    values: tuple[Value, ...] = ()


Result: TypeAlias = "tuple[Value, ...] | Shown"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClass:
    """A class of nodes. `modern` classes are those that ComfyUI declares by its newer schema (more catalogue keys).

    `fingerprint` gives a value that changes when the node must run again though its inputs are the same; `complain`
    gives the reason why a value of the named input is refused, or None.
    """

    name: str
    run: Callable[..., Result]
    category: str
    module: str
    display_name: str | None
    inputs: tuple[Input, ...] = ()
    hidden: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    output_lists: tuple[bool, ...] = ()
    description: str = ""
    is_output: bool = False
    takes_lists: bool = False
    modern: bool = False
    experimental: bool = False
    fingerprint: Callable[[Folders, Mapping[str, Value]], str] | None = None
    complaints: Mapping[str, Callable[[Folders, Value], str | None]] = field(default_factory=dict)

    def info(self, folders: Folders) -> dict[str, JsonValue]:
        """This class's entry in /object_info."""
        groups: dict[str, dict[str, JsonValue]] = {
            "required": {each.name: self.config(each, folders) for each in self.inputs if not each.optional},
            "optional": {each.name: self.config(each, folders) for each in self.inputs if each.optional},
            "hidden": dict(self.hidden),
        }
        shown = {group: members for group, members in groups.items() if members or group == "required"}
        names = self.output_names or self.outputs
        entry: dict[str, JsonValue] = {
            "input": shown,
            "input_order": {group: list(members) for group, members in shown.items()},
            "output": list(self.outputs),
            "output_is_list": list(self.output_lists or [False] * len(self.outputs)),
            "output_name": list(names),
            "name": self.name,
            "display_name": self.display_name,
            "description": self.description,
            "python_module": self.module,
            "category": self.category,
            "output_node": self.is_output,
        }
        if self.modern:
            entry |= {"output_tooltips": [None] * len(self.outputs)}
            entry |= {"deprecated": False, "experimental": self.experimental, "api_node": False}
        elif self.experimental:
            entry |= {"experimental": True}
        return entry

    def config(self, each: Input, folders: Folders) -> list[JsonValue]:
        """An input as the catalogue writes it: its type (or its choices), then its options where it has any."""
        allowed = each.allowed(folders)
        if self.modern:
            choice: Options = {} if allowed is None else {"multiselect": False, "options": allowed}
            return [each.type, {**(each.options or {}), **choice}]
        kind: JsonValue = each.type if allowed is None else allowed
        return [kind] if each.options is None else [kind, each.options]


def image(name: str = "image", **options: JsonValue) -> Input:
    """An input that takes pictures."""
    return Input(name=name, type="IMAGE", options=options or None)


def mask(name: str = "mask", *, optional: bool = False) -> Input:
    """An input that takes masks."""
    return Input(name=name, type="MASK", optional=optional)


def whole(name: str, default: int, low: int, high: int, step: int | None = 1, **options: JsonValue) -> Input:
    """A whole number within bounds."""
    steps = {} if step is None else {"step": step}
    return Input(name=name, type="INT", options={"default": default, "min": low, "max": high, **steps, **options})


def number(name: str, default: float, low: float, high: float, step: float) -> Input:
    """A number within bounds."""
    return Input(name=name, type="FLOAT", options={"default": default, "min": low, "max": high, "step": step})


def flag(name: str, *, default: bool) -> Input:
    """A yes or no."""
    return Input(name=name, type="BOOLEAN", options={"default": default})


def choice(name: str, *values: str, **options: JsonValue) -> Input:
    """One of a few values."""
    return Input(name=name, choices=values, options=options or None)

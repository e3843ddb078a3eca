"""How a node class is declared: its inputs, outputs and place in the catalogue, and the function that runs it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from comfypin.digest import JsonValue
from comfypin.engine.embedded.folders import Folders

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Value: TypeAlias = "npt.NDArray[np.float32] | bool | int | float | str | list[Value] | Mapping[str, Value] | None"
else:
    Value: TypeAlias = object

Options: TypeAlias = Mapping[str, JsonValue]
Choices: TypeAlias = Callable[[Folders], list[str]]

MAX_SIDE = 16384
COMBO = "COMBO"
DYNAMIC_CHOICE = "COMFY_DYNAMICCOMBO_V3"
GROWING_GROUP = "COMFY_AUTOGROW_V3"
MATCHING = "COMFY_MATCHTYPE_V3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How a group of inputs grows: `input` again and again, named by the prefix and a number from 0."""

    input: "Input"
    prefix: str
    least: int = 1
    most: int = 10

    def names(self) -> list[str]:
        """Return every name that a member may have."""
        return [f"{self.prefix}{index}" for index in range(self.most)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input of a class: a type with its options, or a choice of values (fixed, or read from the folders).

    `variants` are the further inputs that each value of a dynamic choice brings; `growth` makes it a growing group.
    """

    name: str
    type: str = COMBO
    options: Options | None = None
    choices: tuple[str, ...] | Choices | None = None
    optional: bool = False
    variants: "Mapping[str, tuple[Input, ...]] | None" = None
    growth: Growth | None = None

    @property
    def lazy(self) -> bool:
        """Whether the node that this is linked to runs only if it is asked for."""
        return bool((self.options or {}).get("lazy"))

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
    gives the reason why a value of the named input is refused, or None. `lacking` names the lazy inputs that the node
    needs and does not have yet. The fields after it are shown in the catalogue and change nothing else.
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
    lacking: Callable[[Mapping[str, Value]], Sequence[str]] | None = None
    takes_any_input: bool = False
    deprecated: bool = False
    intermediate: bool = False
    aliases: tuple[str, ...] | None = None
    essentials: str | None = None
    output_tooltips: tuple[str | None, ...] = ()
    output_matches: tuple[str | None, ...] | None = None


def dynamic_choice(name: str, variants: "Mapping[str, tuple[Input, ...]]", **options: JsonValue) -> Input:
    """Return a choice whose values bring further inputs."""
    return Input(name=name, type=DYNAMIC_CHOICE, options=options, variants=variants)


def growing(name: str, each: Input, prefix: str, *, most: int) -> Input:
    """Return a group of one or more inputs of a kind."""
    return Input(name=name, type=GROWING_GROUP, growth=Growth(input=each, prefix=prefix, most=most))


def matching(name: str, template: str, allowed: str = "*", *, lazy: bool = False) -> Input:
    """Return an input whose type is that of all others with the same template; only the page looks at it."""
    lazily: dict[str, JsonValue] = {"lazy": True} if lazy else {}
    return Input(
        name=name,
        type=MATCHING,
        options={**lazily, "template": {"template_id": template, "allowed_types": allowed}},
    )


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


def number(
    name: str, default: float, low: float, high: float, step: float | None = 0.01, **options: JsonValue
) -> Input:
    """A number within bounds."""
    steps = {} if step is None else {"step": step}
    return Input(name=name, type="FLOAT", options={"default": default, "min": low, "max": high, **steps, **options})


def flag(name: str, *, default: bool) -> Input:
    """A yes or no."""
    return Input(name=name, type="BOOLEAN", options={"default": default})


def choice(name: str, *values: str, **options: JsonValue) -> Input:
    """One of a few values."""
    return Input(name=name, choices=values, options=options or None)

"""Declares node classes: inputs, outputs, place in the catalogue, and the function that runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from comfypin.digest import JsonValue
from comfypin.engine.embedded.folders import EngineFolders

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    NodeValue: TypeAlias = (
        "npt.NDArray[np.float32] | bool | int | float | str | list[NodeValue] | Mapping[str, NodeValue] | None"
    )
else:
    NodeValue: TypeAlias = object

Options: TypeAlias = Mapping[str, JsonValue]
Choices: TypeAlias = Callable[[EngineFolders], list[str]]

# ComfyUI's MAX_RESOLUTION.
MAX_SIDE = 16384
COMBO = "COMBO"
# The type names of ComfyUI's newer schema, as they stand in /object_info.
DYNAMIC_CHOICE = "COMFY_DYNAMICCOMBO_V3"
GROWING_GROUP = "COMFY_AUTOGROW_V3"
MATCHING = "COMFY_MATCHTYPE_V3"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputGrowth:
    """Says how a group of inputs grows: `input` again and again, named by the prefix and a number from 0."""

    input: "NodeInput"
    prefix: str
    least: int = 1
    most: int = 10

    def member_names(self) -> list[str]:
        """Return every name that a member may have."""
        return [f"{self.prefix}{index}" for index in range(self.most)]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInput:
    """Declares one input of a class: a type with its options, or a choice of values, fixed or from the folders."""

    name: str
    type: str = COMBO
    options: Options | None = None
    choices: tuple[str, ...] | Choices | None = None
    optional: bool = False
    # The further inputs that each value of a dynamic choice brings.
    variants: "Mapping[str, tuple[NodeInput, ...]] | None" = None
    # Set if the input is a group that grows.
    growth: InputGrowth | None = None

    @property
    def is_lazy(self) -> bool:
        """Return whether the linked node runs only if this node asks for its value."""
        return bool((self.options or {}).get("lazy"))

    def allowed_values(self, folders: EngineFolders) -> list[str] | None:
        """Return the values to choose from, or None if any value of the type will do."""
        if self.choices is None:
            return None
        return list(self.choices) if isinstance(self.choices, tuple) else self.choices(folders)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContext:
    """Gives a running node what it may use besides its inputs."""

    folders: EngineFolders
    node_id: str
    # Raises `ExecutionInterrupted` if the prompt was interrupted; long loops call it.
    check_interrupted: Callable[[], None]
    report_progress: Callable[[int, int], None]
    # The prompt and the workflow, which go into the metadata of pictures.
    graph: Mapping[str, JsonValue] = field(default_factory=dict)
    extra_pnginfo: Mapping[str, JsonValue] | None = None
    metadata: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownResult:
    """Holds what a node shows to the user (its part of the history), and the values it passes on."""

    ui: Mapping[str, Sequence[JsonValue]]
    values: tuple[NodeValue, ...] = ()


NodeResult: TypeAlias = "tuple[NodeValue, ...] | ShownResult"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClass:
    """Declares a class of nodes."""

    name: str
    run: Callable[..., NodeResult]
    category: str
    module: str
    display_name: str | None
    inputs: tuple[NodeInput, ...] = ()
    # What ComfyUI passes without a wire: the prompt and the workflow, for files' metadata.
    hidden: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    # Which outputs are lists, each value of which runs the next node once.
    output_lists: tuple[bool, ...] = ()
    description: str = ""
    is_output: bool = False
    # Called once with whole lists, instead of once for each value.
    takes_lists: bool = False
    # Declared by ComfyUI's newer schema, which has more keys in the catalogue.
    modern: bool = False
    experimental: bool = False
    # Returns a value that changes when the node must run again although its inputs are the same.
    fingerprint: Callable[[EngineFolders, Mapping[str, NodeValue]], str] | None = None
    # By input: returns the reason why a value is refused, or None.
    complaints: Mapping[str, Callable[[EngineFolders, NodeValue], str | None]] = field(default_factory=dict)
    # Returns the lazy inputs that the node needs and does not have yet.
    missing_inputs: Callable[[Mapping[str, NodeValue]], Sequence[str]] | None = None
    # For classes whose inputs the page makes up: every input of a prompt goes to the function.
    takes_any_input: bool = False
    # From here on the fields only appear in the catalogue.
    deprecated: bool = False
    intermediate: bool = False
    aliases: tuple[str, ...] | None = None
    essentials: str | None = None
    output_tooltips: tuple[str | None, ...] = ()
    output_matches: tuple[str | None, ...] | None = None


def dynamic_choice_input(
    input_name: str, variants: "Mapping[str, tuple[NodeInput, ...]]", **options: JsonValue
) -> NodeInput:
    """Declare a choice whose values bring further inputs."""
    return NodeInput(name=input_name, type=DYNAMIC_CHOICE, options=options, variants=variants)


def growing_input(input_name: str, node_input: NodeInput, prefix: str, *, most: int) -> NodeInput:
    """Declare a group of one or more inputs of the same kind."""
    return NodeInput(
        name=input_name, type=GROWING_GROUP, growth=InputGrowth(input=node_input, prefix=prefix, most=most)
    )


def matching_input(input_name: str, template: str, allowed: str = "*", *, lazy: bool = False) -> NodeInput:
    """Declare an input whose type is that of all others with the same template; only the page checks it."""
    lazy_option: dict[str, JsonValue] = {"lazy": True} if lazy else {}
    return NodeInput(
        name=input_name,
        type=MATCHING,
        options={**lazy_option, "template": {"template_id": template, "allowed_types": allowed}},
    )


def image_input(input_name: str = "image", **options: JsonValue) -> NodeInput:
    """Declare an input that takes pictures."""
    return NodeInput(name=input_name, type="IMAGE", options=options or None)


def mask_input(input_name: str = "mask", *, optional: bool = False) -> NodeInput:
    """Declare an input that takes masks."""
    return NodeInput(name=input_name, type="MASK", optional=optional)


def integer_input(
    input_name: str, default: int, minimum: int, maximum: int, step: int | None = 1, **options: JsonValue
) -> NodeInput:
    """Declare a whole number within bounds."""
    step_option = {} if step is None else {"step": step}
    return NodeInput(
        name=input_name,
        type="INT",
        options={"default": default, "min": minimum, "max": maximum, **step_option, **options},
    )


def float_input(
    input_name: str, default: float, minimum: float, maximum: float, step: float | None = 0.01, **options: JsonValue
) -> NodeInput:
    """Declare a number within bounds."""
    step_option = {} if step is None else {"step": step}
    return NodeInput(
        name=input_name,
        type="FLOAT",
        options={"default": default, "min": minimum, "max": maximum, **step_option, **options},
    )


def boolean_input(input_name: str, *, default: bool) -> NodeInput:
    """Declare a yes or no."""
    return NodeInput(name=input_name, type="BOOLEAN", options={"default": default})


def choice_input(input_name: str, *values: str, **options: JsonValue) -> NodeInput:
    """Declare a choice among a few values."""
    return NodeInput(name=input_name, choices=values, options=options or None)

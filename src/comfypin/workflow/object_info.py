"""What /object_info says of node classes, read leniently: third-party nodes put anything into it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from comfypin.digest import JsonValue

Catalogue: TypeAlias = Mapping[str, Mapping[str, JsonValue]]
"""/object_info as it stands: class name -> its inputs, outputs, module, and whether it is an output node."""


class EngineCatalogue(dict[str, Mapping[str, JsonValue]]):
    """A catalogue that an engine gave, with what it says of classes that others replaced (`/node_replacements`)."""

    def __init__(self, classes: Mapping[str, Mapping[str, JsonValue]], replacements: Mapping[str, JsonValue]) -> None:
        super().__init__(classes)
        self.replacements = replacements


Category = Literal["required", "optional"]

# Every type name of ComfyUI's newer schema whose inputs are made while the graph is edited begins like this.
DYNAMIC_PREFIX = "COMFY_"

_UPLOADS = ("image_upload", "video_upload", "audio_upload", "file_upload", "animated_image_upload", "upload")

# Load nodes whose definition does not say that their input names a file, because their own scripts add the button.
_KNOWN_FILE_INPUTS = {
    "LoadImage": "image",
    "LoadImageMask": "image",
    "LoadAudio": "audio",
    "LoadVideo": "file",
    "VHS_LoadVideo": "video",
    "VHS_LoadVideoFFmpeg": "video",
    "VHS_LoadAudioUpload": "audio",
    "LoadLatent": "latent",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """One input of a class: its type (`COMBO` for a choice), the choices where they are known, and its options.

    `opens` tells that the chosen value brings further inputs (a dynamic combo that `workflow.inputs` opened).
    """

    name: str
    type: str
    category: Category
    choices: Sequence[JsonValue] | None
    options: Mapping[str, JsonValue]
    opens: bool = False

    @property
    def widget_type(self) -> str:
        """The type of a value that is written there: an input of several types names the one its widget makes."""
        named = self.options.get("widgetType")
        return named if isinstance(named, str) else self.type

    @property
    def is_dynamic(self) -> bool:
        """Whether the real inputs behind this one are only known to the engine."""
        return self.type.startswith(DYNAMIC_PREFIX)


class NodeDefinition(dict[str, JsonValue]):
    """What /object_info says of one class; every node and every check share its inputs, which are parsed once."""

    @cached_property
    def specs(self) -> Mapping[str, InputSpec]:
        """The inputs of the class, as `input_specs` says."""
        return _parse_inputs(self)


def to_catalogue(object_info: Mapping[str, JsonValue]) -> Catalogue:
    """Return the catalogue that an answer of /object_info holds; what is not a definition is left out."""
    return {name: NodeDefinition(node) for name, node in object_info.items() if isinstance(node, dict)}


def input_specs(definition: Mapping[str, JsonValue]) -> Mapping[str, InputSpec]:
    """The inputs of a class by name, required before optional; what is not an input specification is left out."""
    return definition.specs if isinstance(definition, NodeDefinition) else _parse_inputs(definition)


def _parse_inputs(definition: Mapping[str, JsonValue]) -> dict[str, InputSpec]:
    groups, order = definition.get("input"), definition.get("input_order")
    return read_input_specs(groups, order=order) if isinstance(groups, Mapping) else {}


def read_input_specs(
    groups: Mapping[str, JsonValue], *, order: JsonValue = None, prefix: str = ""
) -> dict[str, InputSpec]:
    """Read `{"required": {...}, "optional": {...}}`, a class's own or those that an option brings, by prefixed name."""
    specs: dict[str, InputSpec] = {}
    categories: tuple[Category, ...] = ("required", "optional")
    for category in categories:
        group = groups.get(category)
        if not isinstance(group, Mapping):
            continue
        for name in _ordered_names(group, order, category):
            spec = read_input(prefix + name, group[name], category)
            if spec is not None:
                specs[spec.name] = spec
    return specs


def output_types(definition: Mapping[str, JsonValue]) -> list[JsonValue] | None:
    """The types of a class's outputs; None where the engine did not say."""
    outputs = definition.get("output")
    return list(outputs) if isinstance(outputs, list | tuple) else None


def is_output(definition: Mapping[str, JsonValue]) -> bool:
    """Whether nodes of this class make ComfyUI run."""
    return definition.get("output_node") is True


def module_of(definition: Mapping[str, JsonValue]) -> str:
    """The Python module that brought the class (`nodes`, `comfy_extras.nodes_x`, `custom_nodes.Pack`); may be empty."""
    module = definition.get("python_module")
    return module if isinstance(module, str) else ""


def is_core(definition: Mapping[str, JsonValue]) -> bool:
    """Whether ComfyUI itself brings the class, so that its validation is known to us."""
    module = module_of(definition)
    return module == "nodes" or module.startswith(("comfy_extras.", "comfy_api_nodes."))


def names_file(class_type: str, spec: InputSpec) -> bool:
    """Whether an input names a file of the engine's input folder that a user may bring along."""
    folder = spec.options.get("image_folder", "input")
    if folder != "input":
        return False
    if any(spec.options.get(key) for key in _UPLOADS):
        return True
    return _KNOWN_FILE_INPUTS.get(class_type) == spec.name


def known_file_input(class_type: str) -> str | None:
    """The input of a well-known load node that names a file, for graphs read without a catalogue."""
    return _KNOWN_FILE_INPUTS.get(class_type)


def _ordered_names(group: Mapping[str, JsonValue], order: JsonValue, category: Category) -> Iterator[str]:
    names = order.get(category) if isinstance(order, Mapping) else None
    listed = [name for name in names if isinstance(name, str)] if isinstance(names, list | tuple) else []
    yield from (name for name in dict.fromkeys(listed) if name in group)
    yield from (name for name in group if name not in set(listed))


def read_input(name: str, raw: JsonValue, category: Category) -> InputSpec | None:
    """Read one input's definition (`["INT", {...}]`); None if it is none."""
    parts: Sequence[JsonValue] = raw if isinstance(raw, list | tuple) else [raw]
    if not parts:
        return None
    options = parts[1] if len(parts) > 1 and isinstance(parts[1], Mapping) else {}
    kind = parts[0]
    if isinstance(kind, list | tuple):
        return InputSpec(name=name, type="COMBO", category=category, choices=kind, options=options)
    if not isinstance(kind, str):
        return None
    listed = options.get("options") if kind == "COMBO" else None
    choices = listed if isinstance(listed, list | tuple) else None
    return InputSpec(name=name, type=kind, category=category, choices=choices, options=options)

"""Reads what /object_info says about node classes, leniently: third-party nodes put anything into it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from comfypin.digest import JsonValue

# The response of /object_info: class name -> its inputs, outputs, module, and whether it is an output node.
Catalogue: TypeAlias = Mapping[str, Mapping[str, JsonValue]]


class EngineCatalogue(dict[str, Mapping[str, JsonValue]]):
    """A catalogue from an engine, with its list of replaced classes (`/node_replacements`)."""

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
    """One input of a class: its type (`COMBO` for a choice), the choices if they are known, and its options.

    `opens` tells that the chosen value brings further inputs (a dynamic combo that `workflow.node_inputs` opened).
    """

    name: str
    type: str
    category: Category
    choices: Sequence[JsonValue] | None
    options: Mapping[str, JsonValue]
    opens: bool = False

    @property
    def widget_type(self) -> str:
        """Return the type of a value that is set there; an input of several types names the one of its widget."""
        widget_type = self.options.get("widgetType")
        return widget_type if isinstance(widget_type, str) else self.type

    @property
    def is_dynamic(self) -> bool:
        """Return whether only the engine knows the real inputs behind this one."""
        return self.type.startswith(DYNAMIC_PREFIX)


class NodeDefinition(dict[str, JsonValue]):
    """Describes one class as /object_info does; all nodes and checks share its inputs, which are parsed once."""

    @cached_property
    def specs(self) -> Mapping[str, InputSpec]:
        """Return the inputs of the class, as `input_specs` does."""
        return _parse_inputs(self)


def to_catalogue(object_info: Mapping[str, JsonValue]) -> Catalogue:
    """Return the catalogue in a response of /object_info, without anything that is not a definition."""
    return {
        input_name: NodeDefinition(definition)
        for input_name, definition in object_info.items()
        if isinstance(definition, dict)
    }


def input_specs(definition: Mapping[str, JsonValue]) -> Mapping[str, InputSpec]:
    """Return the inputs of a class by name, required before optional, without what cannot be read."""
    return definition.specs if isinstance(definition, NodeDefinition) else _parse_inputs(definition)


def _parse_inputs(definition: Mapping[str, JsonValue]) -> dict[str, InputSpec]:
    inputs_by_category, input_order = definition.get("input"), definition.get("input_order")
    return (
        read_input_specs(inputs_by_category, input_order=input_order) if isinstance(inputs_by_category, Mapping) else {}
    )


def read_input_specs(
    inputs_by_category: Mapping[str, JsonValue], *, input_order: JsonValue = None, prefix: str = ""
) -> dict[str, InputSpec]:
    """Read `{"required": {...}, "optional": {...}}`, a class's own or those that an option brings, by prefixed name."""
    input_specs_found: dict[str, InputSpec] = {}
    categories: tuple[Category, ...] = ("required", "optional")
    for category in categories:
        category_inputs = inputs_by_category.get(category)
        if not isinstance(category_inputs, Mapping):
            continue
        for input_name in _ordered_names(category_inputs, input_order, category):
            input_spec = read_input(prefix + input_name, category_inputs[input_name], category)
            if input_spec is not None:
                input_specs_found[input_spec.name] = input_spec
    return input_specs_found


def output_types(definition: Mapping[str, JsonValue]) -> list[JsonValue] | None:
    """Return the types of a class's outputs, or None if the engine does not say."""
    output_list = definition.get("output")
    return list(output_list) if isinstance(output_list, list | tuple) else None


def is_output(definition: Mapping[str, JsonValue]) -> bool:
    """Return whether nodes of this class make ComfyUI run."""
    return definition.get("output_node") is True


def module_of(definition: Mapping[str, JsonValue]) -> str:
    """Return the Python module of the class (`nodes`, `comfy_extras.nodes_x`, `custom_nodes.Pack`), perhaps ""."""
    module_name = definition.get("python_module")
    return module_name if isinstance(module_name, str) else ""


def is_core(definition: Mapping[str, JsonValue]) -> bool:
    """Return whether ComfyUI itself brings the class, so that its validation is known to us."""
    module_name = module_of(definition)
    return module_name == "nodes" or module_name.startswith(("comfy_extras.", "comfy_api_nodes."))


def names_file(class_type: str, input_spec: InputSpec) -> bool:
    """Return whether an input names a file of the engine's input folder that a user may bring along."""
    folder = input_spec.options.get("image_folder", "input")
    if folder != "input":
        return False
    if any(input_spec.options.get(key) for key in _UPLOADS):
        return True
    return _KNOWN_FILE_INPUTS.get(class_type) == input_spec.name


def known_file_input(class_type: str) -> str | None:
    """Return the input of a well-known load node that names a file, for graphs read without a catalogue."""
    return _KNOWN_FILE_INPUTS.get(class_type)


def _ordered_names(
    category_inputs: Mapping[str, JsonValue], input_order: JsonValue, category: Category
) -> Iterator[str]:
    ordered_names = input_order.get(category) if isinstance(input_order, Mapping) else None
    listed_names = (
        [input_name for input_name in ordered_names if isinstance(input_name, str)]
        if isinstance(ordered_names, list | tuple)
        else []
    )
    yield from (input_name for input_name in dict.fromkeys(listed_names) if input_name in category_inputs)
    yield from (input_name for input_name in category_inputs if input_name not in set(listed_names))


def read_input(input_name: str, raw_input: JsonValue, category: Category) -> InputSpec | None:
    """Read one input's definition (`["INT", {...}]`); return None if it is something else."""
    # Some packs leave out the list around a type without options.
    input_parts: Sequence[JsonValue] = raw_input if isinstance(raw_input, list | tuple) else [raw_input]
    if not input_parts:
        return None
    options = input_parts[1] if len(input_parts) > 1 and isinstance(input_parts[1], Mapping) else {}
    type_or_choices = input_parts[0]
    # The older schema writes the choices in the place of the type.
    if isinstance(type_or_choices, list | tuple):
        return InputSpec(name=input_name, type="COMBO", category=category, choices=type_or_choices, options=options)
    if not isinstance(type_or_choices, str):
        return None
    listed_choices = options.get("options") if type_or_choices == "COMBO" else None
    choices = listed_choices if isinstance(listed_choices, list | tuple) else None
    return InputSpec(name=input_name, type=type_or_choices, category=category, choices=choices, options=options)

"""The widgets that ComfyUI's page makes for a class: which values a saved node holds, and which the prompt gets.

A widget can be stored in `widgets_values`, sent in the prompt, both (a plain value), only stored (the control after a
seed, an upload button) or only sent (a preview).
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from comfypin.digest import JsonValue
from comfypin.workflow.convert.page_versions import PageRules
from comfypin.workflow.node_inputs import COMBO, GROWING, MATCHING, default_value, option_specs
from comfypin.workflow.object_info import InputSpec, input_specs, is_core, is_output


class Unset(Enum):
    """Marks a widget without a value: JavaScript's undefined, which JSON leaves out."""

    UNSET = "unset"


UNSET = Unset.UNSET
WidgetValue: TypeAlias = "JsonValue | Unset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Widget:
    """One widget of a class, with its input's definition if it belongs to an input."""

    name: str
    default: WidgetValue
    stored: bool = True
    sent: bool = True
    spec: InputSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageClass:
    """A class as the page knows it: sockets, widgets, outputs by type, and the title.

    A dynamic combo is one widget here, and a growing list one socket: `layout` opens them for a node.
    """

    class_type: str
    title: str
    sockets: tuple[InputSpec, ...]
    widgets: tuple[Widget, ...]
    outputs: tuple[JsonValue, ...]
    specs: Mapping[str, InputSpec]
    core: bool
    is_output: bool


CONTROL = "control_after_generate"
CUSTOM_COMBO = "CustomCombo"

# The page adds a control to these names even if the class does not ask for one.
_SEED_NAMES = ("seed", "noise_seed")
# Any of these options adds an upload button, whose text is saved among the values.
_UPLOADS = ("image_upload", "animated_image_upload", "video_upload", "audio_upload")
_PLAIN = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})

# Classes that the page's own scripts give a preview: a widget that older pages send as an empty text.
_AUDIO_PLAYERS = frozenset({"LoadAudio", "SaveAudio", "PreviewAudio", "SaveAudioMP3", "SaveAudioOpus"})

_BOX: Mapping[str, JsonValue] = {"x": 0, "y": 0, "width": 512, "height": 512}
# Types with a special widget on the page, and what the page sends until somebody uses it.
_SPECIAL: Mapping[str, JsonValue] = {
    "LOAD_3D": "",
    "LOAD_3D_ANIMATION": "",
    "PREVIEW_3D": "",
    "PREVIEW_3D_ANIMATION": "",
    "WEBCAM": "",
    "AUDIO_RECORD": "",
    "MARKDOWN": "",
    "TEXTAREA": "",
    "PAINTER": "",
    "COLOR": "#000000",
    "COLORS": [],
    "BOUNDING_BOX": dict(_BOX),
    "BOUNDING_BOXES": [],
    "CURVE": {"points": [[0, 0], [1, 1]], "interpolation": "monotone_cubic"},
    "RANGE": {"min": 0.0, "max": 1.0},
    "COMPOSITOR": {},
    "CHART": {},
    "GALLERIA": [],
    "VIDEO_EDIT": {
        "trim": {"start_time": 0, "duration": 0},
        "crop": {"x": 0, "y": 0, "width": 0, "height": 0},
    },
    "IMAGECOMPARE": ["", ""],
}
# Classes that the page's own scripts give a further input, and the type of its widget.
_SCRIPTED: Mapping[str, tuple[str, str]] = {
    "Preview3D": ("image", "PREVIEW_3D"),
    "Preview3DAnimation": ("image", "PREVIEW_3D"),
    "SaveGLB": ("image", "PREVIEW_3D"),
}
# The buttons before a 3D scene, which the page stores and sends like values.
_SCENE_BUTTONS: Mapping[str, str] = {
    "upload 3d model": "upload3dmodel",
    "upload extra resources": "uploadExtraResources",
    "clear": "clear",
}


def make_page_class(
    class_type: str, definition: Mapping[str, JsonValue], page_rules: PageRules, *, drawn_names: Set[str] = frozenset()
) -> PageClass:
    """Read a class of /object_info as the page does; `drawn_names` are inputs that a file shows with a widget."""
    specs_by_name = dict(input_specs(definition))
    specs_by_name |= {
        input_name: _draw_socket_widgets(specs_by_name[input_name])
        for input_name in drawn_names
        if input_name in specs_by_name
    }
    possible_titles = (page_rules.titles.get(class_type), definition.get("display_name"), definition.get("name"))
    output_list = definition.get("output")
    return PageClass(
        class_type=class_type,
        title=next((title for title in possible_titles if isinstance(title, str) and title), class_type),
        sockets=tuple(input_spec for input_spec in specs_by_name.values() if not has_widget(input_spec)),
        widgets=tuple(_class_widgets(class_type, specs_by_name, page_rules)),
        outputs=tuple(output_list) if isinstance(output_list, list | tuple) else (),
        specs=specs_by_name,
        core=is_core(definition),
        is_output=is_output(definition),
    )


def _draw_socket_widgets(input_spec: InputSpec) -> InputSpec:
    """Give an input of several plain types the widget of its first type."""
    type_names = [type_part.strip() for type_part in input_spec.type.split(",")]
    if "widgetType" in input_spec.options or not all(widget_type in _PLAIN for widget_type in type_names):
        return input_spec
    return replace(input_spec, options={**input_spec.options, "widgetType": type_names[0]})


def widget_kind(input_spec: InputSpec) -> str:
    """Return the type of an input's widget; an input of several types (`FLOAT,INT`) names it."""
    named_type = input_spec.options.get("widgetType")
    return named_type if isinstance(named_type, str) and named_type else input_spec.type


def has_widget(input_spec: InputSpec) -> bool:
    """Return whether the page makes a widget for an input; the others are sockets."""
    widget_type = widget_kind(input_spec)
    return (widget_type in _PLAIN or widget_type in _SPECIAL or widget_type == COMBO) and not input_spec.options.get(
        "forceInput"
    )


def is_dynamic_socket(input_spec: InputSpec) -> bool:
    """Return whether an input stands for sockets that `node_inputs` knows how to open."""
    return input_spec.type in (GROWING, MATCHING)


def is_controlled(input_spec: InputSpec) -> bool:
    """Return whether a control (fixed, increment, decrement, randomize) follows the input's value."""
    control_option = input_spec.options.get(CONTROL)
    widget_type = widget_kind(input_spec)
    if widget_type == "INT":
        return input_spec.name in _SEED_NAMES if control_option is None else bool(control_option)
    return widget_type in ("FLOAT", "COMBO") and bool(control_option)


def control_name(input_name: str) -> str:
    """Return the name that we give the control that follows an input."""
    return f"{input_name}.{CONTROL}"


def option_items(combo_spec: InputSpec, chosen_option: object) -> Iterator[Widget | InputSpec]:
    """Yield the widgets and sockets that an option of a dynamic combo brings, in the page's order."""
    for input_spec in (option_specs(combo_spec, chosen_option) or {}).values():
        if has_widget(input_spec):
            yield from _input_widgets(input_spec)
        else:
            yield input_spec


def _class_widgets(class_type: str, specs_by_name: Mapping[str, InputSpec], page_rules: PageRules) -> Iterator[Widget]:
    required = [input_spec for input_spec in specs_by_name.values() if input_spec.category == "required"]
    # On the page, `Load3DAdvanced` has none of these buttons.
    has_buttons = class_type != "Load3DAdvanced" and "model_file" in specs_by_name and page_rules.promotes_by_entry
    for input_spec in required:
        if input_spec.type == "LOAD_3D" and has_buttons:
            yield from (
                Widget(name=widget_name, default=button_value) for widget_name, button_value in _SCENE_BUTTONS.items()
            )
        yield from _input_widgets(input_spec)
    if class_type in _SCRIPTED:
        widget_name, scripted_type = _SCRIPTED[class_type]
        if widget_name not in specs_by_name:
            yield Widget(name=widget_name, default=_SPECIAL[scripted_type])
    if page_rules.sends_previews and class_type in _AUDIO_PLAYERS:
        yield Widget(name="audioUI", default="", stored=False)
    if page_rules.sends_previews and class_type == "PreviewAny":
        yield Widget(name="preview", default="", stored=False)
    if any(
        input_spec.options.get(upload_option)
        for input_spec in required
        for upload_option in _UPLOADS
        if widget_kind(input_spec) == "COMBO"
    ):
        yield Widget(name="upload", default=UNSET, sent=False)
    for input_spec in specs_by_name.values():
        if input_spec.category == "optional":
            yield from _input_widgets(input_spec)


def _input_widgets(input_spec: InputSpec) -> Iterator[Widget]:
    if not has_widget(input_spec):
        return
    widget_type = widget_kind(input_spec)
    yield Widget(
        name=input_spec.name,
        default=_widget_default(input_spec, widget_type),
        spec=input_spec,
        stored=widget_type != "IMAGECOMPARE",
    )
    # The page saves the four numbers again behind the box itself; only the box is sent.
    if widget_type == "BOUNDING_BOX":
        yield from (Widget(name=f"{input_spec.name}.{box_side}", default=UNSET, sent=False) for box_side in _BOX)
    remote_option = input_spec.options.get("remote")
    if isinstance(remote_option, Mapping) and remote_option.get("refresh_button"):
        if remote_option.get("control_after_refresh"):
            yield Widget(name=f"{input_spec.name}.auto_refresh", default=False, sent=False)
        yield Widget(name="refresh", default="refresh")
    if is_controlled(input_spec):
        control_option = input_spec.options.get(CONTROL)
        # If the option is text, it names the control's first setting.
        start_control = (
            control_option
            if isinstance(control_option, str) and widget_type != "FLOAT"
            else "fixed"
            if widget_type == "FLOAT"
            else "randomize"
        )
        yield Widget(name=control_name(input_spec.name), default=start_control, sent=False)
        if widget_type == "COMBO":
            yield Widget(name=f"{input_spec.name}.control_filter_list", default="", sent=False)


def _widget_default(input_spec: InputSpec, widget_type: str) -> WidgetValue:
    if widget_type == "IMAGECOMPARE":
        return _SPECIAL[widget_type]
    if widget_type in _SPECIAL:
        return input_spec.options["default"] if input_spec.options.get("default") is not None else _SPECIAL[widget_type]
    page_default = default_value(input_spec)
    # Without choices there is nothing to send: JavaScript's undefined, not null.
    return UNSET if page_default is None and widget_type in ("COMBO", COMBO) else page_default

"""The widgets that ComfyUI's page makes for a class: which values a saved node holds, in which order, and which go out.

A widget can be stored in `widgets_values`, sent in the prompt, both (a plain value), only stored (the control after a
seed, an upload button) or only sent (a preview).
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from comfypin.digest import JsonValue
from comfypin.workflow.convert.pages import PageRules
from comfypin.workflow.node_inputs import COMBO, GROWING, MATCHING, default_value, option_specs
from comfypin.workflow.object_info import InputSpec, input_specs, is_core, is_output


class Unset(Enum):
    """The value of a widget that has none: JavaScript's undefined, which JSON leaves out."""

    UNSET = "unset"


UNSET = Unset.UNSET
WidgetValue: TypeAlias = "JsonValue | Unset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Widget:
    """One widget of a class, with its input's definition where an input lies under it."""

    name: str
    default: WidgetValue
    stored: bool = True
    sent: bool = True
    spec: InputSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageClass:
    """What the page makes of a class: sockets, widgets, outputs by type, and the title.

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

_SEED_NAMES = ("seed", "noise_seed")
_UPLOADS = ("image_upload", "animated_image_upload", "video_upload", "audio_upload")
_PLAIN = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})

# Classes that the page's own scripts give a preview: a widget that older pages send as an empty text.
_AUDIO_PLAYERS = frozenset({"LoadAudio", "SaveAudio", "PreviewAudio", "SaveAudioMP3", "SaveAudioOpus"})

_BOX: Mapping[str, JsonValue] = {"x": 0, "y": 0, "width": 512, "height": 512}
# Types for which the page has a widget of its own, with what it sends as long as nobody used it.
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
    class_type: str, definition: Mapping[str, JsonValue], page: PageRules, *, drawn: Set[str] = frozenset()
) -> PageClass:
    """What the page makes of a class of /object_info; `drawn` are inputs that a file shows with a widget."""
    specs = dict(input_specs(definition))
    specs |= {name: _draw_socket_widgets(specs[name]) for name in drawn if name in specs}
    names = (page.titles.get(class_type), definition.get("display_name"), definition.get("name"))
    outputs = definition.get("output")
    return PageClass(
        class_type=class_type,
        title=next((name for name in names if isinstance(name, str) and name), class_type),
        sockets=tuple(spec for spec in specs.values() if not has_widget(spec)),
        widgets=tuple(_class_widgets(class_type, specs, page)),
        outputs=tuple(outputs) if isinstance(outputs, list | tuple) else (),
        specs=specs,
        core=is_core(definition),
        is_output=is_output(definition),
    )


def _draw_socket_widgets(spec: InputSpec) -> InputSpec:
    """An input of several plain types with the widget of its first one."""
    kinds = [part.strip() for part in spec.type.split(",")]
    if "widgetType" in spec.options or not all(kind in _PLAIN for kind in kinds):
        return spec
    return replace(spec, options={**spec.options, "widgetType": kinds[0]})


def widget_kind(spec: InputSpec) -> str:
    """The type of an input's widget: an input of several types names it (`FLOAT,INT` with the widget of a FLOAT)."""
    named = spec.options.get("widgetType")
    return named if isinstance(named, str) and named else spec.type


def has_widget(spec: InputSpec) -> bool:
    """Whether the page makes a widget for an input; the others are sockets."""
    kind = widget_kind(spec)
    return (kind in _PLAIN or kind in _SPECIAL or kind == COMBO) and not spec.options.get("forceInput")


def is_dynamic_socket(spec: InputSpec) -> bool:
    """Whether an input stands for sockets that this module's reader knows how to open."""
    return spec.type in (GROWING, MATCHING)


def is_controlled(spec: InputSpec) -> bool:
    """Whether a control (fixed, increment, decrement, randomize) follows the input's value."""
    asked = spec.options.get(CONTROL)
    kind = widget_kind(spec)
    if kind == "INT":
        return spec.name in _SEED_NAMES if asked is None else bool(asked)
    return kind in ("FLOAT", "COMBO") and bool(asked)


def control_name(input_name: str) -> str:
    """The name, within our state, of the control that follows an input."""
    return f"{input_name}.{CONTROL}"


def option_items(combo: InputSpec, option: object) -> Iterator[Widget | InputSpec]:
    """The widgets and the sockets that an option of a dynamic combo brings, in the page's order."""
    for spec in (option_specs(combo, option) or {}).values():
        if has_widget(spec):
            yield from _input_widgets(spec)
        else:
            yield spec


def _class_widgets(class_type: str, specs: Mapping[str, InputSpec], page: PageRules) -> Iterator[Widget]:
    required = [spec for spec in specs.values() if spec.category == "required"]
    buttons = class_type != "Load3DAdvanced" and "model_file" in specs and page.promotes_by_entry
    for spec in required:
        if spec.type == "LOAD_3D" and buttons:
            yield from (Widget(name=name, default=value) for name, value in _SCENE_BUTTONS.items())
        yield from _input_widgets(spec)
    if class_type in _SCRIPTED:
        name, kind = _SCRIPTED[class_type]
        if name not in specs:
            yield Widget(name=name, default=_SPECIAL[kind])
    if page.sends_previews and class_type in _AUDIO_PLAYERS:
        yield Widget(name="audioUI", default="", stored=False)
    if page.sends_previews and class_type == "PreviewAny":
        yield Widget(name="preview", default="", stored=False)
    if any(spec.options.get(key) for spec in required for key in _UPLOADS if widget_kind(spec) == "COMBO"):
        yield Widget(name="upload", default=UNSET, sent=False)
    for spec in specs.values():
        if spec.category == "optional":
            yield from _input_widgets(spec)


def _input_widgets(spec: InputSpec) -> Iterator[Widget]:
    if not has_widget(spec):
        return
    kind = widget_kind(spec)
    yield Widget(name=spec.name, default=_widget_default(spec, kind), spec=spec, stored=kind != "IMAGECOMPARE")
    if kind == "BOUNDING_BOX":
        yield from (Widget(name=f"{spec.name}.{side}", default=UNSET, sent=False) for side in _BOX)
    remote = spec.options.get("remote")
    if isinstance(remote, Mapping) and remote.get("refresh_button"):
        if remote.get("control_after_refresh"):
            yield Widget(name=f"{spec.name}.auto_refresh", default=False, sent=False)
        yield Widget(name="refresh", default="refresh")
    if is_controlled(spec):
        asked = spec.options.get(CONTROL)
        # A text says where the control starts.
        start = asked if isinstance(asked, str) and kind != "FLOAT" else "fixed" if kind == "FLOAT" else "randomize"
        yield Widget(name=control_name(spec.name), default=start, sent=False)
        if kind == "COMBO":
            yield Widget(name=f"{spec.name}.control_filter_list", default="", sent=False)


def _widget_default(spec: InputSpec, kind: str) -> WidgetValue:
    if kind == "IMAGECOMPARE":
        return _SPECIAL[kind]
    if kind in _SPECIAL:
        return spec.options["default"] if spec.options.get("default") is not None else _SPECIAL[kind]
    value = default_value(spec)
    return UNSET if value is None and kind in ("COMBO", COMBO) else value

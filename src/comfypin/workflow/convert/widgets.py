"""The widgets that ComfyUI's page makes for a class: which values a saved node holds, in which order, and which go out.

A widget can be stored in `widgets_values`, sent in the prompt, both (a plain value), only stored (the control after a
seed, an upload button) or only sent (a preview).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from comfypin.digest import JsonValue
from comfypin.workflow.catalogue import InputSpec, input_specs, is_core


class Unset(Enum):
    """The value of a widget that has none: JavaScript's undefined, which JSON leaves out."""

    UNSET = "unset"


UNSET = Unset.UNSET
Value: TypeAlias = "JsonValue | Unset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Widget:
    """One widget of a class, with its input's definition where an input lies under it."""

    name: str
    default: Value
    stored: bool = True
    sent: bool = True
    spec: InputSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassShape:
    """What the page makes of a class: sockets, widgets, outputs by type, and the title."""

    class_type: str
    title: str
    sockets: tuple[InputSpec, ...]
    widgets: tuple[Widget, ...]
    outputs: tuple[JsonValue, ...]
    specs: Mapping[str, InputSpec]
    core: bool


CONTROL = "control_after_generate"

_SEED_NAMES = ("seed", "noise_seed")
_UPLOADS = ("image_upload", "animated_image_upload", "video_upload", "audio_upload")
_AUDIO_PLAYERS = frozenset({"LoadAudio", "SaveAudio", "PreviewAudio", "SaveAudioMP3", "SaveAudioOpus"})

# Types for which the page has a widget of its own, with what it sends as long as nobody used it.
_SPECIAL: Mapping[str, JsonValue] = {
    "LOAD_3D": "",
    "LOAD_3D_ANIMATION": "",
    "PREVIEW_3D": "",
    "PREVIEW_3D_ANIMATION": "",
    "WEBCAM": "",
    "AUDIO_RECORD": "",
    "MARKDOWN": "",
    "COLOR": "#000000",
}
# Classes that the page's own scripts give a further input, and the type of its widget.
_SCRIPTED: Mapping[str, tuple[str, str]] = {
    "Preview3D": ("image", "PREVIEW_3D"),
    "Preview3DAnimation": ("image", "PREVIEW_3D"),
    "SaveGLB": ("image", "PREVIEW_3D"),
}

# The page's English names of classes to which the server gives none.
_TITLES: Mapping[str, str] = {
    "ImageBlend": "Image Blend",
    "ImageBlur": "Image Blur",
    "ImageQuantize": "Image Quantize",
    "ImageScaleToTotalPixels": "Scale Image to Total Pixels",
    "ImageSharpen": "Image Sharpen",
}


def class_shape(class_type: str, definition: Mapping[str, JsonValue]) -> ClassShape:
    """What the page makes of a class of /object_info."""
    specs = input_specs(definition)
    names = (definition.get("display_name"), _TITLES.get(class_type), definition.get("name"))
    outputs = definition.get("output")
    return ClassShape(
        class_type=class_type,
        title=next((name for name in names if isinstance(name, str) and name), class_type),
        sockets=tuple(spec for spec in specs.values() if not has_widget(spec)),
        widgets=tuple(_widgets(class_type, specs)),
        outputs=tuple(outputs) if isinstance(outputs, list | tuple) else (),
        specs=specs,
        core=is_core(definition),
    )


def has_widget(spec: InputSpec) -> bool:
    """Whether the page makes a widget for an input; the others are sockets."""
    plain = spec.type in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") or spec.type in _SPECIAL
    return plain and not spec.options.get("forceInput")


def is_controlled(spec: InputSpec) -> bool:
    """Whether a control (fixed, increment, decrement, randomize) follows the input's value."""
    asked = spec.options.get(CONTROL)
    if spec.type == "INT":
        return spec.name in _SEED_NAMES if asked is None else bool(asked)
    return spec.type == "COMBO" and bool(asked)


def control_of(input_name: str) -> str:
    """The name, within our state, of the control that follows an input."""
    return f"{input_name}.{CONTROL}"


def assign(shape: ClassShape, values: Sequence[JsonValue] | Mapping[str, JsonValue] | None) -> dict[str, Value]:
    """The value of every widget after the page loaded a node: what is stored, in order, else the default."""
    state: dict[str, Value] = {widget.name: widget.default for widget in shape.widgets}
    if isinstance(values, Mapping):
        # The page ignores the dict form; packs that write it (VideoHelperSuite) read it by their own scripts.
        if not shape.core:
            state.update({name: values[name] for name in state if name in values})
        return state
    kept = _without_dummies(shape, values or ())
    stored = [widget for widget in shape.widgets if widget.stored]
    state.update({widget.name: value for widget, value in zip(stored, kept, strict=False)})
    sampler = state.get("sampler_name")
    if shape.class_type in ("KSampler", "KSamplerAdvanced") and isinstance(sampler, str):
        state["sampler_name"] = sampler.removeprefix("sample_")
    return state


def _without_dummies(shape: ClassShape, values: Sequence[JsonValue]) -> Sequence[JsonValue]:
    """Old files hold a dummy for every forceInput; the page drops them where the count says that they are there."""
    names = {widget.name for widget in shape.widgets}
    dummies: list[bool] = []
    for spec in shape.specs.values():
        forced = bool(spec.options.get("forceInput"))
        if forced or spec.name in names:
            dummies.extend([forced, False] if spec.options.get(CONTROL) else [forced])
    if any(dummies) and len(dummies) == len(values):
        return [value for value, dummy in zip(values, dummies, strict=True) if not dummy]
    return values


def _widgets(class_type: str, specs: Mapping[str, InputSpec]) -> Iterator[Widget]:
    required = [spec for spec in specs.values() if spec.category == "required"]
    for spec in required:
        yield from _input_widgets(spec)
    if class_type in _SCRIPTED:
        name, kind = _SCRIPTED[class_type]
        if name not in specs:
            yield Widget(name=name, default=_SPECIAL[kind])
    if class_type in _AUDIO_PLAYERS:
        yield Widget(name="audioUI", default="", stored=False)
    if class_type == "PreviewAny":
        yield Widget(name="preview", default="", stored=False)
    if any(spec.options.get(key) for spec in required for key in _UPLOADS):
        yield Widget(name="upload", default=UNSET, sent=False)
    for spec in specs.values():
        if spec.category == "optional":
            yield from _input_widgets(spec)


def _input_widgets(spec: InputSpec) -> Iterator[Widget]:
    if not has_widget(spec):
        return
    yield Widget(name=spec.name, default=_default(spec), spec=spec)
    remote = spec.options.get("remote")
    if isinstance(remote, Mapping) and remote.get("refresh_button"):
        if remote.get("control_after_refresh"):
            yield Widget(name=f"{spec.name}.auto_refresh", default=False, sent=False)
        yield Widget(name="refresh", default="refresh")
    if is_controlled(spec):
        yield Widget(name=control_of(spec.name), default="randomize", sent=False)
        if spec.type == "COMBO":
            yield Widget(name=f"{spec.name}.control_filter_list", default="", sent=False)


def _default(spec: InputSpec) -> Value:
    if "default" in spec.options and (spec.type != "COMBO" or spec.options["default"] is not None):
        return spec.options["default"]
    match spec.type:
        case "INT" | "FLOAT":
            return 0
        case "STRING":
            return ""
        case "BOOLEAN":
            return False
        case "COMBO":
            if spec.options.get("multiselect"):
                return []
            return spec.choices[0] if spec.choices else UNSET
        case kind:
            return _SPECIAL[kind]

"""Saved values for which a class has no widget: placed if it can be told how, else said, never dropped in silence."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from comfypin.digest import JsonValue
from comfypin.workflow.convert.layout import Layout
from comfypin.workflow.convert.shapes import LoadedNode
from comfypin.workflow.convert.ui import BYPASSED, MUTED, UiNode
from comfypin.workflow.convert.widgets import Widget, WidgetValue, is_dynamic_socket
from comfypin.workflow.findings import WorkflowFinding, show_value
from comfypin.workflow.object_info import Catalogue, InputSpec

_DYNAMIC = "COMFY_"
# A row of a list of LoRAs (Power Lora Loader of rgthree), which its class takes as `lora_1`, `lora_2`, ...
_ROW_KEYS = frozenset({"on", "lora", "strength"})
_BOTH_STRENGTHS = "Separate Model & Clip"
# Types that are sockets in every ComfyUI, also if no class of the node list gives them.
_SOCKETS = frozenset(
    {
        "*", "IMAGE", "MASK", "LATENT", "MODEL", "CLIP", "VAE", "CONDITIONING", "CONTROL_NET", "AUDIO", "VIDEO",
        "CLIP_VISION", "CLIP_VISION_OUTPUT", "STYLE_MODEL", "GLIGEN", "UPSCALE_MODEL", "SAMPLER", "SIGMAS", "NOISE",
        "GUIDER", "HOOKS", "MESH", "VOXEL",
    }
)  # fmt: skip
_EMPTY: tuple[JsonValue, ...] = (None, "", [], {})


class SocketTypes:
    """The types that some class gives: an input of any other type cannot be a socket that anything feeds."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    @cached_property
    def given_types(self) -> frozenset[str]:
        """The output types of all classes."""
        outputs = (definition.get("output") for definition in self._catalogue.values())
        kinds = (kind for listed in outputs if isinstance(listed, list | tuple) for kind in listed)
        return frozenset(part.strip() for kind in kinds if isinstance(kind, str) for part in kind.split(","))


def place_values(shape: LoadedNode, sockets: SocketTypes, findings: list[WorkflowFinding]) -> LoadedNode:
    """The shape with values that only a pack's script would place, and findings for those that cannot be."""
    layout = shape.layout
    if layout is None or shape.page_class is None or shape.ui_node.mode in (MUTED, BYPASSED):
        return shape
    unknown = next(_unknown_widgets(shape, layout, sockets), None)
    if unknown is not None:
        findings.append(_refuse_widget(shape, unknown))
        return shape
    if shape.page_class.core:
        # ComfyUI's own page drops what older versions of its classes had, and so do we.
        return shape
    surplus = [value for value in layout.surplus if not _says_nothing(value)]
    named = layout.extra
    if not surplus and not named:
        return shape
    rows = [value for value in surplus if _is_lora_row(value)]
    left = [value for value in surplus if not _is_lora_row(value)]
    placed: dict[str, JsonValue] = {
        f"lora_{number}": _lora_row(row, shape.ui_node)
        for number, row in enumerate(rows, 1)
        if isinstance(row, Mapping)
    }
    placed.update(_named_values(named, shape.ui_node))
    findings.extend(_unplaced_findings(shape, left))
    return replace(shape, layout=_with_values(layout, placed)) if placed else shape


def _unknown_widgets(shape: LoadedNode, layout: Layout, sockets: SocketTypes) -> Iterator[InputSpec]:
    """Inputs of types that are neither sockets nor widgets that we know: what is saved after them would shift."""
    known = shape.page_class
    if known is None or not shape.ui_node.values:
        return
    too_many = not known.core and any(not _is_lora_row(one) and not _says_nothing(one) for one in layout.surplus)
    listed = {slot.name: slot for slot in shape.ui_node.inputs}
    inner = (item for item in layout.inputs if isinstance(item, InputSpec))
    for spec in (*known.sockets, *inner):
        if is_dynamic_socket(spec) or spec.options.get("forceInput"):
            continue
        slot = listed.get(spec.name)
        named = spec.options.get("socketless") or spec.options.get("widgetType")
        # A class of a pack whose script adds a widget: the file draws one, or nothing gives this type and more is saved
        # than has a place.
        kinds = {part.strip() for part in spec.type.split(",")}
        feedable = not _SOCKETS.isdisjoint(kinds) or not sockets.given_types.isdisjoint(kinds)
        drawn = slot is not None and slot.widget and not feedable
        homeless = too_many and slot is None and not feedable
        if named or drawn or homeless or spec.type.startswith(_DYNAMIC):
            yield spec


def _named_values(named: Mapping[str, JsonValue], node: UiNode) -> Iterator[tuple[str, JsonValue]]:
    """Values that were saved with their names; the state of a player on the page (`videopreview`) is no value."""
    for name, value in named.items():
        if isinstance(value, Mapping) and _is_lora_row(value):
            yield name, _lora_row(value, node)
        elif not isinstance(value, list | dict) or not (name.endswith("preview") or _says_nothing(value)):
            yield name, value


def _is_lora_row(value: JsonValue) -> bool:
    return isinstance(value, Mapping) and value.keys() >= _ROW_KEYS


def _lora_row(row: Mapping[str, JsonValue], node: UiNode) -> JsonValue:
    both = node.properties.get("Show Strengths") == _BOTH_STRENGTHS
    kept = {name: value for name, value in row.items() if name != "strengthTwo"}
    if both:
        kept["strengthTwo"] = row.get("strengthTwo") if row.get("strengthTwo") is not None else 1
    return kept


def _says_nothing(value: JsonValue) -> bool:
    """Whether a value holds nothing of the user's: an empty one, or the bare type of a heading."""
    return value in _EMPTY or (isinstance(value, Mapping) and set(value) == {"type"})


def _with_values(layout: Layout, placed: Mapping[str, JsonValue]) -> Layout:
    values: dict[str, WidgetValue] = {**layout.values, **placed}
    widgets = tuple(Widget(name=name, default=None) for name in placed)
    return replace(layout, inputs=(*layout.inputs, *widgets), values=values)


def _unplaced_findings(shape: LoadedNode, values: Sequence[JsonValue]) -> Iterator[WorkflowFinding]:
    if not values:
        return
    listed = ", ".join(show_value(value, width=40) for value in values[:4])
    if not any(isinstance(value, list | dict) for value in values):
        message = f"it holds more saved values than its class has widgets, and these are left out: {listed}"
        yield _values_finding(shape, "values_unplaced", message, certain=False)
        return
    message = (
        f"it holds saved values that only its pack's page script can place ({listed}): "
        "open the workflow on that page, and save it with Export (API)"
    )
    yield _values_finding(shape, "values_unplaced", message, certain=True)


def _refuse_widget(shape: LoadedNode, spec: InputSpec) -> WorkflowFinding:
    message = (
        f"its input {spec.name} is of the type {spec.type}, a widget that is not known here, so it cannot be told "
        "which saved values are whose: open the workflow on ComfyUI's page, and save it with Export (API)"
    )
    return replace(_values_finding(shape, "widget_unknown", message, certain=True), input_name=spec.name)


def _values_finding(shape: LoadedNode, code: str, message: str, *, certain: bool) -> WorkflowFinding:
    return WorkflowFinding(
        code=code,
        message=message,
        node_id=shape.ui_node.id,
        title=shape.title,
        class_type=shape.ui_node.type,
        severity="error" if certain else "warning",
    )

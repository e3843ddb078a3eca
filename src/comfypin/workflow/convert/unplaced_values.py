"""Saved values for which a class has no widget: place them if a rule says where they belong, else report them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from comfypin.digest import JsonValue
from comfypin.workflow.convert.loaded_nodes import LoadedNode
from comfypin.workflow.convert.ui_graph import BYPASSED, MUTED, UiNode
from comfypin.workflow.convert.widget_layout import Layout
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
    """Knows the types that some class outputs: nothing can feed an input of any other type."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    @cached_property
    def given_types(self) -> frozenset[str]:
        """Return the output types of all classes."""
        output_lists = (definition.get("output") for definition in self._catalogue.values())
        type_names = (
            type_name
            for output_list in output_lists
            if isinstance(output_list, list | tuple)
            for type_name in output_list
        )
        return frozenset(
            type_part.strip()
            for type_name in type_names
            if isinstance(type_name, str)
            for type_part in type_name.split(",")
        )


def place_values(loaded_node: LoadedNode, socket_types: SocketTypes, findings: list[WorkflowFinding]) -> LoadedNode:
    """Place the values that only a pack's script would place, and report those that cannot be placed."""
    node_layout = loaded_node.layout
    # What does not run needs no values.
    if node_layout is None or loaded_node.page_class is None or loaded_node.ui_node.mode in (MUTED, BYPASSED):
        return loaded_node
    # First, because behind an unknown widget every further value is in the wrong place.
    unknown_widget = next(_unknown_widgets(loaded_node, node_layout, socket_types), None)
    if unknown_widget is not None:
        findings.append(_refuse_widget(loaded_node, unknown_widget))
        return loaded_node
    if loaded_node.page_class.core:
        # ComfyUI's own page drops what older versions of its classes had, and so do we.
        return loaded_node
    surplus_values = [saved_value for saved_value in node_layout.surplus if not _is_blank(saved_value)]
    named_values = node_layout.extra
    if not surplus_values and not named_values:
        return loaded_node
    lora_rows = [saved_value for saved_value in surplus_values if _is_lora_row(saved_value)]
    other_values = [saved_value for saved_value in surplus_values if not _is_lora_row(saved_value)]
    placed_values: dict[str, JsonValue] = {
        f"lora_{row_number}": _lora_row(lora_row, loaded_node.ui_node)
        for row_number, lora_row in enumerate(lora_rows, 1)
        if isinstance(lora_row, Mapping)
    }
    placed_values.update(_named_values(named_values, loaded_node.ui_node))
    findings.extend(_unplaced_findings(loaded_node, other_values))
    return replace(loaded_node, layout=_with_values(node_layout, placed_values)) if placed_values else loaded_node


def _unknown_widgets(loaded_node: LoadedNode, node_layout: Layout, socket_types: SocketTypes) -> Iterator[InputSpec]:
    """Yield inputs that are neither sockets nor known widgets: the values saved after them would shift."""
    page_class = loaded_node.page_class
    if page_class is None or not loaded_node.ui_node.values:
        return
    too_many = not page_class.core and any(
        not _is_lora_row(surplus_value) and not _is_blank(surplus_value) for surplus_value in node_layout.surplus
    )
    saved_slots = {input_slot.name: input_slot for input_slot in loaded_node.ui_node.inputs}
    option_sockets = (
        widget_or_socket for widget_or_socket in node_layout.inputs if isinstance(widget_or_socket, InputSpec)
    )
    for input_spec in (*page_class.sockets, *option_sockets):
        if is_dynamic_socket(input_spec) or input_spec.options.get("forceInput"):
            continue
        input_slot = saved_slots.get(input_spec.name)
        named_type = input_spec.options.get("socketless") or input_spec.options.get("widgetType")
        # A class of a pack whose script adds a widget: the file draws one, or nothing gives this type and more is saved
        # than has a place.
        type_names = {type_part.strip() for type_part in input_spec.type.split(",")}
        feedable = not _SOCKETS.isdisjoint(type_names) or not socket_types.given_types.isdisjoint(type_names)
        is_drawn = input_slot is not None and input_slot.widget and not feedable
        homeless = too_many and input_slot is None and not feedable
        if named_type or is_drawn or homeless or input_spec.type.startswith(_DYNAMIC):
            yield input_spec


def _named_values(named_values: Mapping[str, JsonValue], ui_node: UiNode) -> Iterator[tuple[str, JsonValue]]:
    """Yield values that were saved by name. The state of a player on the page (`videopreview`) is not a value."""
    for value_name, saved_value in named_values.items():
        if isinstance(saved_value, Mapping) and _is_lora_row(saved_value):
            yield value_name, _lora_row(saved_value, ui_node)
        elif not isinstance(saved_value, list | dict) or not (value_name.endswith("preview") or _is_blank(saved_value)):
            yield value_name, saved_value


def _is_lora_row(saved_value: JsonValue) -> bool:
    return isinstance(saved_value, Mapping) and saved_value.keys() >= _ROW_KEYS


def _lora_row(lora_row: Mapping[str, JsonValue], ui_node: UiNode) -> JsonValue:
    shows_both = ui_node.properties.get("Show Strengths") == _BOTH_STRENGTHS
    kept_values = {
        value_name: saved_value for value_name, saved_value in lora_row.items() if value_name != "strengthTwo"
    }
    if shows_both:
        kept_values["strengthTwo"] = lora_row.get("strengthTwo") if lora_row.get("strengthTwo") is not None else 1
    return kept_values


def _is_blank(saved_value: JsonValue) -> bool:
    """Return whether a value holds nothing of the user's: it is empty, or only the type of a heading."""
    return saved_value in _EMPTY or (isinstance(saved_value, Mapping) and set(saved_value) == {"type"})


def _with_values(node_layout: Layout, placed_values: Mapping[str, JsonValue]) -> Layout:
    widget_values: dict[str, WidgetValue] = {**node_layout.values, **placed_values}
    new_widgets = tuple(Widget(name=value_name, default=None) for value_name in placed_values)
    return replace(node_layout, inputs=(*node_layout.inputs, *new_widgets), values=widget_values)


def _unplaced_findings(loaded_node: LoadedNode, saved_values: Sequence[JsonValue]) -> Iterator[WorkflowFinding]:
    if not saved_values:
        return
    listed_values = ", ".join(show_value(saved_value, width=40) for saved_value in saved_values[:4])
    if not any(isinstance(saved_value, list | dict) for saved_value in saved_values):
        message = f"it holds more saved values than its class has widgets, so these are left out: {listed_values}"
        yield _values_finding(loaded_node, "values_unplaced", message, is_certain=False)
        return
    message = (
        f"it holds saved values that only its pack's page script can place ({listed_values}): "
        "open the workflow on that page, and save it with Export (API)"
    )
    yield _values_finding(loaded_node, "values_unplaced", message, is_certain=True)


def _refuse_widget(loaded_node: LoadedNode, input_spec: InputSpec) -> WorkflowFinding:
    message = (
        f"its input {input_spec.name} has the type {input_spec.type}, whose widget is unknown here, so nobody can tell "
        "which saved value belongs to which widget: open the workflow on ComfyUI's page, and save it with Export (API)"
    )
    return replace(_values_finding(loaded_node, "widget_unknown", message, is_certain=True), input_name=input_spec.name)


def _values_finding(loaded_node: LoadedNode, code: str, message: str, *, is_certain: bool) -> WorkflowFinding:
    return WorkflowFinding(
        code=code,
        message=message,
        node_id=loaded_node.ui_node.id,
        title=loaded_node.title,
        class_type=loaded_node.ui_node.type,
        severity="error" if is_certain else "warning",
    )

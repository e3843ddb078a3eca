"""Nodes that hold a plain value, or show one."""

import json

from comfypin.digest import JsonValue
from comfypin.engine.embedded.declare import NodeClass, NodeContext, NodeInput, NodeResult, NodeValue, ShownResult
from comfypin.engine.embedded.show_values import show_value

# sys.maxsize on a machine with 64 bits, as in ComfyUI's catalogue.
_LARGEST = 9223372036854775807


def hold_value(context: NodeContext, *, value: NodeValue) -> NodeResult:
    """Return the value that was typed in."""
    context.check_interrupted()
    return (value,)


def preview_any(context: NodeContext, *, source: NodeValue = None) -> NodeResult:
    """Show any value as text."""
    context.check_interrupted()
    return ShownResult(ui={"text": (_value_text(source),)})


def preview_any_newer(context: NodeContext, *, source: NodeValue = None) -> NodeResult:
    """Show any value as text, and pass the text on; ComfyUI 0.33 writes lists and objects over several lines."""
    context.check_interrupted()
    shown_text = _value_text(source, indent=4)
    return ShownResult(ui={"text": (shown_text,)}, values=(shown_text,))


def _value_text(source: NodeValue, indent: int | None = None) -> str:
    if source is None:
        return "None"
    if isinstance(source, str):
        return source
    if isinstance(source, bool | int | float):
        return str(source)
    try:
        return json.dumps(source, indent=indent, ensure_ascii=indent is None)
    except TypeError:
        return str(show_value(source))


def _primitive_class(value_type: str, display_name: str, type_name: str, **options: JsonValue) -> NodeClass:
    return NodeClass(
        name=f"Primitive{value_type}",
        display_name=display_name,
        category="utils/primitive",
        module="comfy_extras.nodes_primitive",
        modern=True,
        inputs=(NodeInput(name="value", type=type_name, options=options),),
        outputs=(type_name,),
        run=hold_value,
    )


CLASSES = (
    _primitive_class("Int", "Int", "INT", min=-_LARGEST, max=_LARGEST, control_after_generate=True),
    _primitive_class("Float", "Float", "FLOAT", min=-_LARGEST, max=_LARGEST),
    _primitive_class("String", "String", "STRING", multiline=False),
    _primitive_class("StringMultiline", "String (Multiline)", "STRING", multiline=True),
    _primitive_class("Boolean", "Boolean", "BOOLEAN"),
    NodeClass(
        name="PreviewAny",
        display_name="Preview Any",
        category="utils",
        module="comfy_extras.nodes_preview_any",
        inputs=(NodeInput(name="source", type="*", options={}),),
        is_output=True,
        run=preview_any,
    ),
)

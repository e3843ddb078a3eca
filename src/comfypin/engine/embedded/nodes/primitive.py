"""Nodes that hold a plain value, or show one."""

import json

from comfypin.digest import JsonValue
from comfypin.engine.embedded.declare import Call, Input, NodeClass, Result, Shown, Value
from comfypin.engine.embedded.show import show_value

_LARGEST = 9223372036854775807


def hold(call: Call, *, value: Value) -> Result:
    """The value that was typed in."""
    call.check()
    return (value,)


def preview_any(call: Call, *, source: Value = None) -> Result:
    """Any value as text."""
    call.check()
    return Shown(ui={"text": (_text_of(source),)})


def preview_any_newer(call: Call, *, source: Value = None) -> Result:
    """Show any value as text, and pass the text on; ComfyUI 0.33 writes lists and objects over several lines."""
    call.check()
    text = _text_of(source, indent=4)
    return Shown(ui={"text": (text,)}, values=(text,))


def _text_of(source: Value, indent: int | None = None) -> str:
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


def _held(kind: str, display_name: str, type_name: str, **options: JsonValue) -> NodeClass:
    return NodeClass(
        name=f"Primitive{kind}",
        display_name=display_name,
        category="utils/primitive",
        module="comfy_extras.nodes_primitive",
        modern=True,
        inputs=(Input(name="value", type=type_name, options=options),),
        outputs=(type_name,),
        run=hold,
    )


CLASSES = (
    _held("Int", "Int", "INT", min=-_LARGEST, max=_LARGEST, control_after_generate=True),
    _held("Float", "Float", "FLOAT", min=-_LARGEST, max=_LARGEST),
    _held("String", "String", "STRING", multiline=False),
    _held("StringMultiline", "String (Multiline)", "STRING", multiline=True),
    _held("Boolean", "Boolean", "BOOLEAN"),
    NodeClass(
        name="PreviewAny",
        display_name="Preview Any",
        category="utils",
        module="comfy_extras.nodes_preview_any",
        inputs=(Input(name="source", type="*", options={}),),
        is_output=True,
        run=preview_any,
    ),
)

"""Nodes of ComfyUI 0.33 that choose between values, and that hold a colour or a box."""

from collections.abc import Mapping, Sequence

from comfypin.engine.embedded.declare import (
    MATCHING,
    MAX_SIDE,
    Call,
    Input,
    NodeClass,
    Result,
    Value,
    choice,
    growing,
    matching,
    whole,
)

_COLOUR_LENGTHS = (7, 9)
_WITH_ALPHA = 9


def switch(call: Call, *, switch: bool, on_false: Value, on_true: Value) -> Result:
    """Pass on one of two values."""
    call.check()
    return (on_true if switch else on_false,)


def lacking_branch(values: Mapping[str, Value]) -> Sequence[str]:
    """Return the branch that a switch passes on, unless it is there; the other branch never runs."""
    wanted = "on_true" if values["switch"] else "on_false"
    return () if values.get(wanted) is not None else (wanted,)


def negate(call: Call, *, value: Value) -> Result:
    """Turn any value into a yes or no, and that around."""
    call.check()
    return (not value,)


def all_of(call: Call, *, values: Mapping[str, Value]) -> Result:
    """Tell whether all values are true."""
    call.check()
    return (all(values.values()),)


def any_of(call: Call, *, values: Mapping[str, Value]) -> Result:
    """Tell whether a value is true."""
    call.check()
    return (any(values.values()),)


def custom_combo(call: Call, *, choice: str, index: int = 0, **_: Value) -> Result:
    """Pass on a choice and its place among the options, which the page alone knows."""
    call.check()
    return choice, index


def color_to_rgb(call: Call, *, color: str) -> Result:
    """Take #RRGGBB or #RRGGBBAA apart: the number, the colour as text, the alpha."""
    call.check()
    problem = "Color must be in format #RRGGBB or #RRGGBBAA"
    if len(color) not in _COLOUR_LENGTHS or not color.startswith("#"):
        raise ValueError(problem)
    try:
        int(color[1:], 16)
    except ValueError:
        raise ValueError(problem) from None
    alpha = int(color[7:9], 16) / 255.0 if len(color) == _WITH_ALPHA else 1.0
    return int(color[1:7], 16), color[:7], alpha


def bounding_box(call: Call, *, x: int, y: int, width: int, height: int) -> Result:
    """Hold a place and a size."""
    call.check()
    return ({"x": x, "y": y, "width": width, "height": height},)


_LOGIC = "comfy_extras.nodes_logic"
_ANY = Input(name="value", type="*", options={})
_TRUTH = "Uses Python's rules for truthiness."

CLASSES = (
    NodeClass(
        name="ComfySwitchNode",
        display_name="If/Else Switch",
        category="utilities/logic",
        module=_LOGIC,
        modern=True,
        experimental=True,
        aliases=("if", "then", "switch", "conditional", "branch"),
        inputs=(
            Input(name="switch", type="BOOLEAN"),
            matching("on_false", "switch", lazy=True),
            matching("on_true", "switch", lazy=True),
        ),
        outputs=(MATCHING,),
        output_names=("output",),
        output_matches=("switch",),
        lacking=lacking_branch,
        run=switch,
    ),
    NodeClass(
        name="ComfyNotNode",
        display_name="Not",
        description=f"Logical NOT operation. Returns true if the value is falsy. {_TRUTH}",
        category="utilities/logic",
        module=_LOGIC,
        modern=True,
        aliases=("invert", "toggle", "negate", "flip boolean"),
        inputs=(_ANY,),
        outputs=("BOOLEAN",),
        run=negate,
    ),
    NodeClass(
        name="ComfyAndNode",
        display_name="And",
        description=f"Logical AND operation. Returns true if all of the values are truthy. {_TRUTH}",
        category="utilities/logic",
        module=_LOGIC,
        modern=True,
        aliases=("all", "every"),
        inputs=(growing("values", _ANY, "value", most=10),),
        outputs=("BOOLEAN",),
        run=all_of,
    ),
    NodeClass(
        name="ComfyOrNode",
        display_name="Or",
        description=f"Logical OR operation. Returns true if any of the values are truthy. {_TRUTH}",
        category="utilities/logic",
        module=_LOGIC,
        modern=True,
        aliases=("any", "some"),
        inputs=(growing("values", _ANY, "value", most=10),),
        outputs=("BOOLEAN",),
        run=any_of,
    ),
    NodeClass(
        name="CustomCombo",
        display_name="Custom Combo",
        category="utilities",
        module=_LOGIC,
        modern=True,
        experimental=True,
        inputs=(choice("choice"),),
        outputs=("STRING", "INT"),
        output_names=("STRING", "INDEX"),
        complaints={"choice": lambda _folders, _value: None},
        takes_any_input=True,
        run=custom_combo,
    ),
    NodeClass(
        name="ColorToRGBInt",
        display_name="Color Picker",
        description="Return a color RGB integer value and hexadecimal representation.",
        category="utilities",
        module="comfy_extras.nodes_color",
        modern=True,
        inputs=(Input(name="color", type="COLOR", options={"default": "#ffffff", "socketless": True}),),
        outputs=("INT", "COLOR", "FLOAT"),
        output_names=("rgb_int", "hex", "alpha"),
        run=color_to_rgb,
    ),
    NodeClass(
        name="PrimitiveBoundingBox",
        display_name="Bounding Box",
        category="utilities/primitive",
        module="comfy_extras.nodes_images",
        modern=True,
        inputs=(
            whole("x", 0, 0, MAX_SIDE, None),
            whole("y", 0, 0, MAX_SIDE, None),
            whole("width", 512, 1, MAX_SIDE, None),
            whole("height", 512, 1, MAX_SIDE, None),
        ),
        outputs=("BOUNDING_BOX",),
        run=bounding_box,
    ),
)

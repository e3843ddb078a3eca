"""Nodes of ComfyUI 0.33 that choose between values, and that hold a colour or a box."""

from collections.abc import Mapping, Sequence

from comfypin.engine.embedded.declare import (
    MATCHING,
    MAX_SIDE,
    NodeClass,
    NodeContext,
    NodeInput,
    NodeResult,
    NodeValue,
    choice_input,
    growing_input,
    integer_input,
    matching_input,
)

_COLOUR_LENGTHS = (7, 9)
_WITH_ALPHA = 9


def switch_value(context: NodeContext, *, switch: bool, on_false: NodeValue, on_true: NodeValue) -> NodeResult:
    """Pass on one of two values."""
    context.check_interrupted()
    return (on_true if switch else on_false,)


def lacking_branch(values: Mapping[str, NodeValue]) -> Sequence[str]:
    """Return the branch that a switch passes on, unless it is there; the other branch never runs."""
    target = "on_true" if values["switch"] else "on_false"
    return () if values.get(target) is not None else (target,)


def negate_value(context: NodeContext, *, value: NodeValue) -> NodeResult:
    """Turn any value into a yes or no, and negate it."""
    context.check_interrupted()
    return (not value,)


def all_of(context: NodeContext, *, values: Mapping[str, NodeValue]) -> NodeResult:
    """Return whether all values are true."""
    context.check_interrupted()
    return (all(values.values()),)


def any_of(context: NodeContext, *, values: Mapping[str, NodeValue]) -> NodeResult:
    """Return whether any value is true."""
    context.check_interrupted()
    return (any(values.values()),)


def custom_combo(context: NodeContext, *, choice: str, index: int = 0, **_: NodeValue) -> NodeResult:
    """Pass on a choice and its place among the options, which the page alone knows."""
    context.check_interrupted()
    return choice, index


def color_to_rgb(context: NodeContext, *, color: str) -> NodeResult:
    """Split #RRGGBB or #RRGGBBAA into the number, the colour as text, and the alpha."""
    context.check_interrupted()
    problem = "Color must be in format #RRGGBB or #RRGGBBAA"
    if len(color) not in _COLOUR_LENGTHS or not color.startswith("#"):
        raise ValueError(problem)
    try:
        int(color[1:], 16)
    except ValueError:
        raise ValueError(problem) from None
    alpha = int(color[7:9], 16) / 255.0 if len(color) == _WITH_ALPHA else 1.0
    return int(color[1:7], 16), color[:7], alpha


def bounding_box(context: NodeContext, *, x: int, y: int, width: int, height: int) -> NodeResult:
    """Hold a place and a size."""
    context.check_interrupted()
    return ({"x": x, "y": y, "width": width, "height": height},)


_LOGIC = "comfy_extras.nodes_logic"
_ANY = NodeInput(name="value", type="*", options={})
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
            NodeInput(name="switch", type="BOOLEAN"),
            matching_input("on_false", "switch", lazy=True),
            matching_input("on_true", "switch", lazy=True),
        ),
        outputs=(MATCHING,),
        output_names=("output",),
        output_matches=("switch",),
        missing_inputs=lacking_branch,
        run=switch_value,
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
        run=negate_value,
    ),
    NodeClass(
        name="ComfyAndNode",
        display_name="And",
        description=f"Logical AND operation. Returns true if all of the values are truthy. {_TRUTH}",
        category="utilities/logic",
        module=_LOGIC,
        modern=True,
        aliases=("all", "every"),
        inputs=(growing_input("values", _ANY, "value", most=10),),
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
        inputs=(growing_input("values", _ANY, "value", most=10),),
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
        inputs=(choice_input("choice"),),
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
        inputs=(NodeInput(name="color", type="COLOR", options={"default": "#ffffff", "socketless": True}),),
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
            integer_input("x", 0, 0, MAX_SIDE, None),
            integer_input("y", 0, 0, MAX_SIDE, None),
            integer_input("width", 512, 1, MAX_SIDE, None),
            integer_input("height", 512, 1, MAX_SIDE, None),
        ),
        outputs=("BOUNDING_BOX",),
        run=bounding_box,
    ),
)

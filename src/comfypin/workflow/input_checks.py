"""Check one input against its definition by the rules of ComfyUI's own validation, never more strictly.

A third-party class may bring its own validation, which switches ComfyUI's checks of range, list and link type off and
is not visible in /object_info; what those checks would say of such a class is a warning, and the engine decides.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from comfypin.digest import JsonValue
from comfypin.workflow.graph import ApiLink
from comfypin.workflow.node_inputs import OptionProblem
from comfypin.workflow.object_info import InputSpec, is_core

# Types whose values only another node can make: a value written in their place passes validation and fails later.
_SOCKET_TYPES = frozenset({"IMAGE", "MASK", "LATENT", "MODEL", "CLIP", "VAE", "CONDITIONING", "CONTROL_NET", "AUDIO"})

# Inputs that ComfyUI's page fills by itself when it submits, as (type, input): without a browser there is nothing. An
# empty value passes ComfyUI's validation and fails when the node runs.
_BROWSER_MADE: Mapping[tuple[str, str], str] = {
    ("LOAD_3D", "image"): "the pictures of its 3D scene",
    ("WEBCAM", "image"): "a picture of a camera",
    ("AUDIO_RECORD", "audio"): "a recording",
}

# What a node takes by itself: SaveVideo still runs prompts from before its format brought inputs.
_TAKEN = frozenset({("SaveVideo", "format.codec", "option_missing"), ("SaveVideo", "format", "option_wired")})

# ComfyUI's own classes that check their values by themselves, as /object_info does not tell: all, or some of them.
_ALL_BY_THEMSELVES = frozenset({"CustomCombo", "Load3D", "Load3DAdvanced"})
_SOME_BY_THEMSELVES = frozenset(
    {
        "SelectModelDevice", "SelectCLIPDevice", "SelectVAEDevice", "ModelAttentionBackend", "LoadImageSetNode",
        "TripoConversionNode", "KlingCameraControls",
    }
)  # fmt: skip

RefusalCode = Literal[
    "wrong_type", "too_small", "too_big", "not_in_list", "bad_link", "link_type", "needs_link",
    "option_missing", "option_unknown", "option_wired", "needs_browser",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRefusal:
    """What the validation says against one input; `certain` if ComfyUI itself would refuse it too."""

    code: RefusalCode
    message: str
    certain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassValidation:
    """Says what we know of an engine's validation of one class.

    `core` says that the class is ComfyUI's own, so that its checks are known; `newer` that this engine compares the
    choices of the newer schema too; `own` that the class checks its values by itself.
    """

    core: bool
    newer: bool = False
    own: bool = False

    @classmethod
    def for_class(cls, class_type: str, definition: Mapping[str, JsonValue]) -> "ClassValidation":
        """Tell how a class is validated from its definition, which also tells the engine's version."""
        return cls(
            core=is_core(definition) and class_type not in _SOME_BY_THEMSELVES,
            newer="has_intermediate_output" in definition,
            own=class_type in _ALL_BY_THEMSELVES,
        )


def check_value(input_value: JsonValue, input_spec: InputSpec, validation: ClassValidation) -> InputRefusal | None:
    """Check a value that is written in the graph."""
    if isinstance(input_value, list):
        message = f"a list must be a link (node id, output number), and this one has {len(input_value)} items"
        if len(input_value) == 2:
            message = "a list of two is a link (node id, output number), and this one names no node and output"
        return InputRefusal(code="bad_link", message=message, certain=True)
    # ComfyUI's escape for a list that is a value and not a link.
    if isinstance(input_value, Mapping) and "__value__" in input_value:
        input_value = input_value["__value__"]
    browser_content = _BROWSER_MADE.get((input_spec.type, input_spec.name))
    if browser_content is not None and input_value in ("", None):
        message = (
            f"it takes {browser_content}, which ComfyUI's page makes in the browser when it submits: set a value for it"
        )
        return InputRefusal(code="needs_browser", message=message, certain=validation.core)
    try:
        input_value = _convert_value(input_value, input_spec.type)
    except (TypeError, ValueError, OverflowError):
        message = f"{_show_value(input_value)} is not {_with_article(input_spec.type)}"
        return InputRefusal(code="wrong_type", message=message, certain=True)
    if input_spec.type in _SOCKET_TYPES and input_value is not None:
        message = f"it takes {input_spec.type} from another node, and its value is {_show_value(input_value)}"
        return InputRefusal(code="needs_link", message=message, certain=False)
    if validation.own:
        return None
    return _check_range(input_value, input_spec, is_core_class=validation.core) or _check_choice(
        input_value, input_spec, validation
    )


def check_option(problem: OptionProblem, class_type: str) -> InputRefusal | None:
    """Explain why a dynamic combo opens nothing. ComfyUI queues such a node, and the job fails late."""
    if (class_type, problem.spec.name, problem.code) in _TAKEN:
        return None
    if problem.value is None and problem.spec.category == "optional":
        return None
    late_failure = (
        "ComfyUI does not check this: the node would fail, or do something else, after all the nodes before it have run"
    )
    listed_choices = _list_choices(problem.known_options)
    match problem.code:
        case "option_missing":
            message = f"it needs one of {listed_choices}, and has no value ({late_failure})"
        case "option_wired":
            message = (
                "its option decides which inputs the node has, so it must be a value and not a link: "
                f"one of {listed_choices} ({late_failure})"
            )
        case _:
            message = f"{_show_value(problem.value)} is not one of {listed_choices} ({late_failure})"
    return InputRefusal(code=problem.code, message=message, certain=True)


def check_link(
    node_link: ApiLink, output_types: Sequence[JsonValue] | None, input_spec: InputSpec, *, is_core_class: bool
) -> InputRefusal | None:
    """Check a link to a node whose outputs have these types."""
    if output_types is None:
        return None
    # Negative numbers too: the server indexes a Python list, which takes them.
    if not -len(output_types) <= node_link.slot < len(output_types):
        existing_outputs = f"its outputs are 0 to {len(output_types) - 1}" if output_types else "it has no outputs"
        return InputRefusal(
            code="bad_link",
            message=f"node {node_link.node_id} has no output {node_link.slot}: {existing_outputs}",
            certain=True,
        )
    received = output_types[node_link.slot]
    if _types_meet(received, input_spec):
        return None
    linked_output = f"output {node_link.slot} of node {node_link.node_id}"
    message = f"it takes {input_spec.type}, and {linked_output} gives {_type_name(received)}"
    # Which types a matching socket allows is the page's to check; the server takes all of them.
    return InputRefusal(
        code="link_type", message=message, certain=is_core_class and "template" not in input_spec.options
    )


def _convert_value(input_value: JsonValue, type_name: str) -> JsonValue:
    match type_name:
        case "INT":
            return int(input_value)  # type: ignore[arg-type]  # what it refuses is what ComfyUI refuses
        case "FLOAT":
            return float(input_value)  # type: ignore[arg-type]
        case "STRING":
            return str(input_value)
        case "BOOLEAN":
            return bool(input_value)
        case _:
            return input_value


def _check_range(input_value: JsonValue, input_spec: InputSpec, *, is_core_class: bool) -> InputRefusal | None:
    minimum, maximum = input_spec.options.get("min"), input_spec.options.get("max")
    if not isinstance(input_value, int | float):
        if isinstance(minimum, int | float) or isinstance(maximum, int | float):
            # Of several types (`FLOAT,INT`) ComfyUI converts to none, and then cannot compare.
            message = f"{_show_value(input_value)} is not a number, and the input has a minimum or a maximum"
            return InputRefusal(code="wrong_type", message=message, certain=is_core_class)
        return None
    if isinstance(minimum, int | float) and input_value < minimum:
        return InputRefusal(
            code="too_small", message=f"{input_value} is below the minimum, {minimum}", certain=is_core_class
        )
    if isinstance(maximum, int | float) and input_value > maximum:
        return InputRefusal(
            code="too_big", message=f"{input_value} is above the maximum, {maximum}", certain=is_core_class
        )
    return None


def _check_choice(input_value: JsonValue, input_spec: InputSpec, validation: ClassValidation) -> InputRefusal | None:
    if input_spec.choices is None or input_value in input_spec.choices:
        return None
    if (
        isinstance(input_value, list)
        and input_spec.options.get("multiselect")
        and all(list_item in input_spec.choices for list_item in input_value)
    ):
        return None
    # Choices that the page loads from elsewhere are not the server's.
    checked = "options" not in input_spec.options or validation.newer
    certain = validation.core and checked and not input_spec.options.get("remote")
    if input_spec.choices:
        message = f"{_show_value(input_value)} is not one of {_list_choices(input_spec.choices)}"
    else:
        message = (
            f"{_show_value(input_value)} is not there: this ComfyUI lists nothing for {input_spec.name}; put the file "
            "into a folder that it looks into"
        )
    return InputRefusal(
        code="not_in_list",
        message=message,
        certain=certain,
    )


def _types_meet(received: JsonValue, input_spec: InputSpec) -> bool:
    wanted_type: JsonValue = input_spec.type
    if not isinstance(received, str):
        # An output of choices fits an input of the same choices; ComfyUI compares the two lists, but not with those of
        # the newer schema.
        newer = "options" in input_spec.options
        return input_spec.type in ("COMBO", "*") and (
            input_spec.choices is None or newer or list(input_spec.choices) == received
        )
    if (
        received == wanted_type
        or "*" in (received, wanted_type)
        or input_spec.is_dynamic
        or received.startswith("COMFY_")
    ):
        return True
    own_types = {type_part.strip() for type_part in input_spec.type.split(",")}
    received_types = {type_part.strip() for type_part in received.split(",")}
    return not own_types.isdisjoint(received_types) or "*" in own_types | received_types


def _type_name(received: JsonValue) -> str:
    return received if isinstance(received, str) else "a choice of its own list"


def _list_choices(choices: Sequence[JsonValue]) -> str:
    shown_choices = ", ".join(map(_show_value, choices[:8]))
    if not choices:
        return "the choices, because there are none"
    return shown_choices if len(choices) <= 8 else f"the {len(choices)} choices ({shown_choices}, ...)"


def _show_value(input_value: object) -> str:
    # The words of the user's file, not Python's.
    shown_text = json.dumps(input_value) if input_value is None or isinstance(input_value, bool) else repr(input_value)
    return shown_text if len(shown_text) <= 80 else f"{shown_text[:79]}…"


def _with_article(type_name: str) -> str:
    return f"{'an' if type_name[:1] in 'AEIOU' else 'a'} {type_name}"

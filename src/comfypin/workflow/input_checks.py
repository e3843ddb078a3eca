"""One input against its definition, by the rules of ComfyUI's own validation: never stricter than the server.

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
    """What the validation says against one input; `certain` where ComfyUI itself would refuse it too."""

    code: RefusalCode
    message: str
    certain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassValidation:
    """What is known of an engine's validation of one class.

    `core` says that the class is ComfyUI's own, so that its checks are known; `newer` that this engine compares the
    choices of the newer schema too; `own` that the class checks its values by itself.
    """

    core: bool
    newer: bool = False
    own: bool = False

    @classmethod
    def for_class(cls, class_type: str, definition: Mapping[str, JsonValue]) -> "ClassValidation":
        """Tell the validation of a class by its definition, which also tells the engine's version."""
        return cls(
            core=is_core(definition) and class_type not in _SOME_BY_THEMSELVES,
            newer="has_intermediate_output" in definition,
            own=class_type in _ALL_BY_THEMSELVES,
        )


def check_value(value: JsonValue, spec: InputSpec, validation: ClassValidation) -> InputRefusal | None:
    """Check a value that is written in the graph."""
    if isinstance(value, list):
        message = f"a list must be a link (node id, output number), and this one has {len(value)} items"
        if len(value) == 2:
            message = "a list of two is read as a link (node id, output number), and this one is none"
        return InputRefusal(code="bad_link", message=message, certain=True)
    if isinstance(value, Mapping) and "__value__" in value:
        value = value["__value__"]
    made = _BROWSER_MADE.get((spec.type, spec.name))
    if made is not None and value in ("", None):
        message = f"it takes {made}, which ComfyUI's page makes in a browser when it submits: set a value for it"
        return InputRefusal(code="needs_browser", message=message, certain=validation.core)
    try:
        value = _convert_value(value, spec.type)
    except (TypeError, ValueError, OverflowError):
        message = f"{_show_value(value)} cannot become {_with_article(spec.type)}"
        return InputRefusal(code="wrong_type", message=message, certain=True)
    if spec.type in _SOCKET_TYPES and value is not None:
        message = f"it takes {spec.type} from another node, and {_show_value(value)} is written there"
        return InputRefusal(code="needs_link", message=message, certain=False)
    if validation.own:
        return None
    return _check_range(value, spec, core=validation.core) or _check_choice(value, spec, validation)


def check_option(problem: OptionProblem, class_type: str) -> InputRefusal | None:
    """Say what is wrong with a dynamic combo that opens nothing; ComfyUI itself queues it, and the job fails late."""
    if (class_type, problem.spec.name, problem.code) in _TAKEN:
        return None
    if problem.value is None and problem.spec.category == "optional":
        return None
    late = "ComfyUI does not check this, and the node would fail, or do something else, once all before it has run"
    listed = _list_choices(problem.known_options)
    match problem.code:
        case "option_missing":
            message = f"it needs one of {listed}, and nothing is there ({late})"
        case "option_wired":
            message = f"its option decides which inputs there are, so it must be written, one of {listed} ({late})"
        case _:
            message = f"{_show_value(problem.value)} is not one of {listed} ({late})"
    return InputRefusal(code=problem.code, message=message, certain=True)


def check_link(
    link: ApiLink, outputs: Sequence[JsonValue] | None, spec: InputSpec, *, core: bool
) -> InputRefusal | None:
    """Check a link to a node whose outputs have these types."""
    if outputs is None:
        return None
    if not -len(outputs) <= link.slot < len(outputs):
        has = f"its outputs are 0 to {len(outputs) - 1}" if outputs else "it has no outputs"
        return InputRefusal(
            code="bad_link", message=f"node {link.node_id} has no output {link.slot}: {has}", certain=True
        )
    received = outputs[link.slot]
    if _types_meet(received, spec):
        return None
    message = f"it takes {spec.type}, and output {link.slot} of node {link.node_id} gives {_type_name(received)}"
    # Which types a matching socket allows is the page's to check; the server takes all of them.
    return InputRefusal(code="link_type", message=message, certain=core and "template" not in spec.options)


def _convert_value(value: JsonValue, kind: str) -> JsonValue:
    match kind:
        case "INT":
            return int(value)  # type: ignore[arg-type]  # what it refuses is what ComfyUI refuses
        case "FLOAT":
            return float(value)  # type: ignore[arg-type]
        case "STRING":
            return str(value)
        case "BOOLEAN":
            return bool(value)
        case _:
            return value


def _check_range(value: JsonValue, spec: InputSpec, *, core: bool) -> InputRefusal | None:
    least, most = spec.options.get("min"), spec.options.get("max")
    if not isinstance(value, int | float):
        if isinstance(least, int | float) or isinstance(most, int | float):
            # Of several types (`FLOAT,INT`) ComfyUI converts to none, and then cannot compare.
            message = f"{_show_value(value)} is no number, and the input has a least or a greatest value"
            return InputRefusal(code="wrong_type", message=message, certain=core)
        return None
    if isinstance(least, int | float) and value < least:
        return InputRefusal(code="too_small", message=f"{value} is below the least value, {least}", certain=core)
    if isinstance(most, int | float) and value > most:
        return InputRefusal(code="too_big", message=f"{value} is above the greatest value, {most}", certain=core)
    return None


def _check_choice(value: JsonValue, spec: InputSpec, validation: ClassValidation) -> InputRefusal | None:
    if spec.choices is None or value in spec.choices:
        return None
    if isinstance(value, list) and spec.options.get("multiselect") and all(item in spec.choices for item in value):
        return None
    # Choices that the page loads from elsewhere are not the server's.
    checked = "options" not in spec.options or validation.newer
    certain = validation.core and checked and not spec.options.get("remote")
    return InputRefusal(
        code="not_in_list", message=f"{_show_value(value)} is not one of {_list_choices(spec.choices)}", certain=certain
    )


def _types_meet(received: JsonValue, spec: InputSpec) -> bool:
    wanted: JsonValue = spec.type
    if not isinstance(received, str):
        # An output of choices fits an input of the same choices; ComfyUI compares the two lists, but not with those of
        # the newer schema.
        newer = "options" in spec.options
        return spec.type in ("COMBO", "*") and (spec.choices is None or newer or list(spec.choices) == received)
    if received == wanted or "*" in (received, wanted) or spec.is_dynamic or received.startswith("COMFY_"):
        return True
    ours = {part.strip() for part in spec.type.split(",")}
    theirs = {part.strip() for part in received.split(",")}
    return not ours.isdisjoint(theirs) or "*" in ours | theirs


def _type_name(received: JsonValue) -> str:
    return received if isinstance(received, str) else "a choice of its own list"


def _list_choices(choices: Sequence[JsonValue]) -> str:
    shown = ", ".join(map(_show_value, choices[:8]))
    if not choices:
        return "the choices, for there are none"
    return shown if len(choices) <= 8 else f"the {len(choices)} choices ({shown}, ...)"


def _show_value(value: object) -> str:
    # The words of the user's file, not Python's.
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _with_article(kind: str) -> str:
    return f"{'an' if kind[:1] in 'AEIOU' else 'a'} {kind}"

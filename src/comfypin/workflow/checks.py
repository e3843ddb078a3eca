"""One input against its definition, by the rules of ComfyUI's own validation: never stricter than the server.

A third-party class may bring its own validation, which switches ComfyUI's checks of range, list and link type off and
is not visible in /object_info; what those checks would say of such a class is a warning, and the engine decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from comfypin.digest import JsonValue
from comfypin.workflow.catalogue import InputSpec
from comfypin.workflow.graph import Link

# Types whose values only another node can make: a value written in their place passes validation and fails later.
_SOCKET_TYPES = frozenset({"IMAGE", "MASK", "LATENT", "MODEL", "CLIP", "VAE", "CONDITIONING", "CONTROL_NET", "AUDIO"})

Code = Literal["wrong_type", "too_small", "too_big", "not_in_list", "bad_link", "link_type", "needs_link"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What the validation says against one input; `certain` where ComfyUI itself would refuse it too."""

    code: Code
    message: str
    certain: bool


def check_value(value: JsonValue, spec: InputSpec, *, core: bool) -> Refusal | None:
    """Check a value that is written in the graph."""
    if isinstance(value, list):
        message = f"a list must be a link (node id, output number), and this one has {len(value)} items"
        if len(value) == 2:
            message = "a list of two is read as a link (node id, output number), and this one is none"
        return Refusal(code="bad_link", message=message, certain=True)
    if isinstance(value, Mapping) and "__value__" in value:
        value = value["__value__"]
    try:
        value = _converted(value, spec.type)
    except (TypeError, ValueError, OverflowError):
        message = f"{_shown(value)} cannot become {_an(spec.type)}"
        return Refusal(code="wrong_type", message=message, certain=True)
    if spec.type in _SOCKET_TYPES and value is not None:
        message = f"it takes {spec.type} from another node, and {_shown(value)} is written there"
        return Refusal(code="needs_link", message=message, certain=False)
    return _check_range(value, spec, core=core) or _check_choice(value, spec, core=core)


def check_link(link: Link, outputs: Sequence[JsonValue] | None, spec: InputSpec, *, core: bool) -> Refusal | None:
    """Check a link to a node whose outputs have these types."""
    if outputs is None:
        return None
    if not -len(outputs) <= link.slot < len(outputs):
        has = f"its outputs are 0 to {len(outputs) - 1}" if outputs else "it has no outputs"
        return Refusal(code="bad_link", message=f"node {link.node_id} has no output {link.slot}: {has}", certain=True)
    received = outputs[link.slot]
    if _types_meet(received, spec):
        return None
    message = f"it takes {spec.type}, and output {link.slot} of node {link.node_id} gives {_type_name(received)}"
    return Refusal(code="link_type", message=message, certain=core)


def _converted(value: JsonValue, kind: str) -> JsonValue:
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


def _check_range(value: JsonValue, spec: InputSpec, *, core: bool) -> Refusal | None:
    if not isinstance(value, int | float):
        return None
    least, most = spec.options.get("min"), spec.options.get("max")
    if isinstance(least, int | float) and value < least:
        return Refusal(code="too_small", message=f"{value} is below the least value, {least}", certain=core)
    if isinstance(most, int | float) and value > most:
        return Refusal(code="too_big", message=f"{value} is above the greatest value, {most}", certain=core)
    return None


def _check_choice(value: JsonValue, spec: InputSpec, *, core: bool) -> Refusal | None:
    if spec.choices is None or value in spec.choices:
        return None
    if isinstance(value, list) and spec.options.get("multiselect") and all(item in spec.choices for item in value):
        return None
    # Choices that the page loads from elsewhere are not the server's; those of the newer schema it checks only of late.
    certain = core and not spec.options.get("remote") and "options" not in spec.options
    return Refusal(
        code="not_in_list", message=f"{_shown(value)} is not one of {_choices(spec.choices)}", certain=certain
    )


def _types_meet(received: JsonValue, spec: InputSpec) -> bool:
    wanted: JsonValue = spec.type
    if not isinstance(received, str):
        # An output of choices fits an input of the same choices; ComfyUI compares the two lists.
        return spec.type in ("COMBO", "*") and (spec.choices is None or list(spec.choices) == received)
    if received == wanted or "*" in (received, wanted) or spec.is_dynamic or received.startswith("COMFY_"):
        return True
    ours = {part.strip() for part in spec.type.split(",")}
    theirs = {part.strip() for part in received.split(",")}
    return not ours.isdisjoint(theirs) or "*" in ours | theirs


def _type_name(received: JsonValue) -> str:
    return received if isinstance(received, str) else "a choice of its own list"


def _choices(choices: Sequence[JsonValue]) -> str:
    shown = ", ".join(map(_shown, choices[:8]))
    if not choices:
        return "the choices, for there are none"
    return shown if len(choices) <= 8 else f"the {len(choices)} choices ({shown}, ...)"


def _shown(value: JsonValue) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _an(kind: str) -> str:
    return f"{'an' if kind[:1] in 'AEIOU' else 'a'} {kind}"

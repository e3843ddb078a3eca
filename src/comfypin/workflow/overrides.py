"""Values a job puts in place of the workflow's: `6.text=a cat`, `KSampler.seed=random`."""

import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from comfypin.digest import JsonValue
from comfypin.workflow.errors import OverrideInvalid
from comfypin.workflow.findings import closest_names, did_you_mean, show_value
from comfypin.workflow.graph import ApiGraph, ApiLink, ApiNode, InputValue, NodeId
from comfypin.workflow.node_inputs import (
    COMBO,
    GROWING,
    default_value,
    find_dynamic_combo,
    open_inputs,
    option_names,
    option_specs,
)
from comfypin.workflow.node_targets import candidate_nodes, find_node
from comfypin.workflow.object_info import Catalogue, InputSpec
from comfypin.workflow.spelling import spelling_of

RandomInt: TypeAlias = Callable[[int, int], int]
"""A whole number between two, both included."""

RANDOM = "random"
# The page draws seeds within these, whatever the input's own range allows.
SEED_MIN, SEED_MAX = -(1 << 50), 1 << 50
WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One value to set: `target` is `NODE.INPUT`. `literal` values are JSON already; others were typed as text."""

    target: str
    value: JsonValue
    literal: bool

    def __str__(self) -> str:
        return f"set {self.target}={show_value(self.value)}"


def random_between(low: int, high: int) -> int:
    """A whole number from the machine's own source of randomness."""
    return low + secrets.randbelow(high - low + 1)


def parse_override(text: str) -> Override:
    """Read `NODE.INPUT=VALUE`. Raises `OverrideInvalid`."""
    target, equals, value = text.partition("=")
    if not equals or not target.strip():
        reason = 'it must be NODE.INPUT=VALUE, as in 6.text="a cat" or KSampler.seed=random'
        raise OverrideInvalid(override=f"set {text!r}", reason=reason)
    return Override(target=target.strip(), value=value, literal=False)


def overrides_from_json(values: Mapping[str, JsonValue]) -> tuple[Override, ...]:
    """Read a job's `set`: an object of JSON values by `NODE.INPUT`."""
    return tuple(Override(target=target, value=value, literal=True) for target, value in values.items())


def apply_overrides(
    graph: ApiGraph,
    overrides: Iterable[Override],
    *,
    catalogue: Catalogue | None = None,
    names: Mapping[str, tuple[NodeId, str]] | None = None,
    randint: RandomInt = random_between,
) -> ApiGraph:
    """The graph with the values set, in order. `names` are further targets (those of workflow.inputs.toml).

    An option that brings inputs is set before them, in whichever order they come; the inputs that it newly brings have
    the defaults that ComfyUI's page gives them.

    Raises `OverrideInvalid` for a target that is unknown or ambiguous, and for a value its input cannot take.
    """
    nodes = dict(graph.nodes)
    for wanted in _options_first(overrides, names or {}):
        node_id, input_name = locate_input(ApiGraph(nodes=nodes), wanted, catalogue=catalogue, names=names or {})
        node = nodes[node_id]
        spec = _node_inputs(node, catalogue, input_name).get(input_name)
        value = _input_value(wanted, spec, node.inputs.get(input_name), nodes, randint)
        definition = (catalogue or {}).get(node.class_type, {})
        combo = find_dynamic_combo(definition, node.inputs, input_name) if spec is not None and spec.opens else None
        inputs = _with_option(wanted, combo, node.inputs, value) if combo else {**node.inputs, input_name: value}
        nodes[node_id] = replace(node, inputs=inputs)
    return ApiGraph(nodes=nodes)


def locate_input(
    graph: ApiGraph, wanted: Override, *, catalogue: Catalogue | None, names: Mapping[str, tuple[NodeId, str]]
) -> tuple[NodeId, str]:
    """The node and input an override means; titles and inputs may themselves contain dots."""
    named = names.get(wanted.target)
    if named is not None and named[0] in graph.nodes:
        return named
    parts = wanted.target.split(".")
    splits = [(".".join(parts[:index]), ".".join(parts[index:])) for index in range(len(parts) - 1, 0, -1)]
    if not splits or not all(splits[0]):
        hint = did_you_mean(closest_names(wanted.target, names))
        reason = f"it must name a node and its input, as in 6.text or KSampler.seed{hint}"
        raise OverrideInvalid(override=str(wanted), reason=reason)
    node_name, input_name = next(((node, name) for node, name in splits if candidate_nodes(graph, node)), splits[0])
    node = find_node(graph, node_name, override=str(wanted))
    known = dict.fromkeys([*node.inputs, *_node_inputs(node, catalogue, input_name)])
    if input_name not in known:
        near = _other_option(node, catalogue, input_name) or did_you_mean(closest_names(input_name, known))
        near = near or f"; it has {', '.join(known) or 'no inputs'}"
        reason = f"node {node.id} ({node.class_type}) has no input {input_name!r}{near}"
        raise OverrideInvalid(override=str(wanted), reason=reason)
    return node.id, input_name


def random_seed(spec: InputSpec | None, randint: RandomInt) -> int:
    """A seed within what the input takes and the page draws from."""
    low, high = (spec.options.get("min"), spec.options.get("max")) if spec else (0, SEED_MAX)
    least = max(SEED_MIN, int(low)) if isinstance(low, int | float) else 0
    most = min(SEED_MAX, int(high)) if isinstance(high, int | float) else SEED_MAX
    return randint(least, max(least, most))


def _options_first(overrides: Iterable[Override], names: Mapping[str, tuple[NodeId, str]]) -> list[Override]:
    """The overrides in their order, but each after those of the options that bring its input (`8.format.codec`)."""
    listed = list(overrides)

    def target_of(wanted: Override) -> str:
        return ".".join(names[wanted.target]) if wanted.target in names else wanted.target

    targets = {target_of(wanted) for wanted in listed}

    def options_before(wanted: Override) -> int:
        parts = target_of(wanted).split(".")
        return sum(".".join(parts[:count]) in targets for count in range(1, len(parts)))

    return sorted(listed, key=options_before)


def _node_inputs(node: ApiNode, catalogue: Catalogue | None, wanted: str) -> Mapping[str, InputSpec]:
    """The node's inputs, with the `wanted` one if a list of the node can grow to it."""
    definition = (catalogue or {}).get(node.class_type, {})
    return open_inputs(definition, {wanted: None, **node.inputs}).specs


def _with_option(
    wanted: Override, combo: InputSpec, inputs: Mapping[str, InputValue], value: InputValue
) -> dict[str, InputValue]:
    """The inputs with another option of a dynamic combo: those of the old one go, those that both have stay."""
    if isinstance(value, str):
        value = spelling_of(value, option_names(combo)) or value
    brought = option_specs(combo, value)
    if brought is None:
        names = [str(name) for name in option_names(combo)]
        hint = did_you_mean(closest_names(str(value), names)) or f"; there are {', '.join(names)}"
        raise OverrideInvalid(override=str(wanted), reason=f"{combo.name} has no option {show_value(value)}{hint}")
    changed = {name: old for name, old in inputs.items() if not name.startswith(f"{combo.name}.")}
    changed[combo.name] = value
    waiting = list(brought.values())
    while waiting:
        spec = waiting.pop(0)
        choices = option_names(spec) if spec.type == COMBO else spec.choices
        old, default = inputs.get(spec.name), default_value(spec)
        if spec.name in inputs and (isinstance(old, ApiLink) or choices is None or old in choices):
            changed[spec.name] = old
        elif default is not None and not spec.options.get("forceInput"):
            changed[spec.name] = default
        if spec.type == GROWING:
            changed.update({name: item for name, item in inputs.items() if name.startswith(f"{spec.name}.")})
        if spec.type == COMBO:
            waiting[:0] = (option_specs(spec, changed.get(spec.name)) or {}).values()
    return changed


def _other_option(node: ApiNode, catalogue: Catalogue | None, input_name: str) -> str:
    """Say which option would bring an input that the chosen one does not."""
    parent = input_name.rpartition(".")[0]
    combo = find_dynamic_combo((catalogue or {}).get(node.class_type, {}), node.inputs, parent) if parent else None
    if combo is None:
        return ""
    options = [str(option) for option in option_names(combo) if input_name in (option_specs(combo, option) or {})]
    return f"; it comes with {parent}={' or '.join(options)}, which can be set too" if options else ""


def _input_value(
    wanted: Override,
    spec: InputSpec | None,
    present: InputValue,
    nodes: Mapping[NodeId, ApiNode],
    randint: RandomInt,
) -> InputValue:
    kind = spec.widget_type if spec else _kind_of(present)
    value = wanted.value
    if isinstance(value, str) and value.strip() == RANDOM and kind == "INT":
        return random_seed(spec, randint)
    if isinstance(value, str) and (not wanted.literal or kind in ("INT", "FLOAT", "BOOLEAN")):
        value = _from_text(value, kind, spec)
    link = _as_link(value, nodes)
    if link is not None and kind not in WIDGET_TYPES:
        return link
    if (
        isinstance(present, ApiLink)
        and kind not in WIDGET_TYPES
        and not (spec is None and isinstance(value, str | int))
    ):
        reason = f"the input takes {kind} from another node ({present.node_id}), not a value; set that node's inputs"
        raise OverrideInvalid(override=str(wanted), reason=reason)
    # Without a definition, a whole number may stand where any number is taken.
    _check_kind(wanted, value, "FLOAT" if spec is None and kind == "INT" else kind)
    # A bare list would be read as a link to another node.
    return {"__value__": value} if isinstance(value, list) else value


def _from_text(text: str, kind: str, spec: InputSpec | None) -> JsonValue:
    if kind == "COMBO" and spec is not None and spec.choices is not None and text in spec.choices:
        return text
    try:
        value: JsonValue = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return {"true": True, "false": False}.get(text.strip().casefold(), text) if kind == "BOOLEAN" else text
    match kind:
        case "STRING":
            return value if isinstance(value, str) else text
        case "COMBO":
            known = spec is not None and spec.choices is not None and value in spec.choices
            return value if known or isinstance(value, str) else text
        case _:
            return value


def _check_kind(wanted: Override, value: JsonValue, kind: str) -> None:
    number = isinstance(value, int | float)
    fits = {
        "INT": number and (not isinstance(value, float) or value.is_integer()),
        "FLOAT": number,
        "BOOLEAN": isinstance(value, bool) or value in (0, 1),
        "STRING": isinstance(value, str | int | float),
    }
    words = {
        "INT": 'a whole number, or "random"',
        "FLOAT": "a number",
        "BOOLEAN": "true or false",
        "STRING": "a text",
    }
    if not fits.get(kind, True):
        raise OverrideInvalid(override=str(wanted), reason=f"the input takes {words[kind]}")


def _as_link(value: JsonValue, nodes: Mapping[NodeId, ApiNode]) -> ApiLink | None:
    if isinstance(value, list) and len(value) == 2:
        node_id, slot = value
        if isinstance(node_id, str) and node_id in nodes and isinstance(slot, int) and not isinstance(slot, bool):
            return ApiLink(node_id, slot)
    return None


def _kind_of(present: InputValue) -> str:
    if isinstance(present, bool):
        return "BOOLEAN"
    if isinstance(present, int):
        return "INT"
    if isinstance(present, float):
        return "FLOAT"
    return "STRING" if isinstance(present, str) else "*"


def _refuse_constant(name: str) -> JsonValue:
    raise ValueError(name)

"""Overrides: values that a job sets in the workflow, as in `6.text=a cat` or `KSampler.seed=random`."""

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

# A whole number between two, both included.
RandomInt: TypeAlias = Callable[[int, int], int]

RANDOM = "random"
# The page draws seeds within these, whatever the input's own range allows.
SEED_MIN, SEED_MAX = -(1 << 50), 1 << 50
WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One value to set: `target` is `NODE.INPUT`. A `literal` value is JSON already; others were typed as text."""

    target: str
    value: JsonValue
    literal: bool

    def __str__(self) -> str:
        return f"set {self.target}={show_value(self.value)}"


def random_between(lowest: int, highest: int) -> int:
    """Draw a whole number from the machine's own source of randomness."""
    return lowest + secrets.randbelow(highest - lowest + 1)


def parse_override(assignment: str) -> Override:
    """Read `NODE.INPUT=VALUE`. Raises `OverrideInvalid`."""
    target, equals_sign, typed_value = assignment.partition("=")
    if not equals_sign or not target.strip():
        reason = 'it must be NODE.INPUT=VALUE, as in 6.text="a cat" or KSampler.seed=random'
        raise OverrideInvalid(override=f"set {assignment!r}", reason=reason)
    return Override(target=target.strip(), value=typed_value, literal=False)


def overrides_from_json(values: Mapping[str, JsonValue]) -> tuple[Override, ...]:
    """Read a job's `set`: an object of JSON values by `NODE.INPUT`."""
    return tuple(Override(target=target, value=json_value, literal=True) for target, json_value in values.items())


def apply_overrides(
    graph: ApiGraph,
    overrides: Iterable[Override],
    *,
    catalogue: Catalogue | None = None,
    names: Mapping[str, tuple[NodeId, str]] | None = None,
    randint: RandomInt = random_between,
) -> ApiGraph:
    """Set the values in the graph, in order. `names` are further targets (those of an inputs file).

    An option that brings inputs is set before them, in whichever order they come; the inputs that it newly brings have
    the defaults that ComfyUI's page gives them.

    Raises `OverrideInvalid` for a target that is unknown or ambiguous, and for a value its input cannot take.
    """
    nodes = dict(graph.nodes)
    # Each override sees the graph with those before it, because an option changes which inputs exist.
    for requested in _options_first(overrides, names or {}):
        node_id, input_name = locate_input(ApiGraph(nodes=nodes), requested, catalogue=catalogue, names=names or {})
        node = nodes[node_id]
        input_spec = _node_inputs(node, catalogue, input_name).get(input_name)
        new_value = _input_value(requested, input_spec, node.inputs.get(input_name), nodes, randint)
        definition = (catalogue or {}).get(node.class_type, {})
        combo_spec = (
            find_dynamic_combo(definition, node.inputs, input_name)
            if input_spec is not None and input_spec.opens
            else None
        )
        inputs = (
            _with_option(requested, combo_spec, node.inputs, new_value)
            if combo_spec
            else {**node.inputs, input_name: new_value}
        )
        nodes[node_id] = replace(node, inputs=inputs)
    return ApiGraph(nodes=nodes)


def locate_input(
    graph: ApiGraph, requested: Override, *, catalogue: Catalogue | None, names: Mapping[str, tuple[NodeId, str]]
) -> tuple[NodeId, str]:
    """Return the node and input that an override means; titles and inputs may themselves contain dots."""
    named_input = names.get(requested.target)
    if named_input is not None and named_input[0] in graph.nodes:
        return named_input
    target_parts = requested.target.split(".")
    # The longest node name first: a title with a dot in it would never match otherwise.
    possible_splits = [
        (".".join(target_parts[:index]), ".".join(target_parts[index:]))
        for index in range(len(target_parts) - 1, 0, -1)
    ]
    if not possible_splits or not all(possible_splits[0]):
        hint = did_you_mean(closest_names(requested.target, names))
        reason = f"it must name a node and its input, as in 6.text or KSampler.seed{hint}"
        raise OverrideInvalid(override=str(requested), reason=reason)
    node_name, input_name = next(
        ((node, split_input) for node, split_input in possible_splits if candidate_nodes(graph, node)),
        possible_splits[0],
    )
    node = find_node(graph, node_name, override=str(requested))
    known_inputs = dict.fromkeys([*node.inputs, *_node_inputs(node, catalogue, input_name)])
    if input_name not in known_inputs:
        suggestion = _other_option(node, catalogue, input_name) or did_you_mean(closest_names(input_name, known_inputs))
        suggestion = suggestion or f"; it has {', '.join(known_inputs) or 'no inputs'}"
        reason = f"node {node.id} ({node.class_type}) has no input {input_name!r}{suggestion}"
        raise OverrideInvalid(override=str(requested), reason=reason)
    return node.id, input_name


def random_seed(input_spec: InputSpec | None, randint: RandomInt) -> int:
    """Draw a seed within the range of the input and of the page."""
    minimum, maximum = (input_spec.options.get("min"), input_spec.options.get("max")) if input_spec else (0, SEED_MAX)
    lowest = max(SEED_MIN, int(minimum)) if isinstance(minimum, int | float) else 0
    highest = min(SEED_MAX, int(maximum)) if isinstance(maximum, int | float) else SEED_MAX
    return randint(lowest, max(lowest, highest))


def _options_first(overrides: Iterable[Override], names: Mapping[str, tuple[NodeId, str]]) -> list[Override]:
    """Sort each override after those of the options that bring its input (`8.format.codec`)."""
    all_overrides = list(overrides)

    def target_of(requested: Override) -> str:
        return ".".join(names[requested.target]) if requested.target in names else requested.target

    targets = {target_of(requested) for requested in all_overrides}

    def options_before(requested: Override) -> int:
        target_parts = target_of(requested).split(".")
        return sum(".".join(target_parts[:part_count]) in targets for part_count in range(1, len(target_parts)))

    return sorted(all_overrides, key=options_before)


def _node_inputs(node: ApiNode, catalogue: Catalogue | None, requested: str) -> Mapping[str, InputSpec]:
    """Return the node's inputs, and the requested one if it belongs to a list that can grow to hold it."""
    definition = (catalogue or {}).get(node.class_type, {})
    return open_inputs(definition, {requested: None, **node.inputs}).specs


def _with_option(
    requested: Override, combo_spec: InputSpec, inputs: Mapping[str, InputValue], new_value: InputValue
) -> dict[str, InputValue]:
    """Choose another option of a dynamic combo: the old option's inputs go, those that both have stay."""
    if isinstance(new_value, str):
        new_value = spelling_of(new_value, option_names(combo_spec)) or new_value
    brought_specs = option_specs(combo_spec, new_value)
    if brought_specs is None:
        known_options = [str(option_name) for option_name in option_names(combo_spec)]
        near = did_you_mean(closest_names(str(new_value), known_options))
        suggestion = near or f"; there are {', '.join(known_options)}"
        reason = f"{combo_spec.name} has no option {show_value(new_value)}{suggestion}"
        raise OverrideInvalid(override=str(requested), reason=reason)
    changed_inputs = {
        input_name: old_value
        for input_name, old_value in inputs.items()
        if not input_name.startswith(f"{combo_spec.name}.")
    }
    changed_inputs[combo_spec.name] = new_value
    unopened = list(brought_specs.values())
    while unopened:
        input_spec = unopened.pop(0)
        choices = option_names(input_spec) if input_spec.type == COMBO else input_spec.choices
        old_value, default = inputs.get(input_spec.name), default_value(input_spec)
        if input_spec.name in inputs and (isinstance(old_value, ApiLink) or choices is None or old_value in choices):
            changed_inputs[input_spec.name] = old_value
        elif default is not None and not input_spec.options.get("forceInput"):
            changed_inputs[input_spec.name] = default
        if input_spec.type == GROWING:
            changed_inputs.update(
                {
                    input_name: item_value
                    for input_name, item_value in inputs.items()
                    if input_name.startswith(f"{input_spec.name}.")
                }
            )
        if input_spec.type == COMBO:
            unopened[:0] = (option_specs(input_spec, changed_inputs.get(input_spec.name)) or {}).values()
    return changed_inputs


def _other_option(node: ApiNode, catalogue: Catalogue | None, input_name: str) -> str:
    """Say which option would bring an input that the chosen one does not."""
    combo_name = input_name.rpartition(".")[0]
    combo_spec = (
        find_dynamic_combo((catalogue or {}).get(node.class_type, {}), node.inputs, combo_name) if combo_name else None
    )
    if combo_spec is None:
        return ""
    options = [
        str(option) for option in option_names(combo_spec) if input_name in (option_specs(combo_spec, option) or {})
    ]
    return f"; it comes with {combo_name}={' or '.join(options)}, which can be set too" if options else ""


def _input_value(
    requested: Override,
    input_spec: InputSpec | None,
    present_value: InputValue,
    nodes: Mapping[NodeId, ApiNode],
    randint: RandomInt,
) -> InputValue:
    type_name = input_spec.widget_type if input_spec else _kind_of(present_value)
    new_value = requested.value
    # Only for whole numbers: in a text, `random` is a word.
    if isinstance(new_value, str) and new_value.strip() == RANDOM and type_name == "INT":
        return random_seed(input_spec, randint)
    if isinstance(new_value, str) and (not requested.literal or type_name in ("INT", "FLOAT", "BOOLEAN")):
        new_value = _from_text(new_value, type_name, input_spec)
    node_link = _as_link(new_value, nodes)
    if node_link is not None and type_name not in WIDGET_TYPES:
        return node_link
    if (
        isinstance(present_value, ApiLink)
        and type_name not in WIDGET_TYPES
        and not (input_spec is None and isinstance(new_value, str | int))
    ):
        source_id = present_value.node_id
        reason = (
            f"the input takes {type_name} from another node ({source_id}), not a value; set that node's inputs instead"
        )
        raise OverrideInvalid(override=str(requested), reason=reason)
    # Without a definition, a whole number does not prove that the input takes whole numbers only.
    _check_kind(requested, new_value, "FLOAT" if input_spec is None and type_name == "INT" else type_name)
    # A bare list would be read as a link to another node.
    return {"__value__": new_value} if isinstance(new_value, list) else new_value


def _from_text(typed_text: str, type_name: str, input_spec: InputSpec | None) -> JsonValue:
    if (
        type_name == "COMBO"
        and input_spec is not None
        and input_spec.choices is not None
        and typed_text in input_spec.choices
    ):
        return typed_text
    # What was typed is JSON if it reads as JSON; else it is text, with no need for quotes.
    try:
        json_value: JsonValue = json.loads(typed_text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return (
            {"true": True, "false": False}.get(typed_text.strip().casefold(), typed_text)
            if type_name == "BOOLEAN"
            else typed_text
        )
    match type_name:
        case "STRING":
            return json_value if isinstance(json_value, str) else typed_text
        case "COMBO":
            is_known_choice = (
                input_spec is not None and input_spec.choices is not None and json_value in input_spec.choices
            )
            return json_value if is_known_choice or isinstance(json_value, str) else typed_text
        case _:
            return json_value


def _check_kind(requested: Override, new_value: JsonValue, type_name: str) -> None:
    is_number = isinstance(new_value, int | float)
    fits_type = {
        "INT": is_number and (not isinstance(new_value, float) or new_value.is_integer()),
        "FLOAT": is_number,
        "BOOLEAN": isinstance(new_value, bool) or new_value in (0, 1),
        "STRING": isinstance(new_value, str | int | float),
    }
    expected = {
        "INT": 'a whole number, or "random"',
        "FLOAT": "a number",
        "BOOLEAN": "true or false",
        "STRING": "text",
    }
    if not fits_type.get(type_name, True):
        raise OverrideInvalid(override=str(requested), reason=f"the input takes {expected[type_name]}")


def _as_link(new_value: JsonValue, nodes: Mapping[NodeId, ApiNode]) -> ApiLink | None:
    if isinstance(new_value, list) and len(new_value) == 2:
        node_id, output_slot = new_value
        if (
            isinstance(node_id, str)
            and node_id in nodes
            and isinstance(output_slot, int)
            and not isinstance(output_slot, bool)
        ):
            return ApiLink(node_id, output_slot)
    return None


def _kind_of(present_value: InputValue) -> str:
    if isinstance(present_value, bool):
        return "BOOLEAN"
    if isinstance(present_value, int):
        return "INT"
    if isinstance(present_value, float):
        return "FLOAT"
    return "STRING" if isinstance(present_value, str) else "*"


def _refuse_constant(constant: str) -> JsonValue:
    raise ValueError(constant)

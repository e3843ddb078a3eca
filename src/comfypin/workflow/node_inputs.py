"""The inputs that one node really has: its class's dynamic inputs opened by the node's own values, under dotted names.

A dynamic combo brings the inputs of its chosen option (`format` = "auto" brings `format.codec`, which may bring
`format.codec.encoding`); a growing list has the sockets `images.image0`, `images.image1`, ... Whoever asks what a
node's inputs are (conversion, preflight, overrides, descriptions) asks here, so that all of them agree.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from comfypin.digest import JsonValue
from comfypin.workflow.object_info import Category, InputSpec, input_specs, read_input_specs

COMBO, GROWING, MATCHING = "COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3", "COMFY_MATCHTYPE_V3"

ProblemCode = Literal["option_missing", "option_unknown", "option_wired"]

# ComfyUI's own bound of a growing list, and how deep its options may nest; a definition beyond that is nonsense.
_MAX_ITEMS, _MAX_NESTING = 100, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionProblem:
    """A dynamic combo that opens nothing: it is missing, linked to another node, or set to an unknown option.

    The server lets all three pass and the node fails when it runs, unless the combo is optional and absent.
    """

    code: ProblemCode
    spec: InputSpec
    value: object

    @property
    def known_options(self) -> Sequence[JsonValue]:
        """Return the options that the combo has."""
        return self.spec.choices or ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedInputs:
    """Holds a node's real inputs by dotted name, in the page's order, and the dynamic combos that open nothing.

    A dynamic combo is a `COMBO` with `opens` set. Of a growing list there are the items that the class requires and
    those that the node has. `unexpected` are inputs of the node under a dynamic input's name that no option brings.
    """

    specs: Mapping[str, InputSpec]
    problems: tuple[OptionProblem, ...]
    unexpected: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowingList:
    """A list of sockets that grows: the names it may have, and how many of the first ones the class requires."""

    name: str
    items: Mapping[str, InputSpec]
    required: int


def open_inputs(definition: Mapping[str, JsonValue], node_values: Mapping[str, object]) -> OpenedInputs:
    """Open a class's inputs for a node that holds `node_values` (literals or links, by dotted name)."""
    opened_specs: dict[str, InputSpec] = {}
    problems: list[OptionProblem] = []
    dynamic_names: list[str] = []
    for input_spec in input_specs(definition).values():
        if input_spec.type == COMBO or _is_growing(input_spec):
            dynamic_names.append(input_spec.name)
        _open_input(input_spec, node_values, opened_specs, problems, depth=0)
    # Only names under a dynamic input: other unknown inputs are what ComfyUI ignores without a word.
    unexpected = (
        input_name
        for input_name in node_values
        if input_name not in opened_specs
        and any(input_name.startswith(f"{dynamic_name}.") for dynamic_name in dynamic_names)
    )
    return OpenedInputs(specs=opened_specs, problems=tuple(problems), unexpected=tuple(unexpected))


def option_specs(combo_spec: InputSpec, chosen_option: object) -> dict[str, InputSpec] | None:
    """Return the unopened inputs that an option of a dynamic combo brings, or None if the option is unknown."""
    for candidate in _listed_options(combo_spec):
        inputs = candidate.get("inputs")
        if candidate["key"] == chosen_option and isinstance(chosen_option, str):
            return read_input_specs(inputs, prefix=f"{combo_spec.name}.") if isinstance(inputs, Mapping) else {}
    return None


def option_names(combo_spec: InputSpec) -> list[JsonValue]:
    """Return the options of a dynamic combo, in its order."""
    return [listed_option["key"] for listed_option in _listed_options(combo_spec)]


def as_choice(combo_spec: InputSpec) -> InputSpec:
    """Turn a dynamic combo into a plain choice between its options."""
    options = {
        option_name: option_value
        for option_name, option_value in combo_spec.options.items()
        if option_name != "options"
    }
    return replace(combo_spec, type="COMBO", choices=option_names(combo_spec), options=options, opens=True)


def growing_list(input_spec: InputSpec, node_values: Mapping[str, object] | None = None) -> GrowingList:
    """Read a growing list's template: names or a prefix with numbers from 0, the least and the greatest count.

    With `node_values`, `items` are only those that the class requires and those that the node has.
    """
    template = _as_mapping(input_spec.options.get("template"))
    listed_names, maximum, minimum = template.get("names"), template.get("max"), template.get("min")
    item_names = (
        [listed_name for listed_name in listed_names if isinstance(listed_name, str)][:_MAX_ITEMS]
        if isinstance(listed_names, list)
        else None
    )
    item_count = (
        len(item_names)
        if item_names is not None
        else min(maximum, _MAX_ITEMS)
        if isinstance(maximum, int)
        else _MAX_ITEMS
    )
    required = minimum if isinstance(minimum, int) else 1
    patterns = list(read_input_specs(_as_mapping(template.get("input"))).values())
    prefix = template.get("prefix")
    list_items: dict[str, InputSpec] = {}
    for number in range(item_count):
        for item_pattern in patterns:
            item_stem = prefix if len(patterns) == 1 and isinstance(prefix, str) else item_pattern.name
            input_name = f"{input_spec.name}.{item_names[number] if item_names is not None else f'{item_stem}{number}'}"
            category: Category = "required" if number < required and item_pattern.category == "required" else "optional"
            if node_values is None or category == "required" or input_name in node_values:
                list_items[input_name] = resolve_match_type(replace(item_pattern, name=input_name, category=category))
    return GrowingList(name=input_spec.name, items=list_items, required=required)


def resolve_match_type(input_spec: InputSpec) -> InputSpec:
    """Turn a socket whose type follows its link into a plain socket of all the types that it allows."""
    if input_spec.type != MATCHING:
        return input_spec
    allowed = _as_mapping(input_spec.options.get("template")).get("allowed_types")
    return replace(input_spec, type=allowed if isinstance(allowed, str) and allowed else "*")


def default_value(input_spec: InputSpec) -> JsonValue:
    """Return the value that the page gives an unset input, or None (always for a socket)."""
    if input_spec.type == COMBO:
        return next(iter(option_names(input_spec)), None)
    default = input_spec.options.get("default")
    # A null default of a combo means that the page chooses; of other types it means null.
    if default is not None or ("default" in input_spec.options and input_spec.type != "COMBO"):
        return default
    match input_spec.options.get("widgetType") or input_spec.type:
        case "INT" | "FLOAT":
            return 0
        case "STRING":
            return ""
        case "BOOLEAN":
            return False
        case "COMBO" if input_spec.options.get("multiselect"):
            return []
        case "COMBO":
            return input_spec.choices[0] if input_spec.choices else None
        case _:
            return None


def find_dynamic_combo(
    definition: Mapping[str, JsonValue], node_values: Mapping[str, object], input_name: str
) -> InputSpec | None:
    """Return the unopened dynamic combo of this dotted name on a node that holds `node_values`, or None."""
    return next(
        (input_spec for input_spec in _dynamic_combos(definition, node_values) if input_spec.name == input_name), None
    )


def _dynamic_combos(definition: Mapping[str, JsonValue], node_values: Mapping[str, object]) -> Iterator[InputSpec]:
    unopened = list(input_specs(definition).values())
    while unopened:
        input_spec = unopened.pop(0)
        if input_spec.type == COMBO and input_spec.name.count(".") <= _MAX_NESTING:
            yield input_spec
            # In front, so that the order stays the page's: an option's inputs follow their combo.
            unopened[:0] = (option_specs(input_spec, node_values.get(input_spec.name)) or {}).values()


def _open_input(
    input_spec: InputSpec,
    node_values: Mapping[str, object],
    opened_specs: dict[str, InputSpec],
    problems: list[OptionProblem],
    *,
    depth: int,
) -> None:
    if _is_growing(input_spec):
        opened_specs.update(growing_list(input_spec, node_values).items)
        return
    if input_spec.type != COMBO or depth > _MAX_NESTING:
        opened_specs[input_spec.name] = resolve_match_type(input_spec)
        return
    opened_specs[input_spec.name] = as_choice(input_spec)
    node_value = node_values.get(input_spec.name)
    brought_specs = option_specs(input_spec, node_value)
    if brought_specs is None:
        if input_spec.name in node_values or input_spec.category == "required":
            problems.append(_option_problem(opened_specs[input_spec.name], node_values))
        return
    for brought_spec in brought_specs.values():
        _open_input(brought_spec, node_values, opened_specs, problems, depth=depth + 1)


def _option_problem(input_spec: InputSpec, node_values: Mapping[str, object]) -> OptionProblem:
    if input_spec.name not in node_values:
        return OptionProblem(code="option_missing", spec=input_spec, value=None)
    node_value = node_values[input_spec.name]
    # A link is an object of ours; a value has one of JSON's types.
    is_json_value = node_value is None or isinstance(node_value, str | int | float | list | dict)
    return OptionProblem(code="option_unknown" if is_json_value else "option_wired", spec=input_spec, value=node_value)


def _is_growing(input_spec: InputSpec) -> bool:
    """Return whether a growing list says how it grows; of one that does not, nothing is known."""
    return input_spec.type == GROWING and bool(_as_mapping(input_spec.options.get("template")).get("input"))


def _listed_options(combo_spec: InputSpec) -> list[Mapping[str, JsonValue]]:
    listed_options = combo_spec.options.get("options")
    all_options = listed_options if isinstance(listed_options, list) else []
    return [
        one_option
        for one_option in all_options
        if isinstance(one_option, Mapping) and isinstance(one_option.get("key"), str)
    ]


def _as_mapping(json_value: JsonValue) -> Mapping[str, JsonValue]:
    return json_value if isinstance(json_value, Mapping) else {}

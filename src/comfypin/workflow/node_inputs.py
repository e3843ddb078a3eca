"""The inputs that one node has: its class's dynamic inputs opened by what the node holds, flat, under dotted names.

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
    """A dynamic combo that opens nothing: absent, wired to another node, or set to an option that it does not have.

    The server lets all three pass and the node fails when it runs, unless the combo is optional and absent.
    """

    code: ProblemCode
    spec: InputSpec
    value: object

    @property
    def known_options(self) -> Sequence[JsonValue]:
        """The options that there are."""
        return self.spec.choices or ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedInputs:
    """A node's real inputs by dotted name, in the page's order, and the dynamic combos that could not be opened.

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


def open_inputs(definition: Mapping[str, JsonValue], values: Mapping[str, object]) -> OpenedInputs:
    """Open a class's inputs for a node that holds `values` (literals or links, by dotted name)."""
    specs: dict[str, InputSpec] = {}
    problems: list[OptionProblem] = []
    roots: list[str] = []
    for spec in input_specs(definition).values():
        if spec.type == COMBO or _is_growing(spec):
            roots.append(spec.name)
        _open_input(spec, values, specs, problems, depth=0)
    unexpected = (name for name in values if name not in specs and any(name.startswith(f"{root}.") for root in roots))
    return OpenedInputs(specs=specs, problems=tuple(problems), unexpected=tuple(unexpected))


def option_specs(combo: InputSpec, option: object) -> dict[str, InputSpec] | None:
    """The inputs that an option of a dynamic combo brings, by dotted name, not opened; None for an unknown option."""
    for candidate in _listed_options(combo):
        inputs = candidate.get("inputs")
        if candidate["key"] == option and isinstance(option, str):
            return read_input_specs(inputs, prefix=f"{combo.name}.") if isinstance(inputs, Mapping) else {}
    return None


def option_names(combo: InputSpec) -> list[JsonValue]:
    """The options of a dynamic combo, in its order."""
    return [option["key"] for option in _listed_options(combo)]


def as_choice(combo: InputSpec) -> InputSpec:
    """A dynamic combo as the plain choice between its options."""
    options = {name: value for name, value in combo.options.items() if name != "options"}
    return replace(combo, type="COMBO", choices=option_names(combo), options=options, opens=True)


def growing_list(spec: InputSpec, values: Mapping[str, object] | None = None) -> GrowingList:
    """Read a growing list's template: names or a prefix with numbers from 0, the least and the greatest count.

    With the `values` of a node, `items` are only those that the class requires and those that the node has.
    """
    template = _as_mapping(spec.options.get("template"))
    names, most, least = template.get("names"), template.get("max"), template.get("min")
    listed = [name for name in names if isinstance(name, str)][:_MAX_ITEMS] if isinstance(names, list) else None
    count = len(listed) if listed is not None else min(most, _MAX_ITEMS) if isinstance(most, int) else _MAX_ITEMS
    required = least if isinstance(least, int) else 1
    patterns = list(read_input_specs(_as_mapping(template.get("input"))).values())
    prefix = template.get("prefix")
    items: dict[str, InputSpec] = {}
    for number in range(count):
        for pattern in patterns:
            stem = prefix if len(patterns) == 1 and isinstance(prefix, str) else pattern.name
            name = f"{spec.name}.{listed[number] if listed is not None else f'{stem}{number}'}"
            category: Category = "required" if number < required and pattern.category == "required" else "optional"
            if values is None or category == "required" or name in values:
                items[name] = resolve_match_type(replace(pattern, name=name, category=category))
    return GrowingList(name=spec.name, items=items, required=required)


def resolve_match_type(spec: InputSpec) -> InputSpec:
    """A socket whose type follows what is wired to it as a plain socket of all the types that it allows."""
    if spec.type != MATCHING:
        return spec
    allowed = _as_mapping(spec.options.get("template")).get("allowed_types")
    return replace(spec, type=allowed if isinstance(allowed, str) and allowed else "*")


def default_value(spec: InputSpec) -> JsonValue:
    """The value that the page gives an input that nobody set; None for a socket, or if there is none."""
    if spec.type == COMBO:
        return next(iter(option_names(spec)), None)
    default = spec.options.get("default")
    if default is not None or ("default" in spec.options and spec.type != "COMBO"):
        return default
    match spec.options.get("widgetType") or spec.type:
        case "INT" | "FLOAT":
            return 0
        case "STRING":
            return ""
        case "BOOLEAN":
            return False
        case "COMBO" if spec.options.get("multiselect"):
            return []
        case "COMBO":
            return spec.choices[0] if spec.choices else None
        case _:
            return None


def find_dynamic_combo(
    definition: Mapping[str, JsonValue], values: Mapping[str, object], name: str
) -> InputSpec | None:
    """The dynamic combo of this dotted name, not opened, as a node that holds `values` has it; None if it has none."""
    return next((spec for spec in _dynamic_combos(definition, values) if spec.name == name), None)


def _dynamic_combos(definition: Mapping[str, JsonValue], values: Mapping[str, object]) -> Iterator[InputSpec]:
    waiting = list(input_specs(definition).values())
    while waiting:
        spec = waiting.pop(0)
        if spec.type == COMBO and spec.name.count(".") <= _MAX_NESTING:
            yield spec
            waiting[:0] = (option_specs(spec, values.get(spec.name)) or {}).values()


def _open_input(
    spec: InputSpec,
    values: Mapping[str, object],
    specs: dict[str, InputSpec],
    problems: list[OptionProblem],
    *,
    depth: int,
) -> None:
    if _is_growing(spec):
        specs.update(growing_list(spec, values).items)
        return
    if spec.type != COMBO or depth > _MAX_NESTING:
        specs[spec.name] = resolve_match_type(spec)
        return
    specs[spec.name] = as_choice(spec)
    value = values.get(spec.name)
    inner = option_specs(spec, value)
    if inner is None:
        if spec.name in values or spec.category == "required":
            problems.append(_option_problem(specs[spec.name], values))
        return
    for sub in inner.values():
        _open_input(sub, values, specs, problems, depth=depth + 1)


def _option_problem(spec: InputSpec, values: Mapping[str, object]) -> OptionProblem:
    if spec.name not in values:
        return OptionProblem(code="option_missing", spec=spec, value=None)
    value = values[spec.name]
    plain = value is None or isinstance(value, str | int | float | list | dict)
    return OptionProblem(code="option_unknown" if plain else "option_wired", spec=spec, value=value)


def _is_growing(spec: InputSpec) -> bool:
    """Return whether a growing list says how it grows; of one that does not, nothing is known."""
    return spec.type == GROWING and bool(_as_mapping(spec.options.get("template")).get("input"))


def _listed_options(combo: InputSpec) -> list[Mapping[str, JsonValue]]:
    listed = combo.options.get("options")
    options = listed if isinstance(listed, list) else []
    return [option for option in options if isinstance(option, Mapping) and isinstance(option.get("key"), str)]


def _as_mapping(raw: JsonValue) -> Mapping[str, JsonValue]:
    return raw if isinstance(raw, Mapping) else {}

"""`NAME.inputs.toml` beside a workflow: the names and limits of what others may set in it."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from comfypin.digest import JsonValue
from comfypin.workflow.errors import InputsFileInvalid, OverrideInvalid
from comfypin.workflow.findings import closest_names, did_you_mean, show_value
from comfypin.workflow.graph import ApiGraph, ApiLink
from comfypin.workflow.object_info import Catalogue
from comfypin.workflow.overrides import RANDOM, Override, locate_input
from comfypin.workflow.settable_inputs import WorkflowInput, describe_inputs

_KEYS = ("target", "description", "default", "minimum", "maximum", "choices", "max_length", "required")
_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "target": ((str,), "a text such as 6.text or KSampler.seed"),
    "description": ((str,), "a text"),
    "minimum": ((int, float), "a number"),
    "maximum": ((int, float), "a number"),
    "choices": ((list,), "a list"),
    "max_length": ((int,), "a whole number"),
    "required": ((bool,), "true or false"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedInput:
    """One input of the file: its name, the `NODE.INPUT` it stands for, and its limits."""

    name: str
    target: str
    description: str | None = None
    default: JsonValue = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[JsonValue, ...] | None = None
    max_length: int | None = None
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InputsFile:
    """A whole file: what the workflow is, and what may be set in it."""

    source: str
    title: str | None = None
    description: str | None = None
    inputs: tuple[NamedInput, ...] = ()


def inputs_file_beside(workflow: Path) -> Path:
    """Where the file of a workflow lies: `cat.json` -> `cat.inputs.toml`."""
    return workflow.with_suffix(".inputs.toml")


def load_inputs_file(text: str, *, source: str) -> InputsFile:
    """Read the file. Raises `InputsFileInvalid` with every mistake in it."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise InputsFileInvalid(source=source, problems=[f"it is not TOML: {exc}"]) from exc
    problems = [
        f"{key!r} is not known{did_you_mean(closest_names(key, ('title', 'description', 'inputs')))}"
        for key in raw
        if key not in ("title", "description", "inputs")
    ]
    tables = raw.get("inputs", {})
    if not isinstance(tables, dict):
        raise InputsFileInvalid(source=source, problems=[*problems, "inputs must be tables: [inputs.NAME]"])
    inputs = [_read_named_input(name, table, problems) for name, table in tables.items()]
    texts = {key: raw[key] for key in ("title", "description") if isinstance(raw.get(key), str)}
    problems += [f"{key} must be a text" for key in ("title", "description") if key in raw and key not in texts]
    if problems:
        raise InputsFileInvalid(source=source, problems=problems)
    return InputsFile(
        source=source,
        title=texts.get("title"),
        description=texts.get("description"),
        inputs=tuple(one for one in inputs if one is not None),
    )


def named_inputs(graph: ApiGraph, catalogue: Catalogue, file: InputsFile) -> tuple[WorkflowInput, ...]:
    """The file's inputs against the workflow: what each one stands for, within the narrower of both limits.

    Raises `InputsFileInvalid` for targets that the workflow does not have.
    """
    known = {(one.node_id, one.input_name): one for one in describe_inputs(graph, catalogue)}
    problems: list[str] = []
    found: list[WorkflowInput] = []
    for named in file.inputs:
        try:
            place = locate_input(
                graph, Override(target=named.target, value=None, literal=True), catalogue=catalogue, names={}
            )
        except OverrideInvalid as exc:
            problems.append(f"inputs.{named.name}: {exc.facts['reason']}")
            continue
        base = known.get(place) or _describe_unlisted(graph, place)
        found.append(_apply_limits(base, named))
    if problems:
        raise InputsFileInvalid(source=file.source, problems=problems)
    return tuple(found)


def overrides_by_name(values: Mapping[str, JsonValue], inputs: Sequence[WorkflowInput]) -> tuple[Override, ...]:
    """What a caller sets, by the inputs' names alone, as overrides, with the file's defaults where nothing is set.

    Raises `OverrideInvalid` for names that are not among them, values beyond their limits, and missing required ones.
    """
    by_name = {one.name: one for one in inputs}
    for name in values:
        if name not in by_name:
            near = did_you_mean(closest_names(name, by_name)) or f"; there are {', '.join(by_name) or 'none'}"
            raise OverrideInvalid(override=f"set {name}", reason=f"the workflow has no input of this name{near}")
    missing = [one.name for one in inputs if one.required and one.name not in values]
    if missing:
        raise OverrideInvalid(override="set", reason=f"these inputs must be given: {', '.join(missing)}")
    check_limits(values, inputs)
    # Another option than the file's brings inputs of its own, for which the file's defaults are not meant.
    changed = tuple(f"{by_name[name].target}." for name in values)
    presets = {one.name: one.default for one in inputs if one.preset and not one.target.startswith(changed)}
    given = presets | dict(values)
    return tuple(Override(target=by_name[name].target, value=value, literal=True) for name, value in given.items())


def check_limits(values: Mapping[str, JsonValue], inputs: Iterable[WorkflowInput]) -> None:
    """Refuse values beyond the limits of their inputs. Raises `OverrideInvalid`."""
    for one in inputs:
        value = values.get(one.name)
        if value is None or value == RANDOM:
            continue
        reason = _explain_limit(value, one)
        if reason is not None:
            raise OverrideInvalid(override=f"set {one.name}={show_value(value)}", reason=reason)


def current_value(graph: ApiGraph, one: WorkflowInput) -> JsonValue:
    """What a graph says for an input now; None where it is wired."""
    value = graph.nodes[one.node_id].inputs.get(one.input_name)
    return None if isinstance(value, ApiLink) else value


def read_inputs_file(workflow: Path) -> InputsFile | None:
    """The inputs file beside a workflow, where there is one. Raises `InputsFileInvalid`."""
    path = inputs_file_beside(workflow)
    try:
        return load_inputs_file(path.read_text(encoding="utf-8"), source=str(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise InputsFileInvalid(source=str(path), problems=[f"it cannot be read: {exc}"]) from exc


def _explain_limit(value: JsonValue, one: WorkflowInput) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if one.minimum is not None and value < one.minimum:
            return f"the least value is {one.minimum}"
        if one.maximum is not None and value > one.maximum:
            return f"the greatest value is {one.maximum}"
    if isinstance(value, str) and one.max_length is not None and len(value) > one.max_length:
        return f"the longest text is {one.max_length} characters, and this one has {len(value)}"
    if one.choices and value not in one.choices:
        near = (
            closest_names(value, [choice for choice in one.choices if isinstance(choice, str)])
            if isinstance(value, str)
            else ()
        )
        return f"it must be one of {', '.join(map(show_value, one.choices[:10]))}{did_you_mean(near)}"
    return None


def _read_named_input(name: str, table: object, problems: list[str]) -> NamedInput | None:
    if not isinstance(table, dict):
        problems.append(f"inputs.{name} must be a table with a target")
        return None
    before = len(problems)
    problems += [
        f"inputs.{name}.{key} is not known{did_you_mean(closest_names(key, _KEYS))}"
        for key in table
        if key not in _KEYS
    ]
    for key, (types, words) in _TYPES.items():
        value = table.get(key)
        wrong = not isinstance(value, types) or (isinstance(value, bool) and bool not in types)
        if key in table and wrong:
            problems.append(f"inputs.{name}.{key} must be {words}, and is {show_value(value)}")
    if "target" not in table:
        problems.append(f'inputs.{name} has no target; write target = "6.text", or another NODE.INPUT')
    if len(problems) > before:
        return None
    known = {key: value for key, value in table.items() if key != "choices"}
    choices = tuple(table["choices"]) if "choices" in table else None
    return NamedInput(name=name, choices=choices, **known)


def _apply_limits(base: WorkflowInput, named: NamedInput) -> WorkflowInput:
    least = [limit for limit in (base.minimum, named.minimum) if limit is not None]
    most = [limit for limit in (base.maximum, named.maximum) if limit is not None]
    return replace(
        base,
        name=named.name,
        description=named.description or base.description,
        default=base.default if named.default is None else named.default,
        preset=named.default is not None,
        minimum=max(least, default=None),
        maximum=min(most, default=None),
        choices=named.choices if named.choices is not None else base.choices,
        max_length=named.max_length,
        required=named.required,
    )


def _describe_unlisted(graph: ApiGraph, place: tuple[str, str]) -> WorkflowInput:
    """An input of which the engine says nothing, or which no output needs: what the workflow says of it."""
    node_id, input_name = place
    node = graph.nodes[node_id]
    value = next((value for name, value in node.inputs.items() if name == input_name), None)
    types: Mapping[type, str] = {bool: "BOOLEAN", int: "INT", float: "FLOAT", str: "STRING"}
    default = value if isinstance(value, str | int | float) else None
    kind = types.get(type(value), "*")
    return WorkflowInput(
        name="", node_id=node_id, input_name=input_name, kind="text", type=kind, default=default, title=node.title
    )

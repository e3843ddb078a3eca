"""`NAME.inputs.toml` beside a workflow: the names and limits of what others may set in it."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from comfypin.digest import JsonValue
from comfypin.text_encoding import decode_text
from comfypin.workflow.errors import InputsFileInvalid, OverrideInvalid
from comfypin.workflow.findings import closest_names, did_you_mean, show_value
from comfypin.workflow.graph import ApiGraph, ApiLink
from comfypin.workflow.object_info import Catalogue
from comfypin.workflow.overrides import RANDOM, Override, locate_input
from comfypin.workflow.settable_inputs import WorkflowInput, describe_inputs

_KEYS = ("target", "description", "default", "minimum", "maximum", "choices", "max_length", "required")
_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "target": ((str,), "text such as 6.text or KSampler.seed"),
    "description": ((str,), "text"),
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
    """Holds a whole file: what the workflow is, and what may be set in it."""

    source: str
    title: str | None = None
    description: str | None = None
    inputs: tuple[NamedInput, ...] = ()


def inputs_file_beside(workflow: Path) -> Path:
    """Return the path of a workflow's inputs file: `cat.json` -> `cat.inputs.toml`."""
    return workflow.with_suffix(".inputs.toml")


def load_inputs_file(toml_text: str, *, source: str) -> InputsFile:
    """Read the file. Raises `InputsFileInvalid` with every mistake in it."""
    try:
        parsed_toml = tomllib.loads(toml_text)
    except tomllib.TOMLDecodeError as exc:
        raise InputsFileInvalid(source=source, problems=[f"it is not TOML: {exc}"]) from exc
    problems = [
        f"{top_key!r} is not a known key{did_you_mean(closest_names(top_key, ('title', 'description', 'inputs')))}"
        for top_key in parsed_toml
        if top_key not in ("title", "description", "inputs")
    ]
    tables = parsed_toml.get("inputs", {})
    if not isinstance(tables, dict):
        raise InputsFileInvalid(source=source, problems=[*problems, "inputs must be tables: [inputs.NAME]"])
    named_inputs_read = [
        _read_named_input(input_name, input_table, problems) for input_name, input_table in tables.items()
    ]
    texts = {
        top_key: parsed_toml[top_key]
        for top_key in ("title", "description")
        if isinstance(parsed_toml.get(top_key), str)
    }
    problems += [
        f"{top_key} must be text"
        for top_key in ("title", "description")
        if top_key in parsed_toml and top_key not in texts
    ]
    if problems:
        raise InputsFileInvalid(source=source, problems=problems)
    return InputsFile(
        source=source,
        title=texts.get("title"),
        description=texts.get("description"),
        inputs=tuple(named_input for named_input in named_inputs_read if named_input is not None),
    )


def named_inputs(api_graph: ApiGraph, catalogue: Catalogue, inputs_file: InputsFile) -> tuple[WorkflowInput, ...]:
    """Match the file's inputs with the workflow's, each within the narrower of both limits.

    Raises `InputsFileInvalid` for targets that the workflow does not have.
    """
    known_inputs = {
        (workflow_input.node_id, workflow_input.input_name): workflow_input
        for workflow_input in describe_inputs(api_graph, catalogue)
    }
    problems: list[str] = []
    limited_inputs: list[WorkflowInput] = []
    for named_input in inputs_file.inputs:
        try:
            input_place = locate_input(
                api_graph, Override(target=named_input.target, value=None, literal=True), catalogue=catalogue, names={}
            )
        except OverrideInvalid as exc:
            problems.append(f"inputs.{named_input.name}: {exc.facts['reason']}")
            continue
        described = known_inputs.get(input_place) or describe_unlisted(api_graph, input_place)
        limited_inputs.append(_apply_limits(described, named_input))
    if problems:
        raise InputsFileInvalid(source=inputs_file.source, problems=problems)
    return tuple(limited_inputs)


def overrides_by_name(values: Mapping[str, JsonValue], inputs: Sequence[WorkflowInput]) -> tuple[Override, ...]:
    """Turn what a caller sets by name into overrides; the file's defaults fill the rest.

    Raises `OverrideInvalid` for names that are not among them, values beyond their limits, and missing required ones.
    """
    by_name = {workflow_input.name: workflow_input for workflow_input in inputs}
    for name in values:
        if name not in by_name:
            suggestion = did_you_mean(closest_names(name, by_name)) or f"; there are {', '.join(by_name) or 'none'}"
            raise OverrideInvalid(
                override=f"set {name}", reason=f"the workflow has no input with this name{suggestion}"
            )
    missing = [
        workflow_input.name
        for workflow_input in inputs
        if workflow_input.required and workflow_input.name not in values
    ]
    if missing:
        raise OverrideInvalid(override="set", reason=f"these inputs must be given: {', '.join(missing)}")
    check_limits(values, inputs)
    # If the caller chooses another option, the file's defaults are not meant for the inputs that it brings.
    changed = tuple(f"{by_name[name].target}." for name in values)
    preset_values = {
        workflow_input.name: workflow_input.default
        for workflow_input in inputs
        if workflow_input.preset and not workflow_input.target.startswith(changed)
    }
    given_values = preset_values | dict(values)
    return tuple(
        Override(target=f"{node_id}.{input_name}", value=input_value, literal=True)
        for name, input_value in given_values.items()
        for node_id, input_name in by_name[name].places
    )


def check_limits(values: Mapping[str, JsonValue], inputs: Iterable[WorkflowInput]) -> None:
    """Refuse values beyond the limits of their inputs. Raises `OverrideInvalid`."""
    for workflow_input in inputs:
        input_value = values.get(workflow_input.name)
        if input_value is None or input_value == RANDOM:
            continue
        reason = _explain_limit(input_value, workflow_input)
        if reason is not None:
            raise OverrideInvalid(override=f"set {workflow_input.name}={show_value(input_value)}", reason=reason)


def current_value(api_graph: ApiGraph, workflow_input: WorkflowInput) -> JsonValue:
    """Return a graph's present value for an input, or None if it is linked."""
    input_value = api_graph.nodes[workflow_input.node_id].inputs.get(workflow_input.input_name)
    return None if isinstance(input_value, ApiLink) else input_value


def read_inputs_file(workflow: Path) -> InputsFile | None:
    """Read the inputs file beside a workflow; return None without one. Raises `InputsFileInvalid`."""
    inputs_path = inputs_file_beside(workflow)
    try:
        return load_inputs_file(decode_text(inputs_path.read_bytes()), source=str(inputs_path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise InputsFileInvalid(source=str(inputs_path), problems=[f"it cannot be read: {exc}"]) from exc


def _explain_limit(input_value: JsonValue, workflow_input: WorkflowInput) -> str | None:
    if isinstance(input_value, int | float) and not isinstance(input_value, bool):
        if workflow_input.minimum is not None and input_value < workflow_input.minimum:
            return f"the minimum is {workflow_input.minimum}"
        if workflow_input.maximum is not None and input_value > workflow_input.maximum:
            return f"the maximum is {workflow_input.maximum}"
    if (
        isinstance(input_value, str)
        and workflow_input.max_length is not None
        and len(input_value) > workflow_input.max_length
    ):
        return f"the text may have at most {workflow_input.max_length} characters, and this one has {len(input_value)}"
    if workflow_input.choices and input_value not in workflow_input.choices:
        suggestion = (
            closest_names(input_value, [choice for choice in workflow_input.choices if isinstance(choice, str)])
            if isinstance(input_value, str)
            else ()
        )
        return f"it must be one of {', '.join(map(show_value, workflow_input.choices[:10]))}{did_you_mean(suggestion)}"
    return None


def _read_named_input(input_name: str, input_table: object, problems: list[str]) -> NamedInput | None:
    if not isinstance(input_table, dict):
        problems.append(f"inputs.{input_name} must be a table with a target")
        return None
    problems_before = len(problems)
    problems += [
        f"inputs.{input_name}.{table_key} is not a known key{did_you_mean(closest_names(table_key, _KEYS))}"
        for table_key in input_table
        if table_key not in _KEYS
    ]
    for table_key, (allowed_types, expected) in _TYPES.items():
        input_value = input_table.get(table_key)
        # True is an int in Python, but nobody means it as a number in a file.
        wrong = not isinstance(input_value, allowed_types) or (
            isinstance(input_value, bool) and bool not in allowed_types
        )
        if table_key in input_table and wrong:
            problems.append(f"inputs.{input_name}.{table_key} must be {expected}, and is {show_value(input_value)}")
    if "target" not in input_table:
        problems.append(f'inputs.{input_name} has no target; write target = "6.text", or another NODE.INPUT')
    # Only a table without a mistake gives an input; the mistakes of all tables are reported together.
    if len(problems) > problems_before:
        return None
    plain_fields = {table_key: input_value for table_key, input_value in input_table.items() if table_key != "choices"}
    choices = tuple(input_table["choices"]) if "choices" in input_table else None
    return NamedInput(name=input_name, choices=choices, **plain_fields)


def _apply_limits(described: WorkflowInput, named_input: NamedInput) -> WorkflowInput:
    minimums = [limit for limit in (described.minimum, named_input.minimum) if limit is not None]
    maximums = [limit for limit in (described.maximum, named_input.maximum) if limit is not None]
    return replace(
        described,
        name=named_input.name,
        description=named_input.description or described.description,
        default=described.default if named_input.default is None else named_input.default,
        preset=named_input.default is not None,
        minimum=max(minimums, default=None),
        maximum=min(maximums, default=None),
        choices=named_input.choices if named_input.choices is not None else described.choices,
        max_length=named_input.max_length,
        required=named_input.required,
    )


def describe_unlisted(api_graph: ApiGraph, input_place: tuple[str, str]) -> WorkflowInput:
    """Describe an input that the engine does not list, or that no output needs, from the workflow alone."""
    node_id, input_name = input_place
    node = api_graph.nodes[node_id]
    input_value = next((input_value for name, input_value in node.inputs.items() if name == input_name), None)
    allowed_types: Mapping[type, str] = {bool: "BOOLEAN", int: "INT", float: "FLOAT", str: "STRING"}
    default = input_value if isinstance(input_value, str | int | float) else None
    type_name = allowed_types.get(type(input_value), "*")
    return WorkflowInput(
        name="", node_id=node_id, input_name=input_name, kind="text", type=type_name, default=default, title=node.title
    )

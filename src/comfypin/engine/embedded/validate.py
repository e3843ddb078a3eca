"""Checking a submitted graph as ComfyUI does, with its error bodies, and without recursion."""

import traceback
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from comfypin.digest import JsonValue
from comfypin.engine.embedded.catalogue import input_config
from comfypin.engine.embedded.declare import MATCHING, Input, NodeClass, Value
from comfypin.engine.embedded.dynamic import open_inputs
from comfypin.engine.embedded.folders import Folders
from comfypin.engine.embedded.releases import DEFAULT_RELEASE, Release

Errors: TypeAlias = "list[dict[str, JsonValue]]"
JsonDict: TypeAlias = "dict[str, Any]"

_LONGEST_LIST_TOLD = 20
_LONGEST_CIRCLE_TOLD = 100
_CONVERTERS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a graph runs: `error` is None where at least one output does, listed in `outputs`."""

    error: Mapping[str, JsonValue] | None
    outputs: tuple[str, ...] = ()
    node_errors: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Checked:
    valid: bool
    errors: Errors


@dataclass(frozen=True, slots=True)
class Validator:
    """Checks graphs against the classes; numbers and texts in them are converted to their input's type in place."""

    classes: Mapping[str, NodeClass]
    folders: Folders
    release: Release = DEFAULT_RELEASE

    def check(self, graph: JsonDict, wanted: frozenset[str] | None = None) -> Verdict:
        """The verdict on a graph; with `wanted`, of these output nodes alone.

        Raises what Python raises for a graph of the wrong shape (a list, a node that is a number): ComfyUI answers 500.
        """
        for node_id in graph:
            node = graph[node_id]
            if "class_type" not in node or node["class_type"] not in self.classes:
                return _missing_node(node_id, node) if self.release.names_missing_nodes else _no_class(node_id, node)
        outputs = [node_id for node_id in graph if self.classes[graph[node_id]["class_type"]].is_output]
        outputs = [node_id for node_id in outputs if wanted is None or node_id in wanted]
        if not outputs:
            return _refused("prompt_no_outputs", "Prompt has no outputs", "")
        return self._check_outputs(graph, outputs)

    def _check_outputs(self, graph: JsonDict, outputs: list[str]) -> Verdict:
        checked: dict[str, _Checked] = {}
        good: list[str] = []
        output_errors: Errors = []
        node_errors: dict[str, JsonDict] = {}
        for output in outputs:
            try:
                result = self._check_tree(graph, output, checked)
            except Exception as problem:  # noqa: BLE001, a graph may be wrong in any way; the client is told which
                result = checked[output] = _Checked(valid=False, errors=[_crashed(problem)])
            if result.valid:
                good.append(output)
                continue
            output_errors += result.errors
            for node_id, found in checked.items():
                if not found.valid and found.errors:
                    entry = node_errors.setdefault(node_id, _errors_of(graph[node_id], found.errors))
                    entry["dependent_outputs"].append(output)
        if good:
            return Verdict(error=None, outputs=tuple(good), node_errors=node_errors)
        details = "\n".join(dict.fromkeys(f"{each['message']}: {each['details']}" for each in output_errors))
        refused = _refused("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
        return Verdict(error=refused.error, node_errors=node_errors)

    def _check_tree(self, graph: JsonDict, root: str, checked: dict[str, _Checked]) -> _Checked:
        """Run the checks of a node and of all above it, on a stack of our own: graphs are deeper than Python's."""
        if root in checked:
            return checked[root]
        stack = [_Frame(root, self._check_node(graph, root), None)]
        open_ids = {root}
        circles: dict[str, Errors] = {}
        answer: _Checked | None = None
        while stack:
            frame = stack[-1]
            try:
                asked = frame.steps.send(answer)
            except StopIteration as end:
                answer = end.value
            except Exception as problem:  # a graph may be wrong in any way; the client is told which
                if frame.asked is None:
                    raise
                answer = _Checked(valid=False, errors=[_inner_crash(problem, frame.asked)])
            else:
                answer = checked.get(asked.source)
                if answer is None and asked.source in open_ids:
                    answer = self._circle(graph, [each.node_id for each in stack], asked.source, circles)
                elif answer is None:
                    stack.append(_Frame(asked.source, self._check_node(graph, asked.source), asked))
                    open_ids.add(asked.source)
                continue
            if found := circles.get(frame.node_id):
                answer = _Checked(valid=False, errors=[*found, *answer.errors])
            checked[frame.node_id] = answer
            open_ids.discard(stack.pop().node_id)
        return checked[root]

    def _circle(self, graph: JsonDict, path: list[str], again: str, circles: dict[str, Errors]) -> _Checked:
        """Return what is said of a node that is reached from itself: 0.3.64 calls it invalid and says nothing."""
        if not self.release.names_missing_nodes:
            return _Checked(valid=False, errors=[])
        if again in circles:
            return _Checked(valid=False, errors=circles[again])
        members = path[path.index(again) :]
        details = " -> ".join(f"{each} ({graph[each]['class_type']})" for each in (*members, again))
        # Every error names every member: in a long circle only the node that closes it is told.
        for each in members if len(members) <= _LONGEST_CIRCLE_TOLD else [again]:
            extra = {"node_id": each, "cycle_nodes": members}
            circles[each] = [_error("dependency_cycle", "Dependency cycle detected", details, extra)]
        return _Checked(valid=False, errors=circles[again])

    def _check_node(self, graph: JsonDict, node_id: str) -> "Generator[_Asked, _Checked | None, _Checked]":
        """Check one node's inputs; yields each node that it is linked to and is sent what was found there."""
        inputs = graph[node_id]["inputs"]
        kind = self.classes[graph[node_id]["class_type"]]
        errors: Errors = []
        valid = True
        for each in open_inputs(kind.inputs, inputs).inputs():
            if each.name not in inputs:
                if not each.optional:
                    extra = {"input_name": each.name}
                    details = each.name.rpartition(".")[2]
                    errors.append(_error("required_input_missing", "Required input is missing", details, extra))
                continue
            value = inputs[each.name]
            config = input_config(kind, each, self.folders)
            told: JsonDict = {"input_name": each.name, "input_config": _told_config(kind, each, config)}
            if not isinstance(value, list):
                found = self._check_value(kind, each, inputs, told)
            elif not (found := self._check_link(graph, config[0], value, told)):
                above = yield _Asked(value[0], told | {"linked_node": value})
                valid = valid and above is not None and above.valid
            errors += found
        errors += self._complaints(kind, inputs)
        return _Checked(valid and not errors, errors)

    def _check_link(self, graph: JsonDict, wanted: JsonValue, link: list[Any], told: JsonDict) -> Errors:
        name = told["input_name"]
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return [_error("bad_linked_input", message, name, told | {"received_value": link})]
        received = self.classes[graph[link[0]]["class_type"]].outputs[link[1]]
        if _types_meet(received, wanted):
            return []
        details = f"{name}, received_type({received}) mismatch input_type({wanted})"
        extra = told | {"received_type": received, "linked_node": link}
        return [_error("return_type_mismatch", "Return type mismatch between linked nodes", details, extra)]

    def _check_value(self, kind: NodeClass, each: Input, inputs: JsonDict, told: JsonDict) -> Errors:
        value = inputs[each.name]
        if isinstance(value, dict) and "__value__" in value:
            value = inputs[each.name] = value["__value__"]
        if each.choices is None and each.type in _CONVERTERS:
            try:
                converted = inputs[each.name] = _CONVERTERS[each.type](value)
            except (TypeError, ValueError, OverflowError) as problem:
                message = f"Failed to convert an input value to a {each.type} value"
                extra = told | {"received_value": value, "exception_message": str(problem)}
                return [_error("invalid_input_type", message, f"{each.name}, {value}, {problem}", extra)]
            value = converted
        if each.name in kind.complaints:
            return []
        # 0.3.64 looks at the choices of its older classes alone; a modern class fails when it runs.
        unchecked = kind.modern and not self.release.checks_schema_choices
        return _out_of_bounds(each, value, told) + ([] if unchecked else self._not_in_list(each, value, told))

    def _not_in_list(self, each: Input, value: JsonValue, told: JsonDict) -> Errors:
        allowed = each.allowed(self.folders)
        if allowed is None or value in allowed:
            return []
        listed = str(allowed)
        if len(allowed) > _LONGEST_LIST_TOLD:
            listed, told = f"(list of length {len(allowed)})", told | {"input_config": None}
        shown = repr(value) if self.release.checks_schema_choices else f"'{value}'"
        details = f"{each.name}: {shown} not in {listed}"
        return [_error("value_not_in_list", "Value not in list", details, told | {"received_value": value})]

    def _complaints(self, kind: NodeClass, inputs: JsonDict) -> Errors:
        errors = []
        for name, complain in kind.complaints.items():
            value: Value = inputs.get(name)
            if name in inputs and not isinstance(value, list) and (reason := complain(self.folders, value)):
                extra = {"input_name": name}
                message = "Custom validation failed for node"
                errors.append(_error("custom_validation_failed", message, f"{name} - {reason}", extra))
        return errors


@dataclass(frozen=True, slots=True)
class _Asked:
    """A node wants to know about the node it is linked to."""

    source: str
    told: JsonDict


@dataclass(frozen=True, slots=True)
class _Frame:
    node_id: str
    steps: Generator[_Asked, _Checked | None, _Checked]
    asked: _Asked | None


def _told_config(kind: NodeClass, each: Input, config: list[JsonValue]) -> list[JsonValue]:
    """An input as errors write it: always with options, unlike the catalogue."""
    return config if len(config) > 1 else [*config, {}]


def _out_of_bounds(each: Input, value: Any, told: JsonDict) -> Errors:
    options = each.options or {}
    extra = told | {"received_value": value}
    low, high = options.get("min"), options.get("max")
    if low is not None and value < low:
        return [_error("value_smaller_than_min", f"Value {value} smaller than min of {low}", each.name, extra)]
    if high is not None and value > high:
        return [_error("value_bigger_than_max", f"Value {value} bigger than max of {high}", each.name, extra)]
    return []


def _types_meet(received: str, wanted: JsonValue) -> bool:
    """Return whether an output may feed an input: a type may be a list of types, or one that only the page checks."""
    if received == wanted or MATCHING in (received, wanted):
        return True
    offered, taken = ({part.strip() for part in str(each).split(",")} for each in (received, wanted))
    return "*" in offered | taken or bool(offered & taken)


def _no_class(node_id: str, node: JsonDict) -> Verdict:
    """Refuse a node without a class, or of an unknown one, as 0.3.64 does."""
    message = (
        f"Cannot execute because node {node['class_type']} does not exist."
        if "class_type" in node
        else "Cannot execute because a node is missing the class_type property."
    )
    return _refused("invalid_prompt", message, f"Node ID '#{node_id}'")


def _missing_node(node_id: str, node: JsonDict) -> Verdict:
    """Refuse it as 0.33 does, which names it by its title."""
    class_type = node.get("class_type")
    title = node.get("_meta", {}).get("title", class_type)
    message = (
        f"Node '{title}' not found. The custom node may not be installed."
        if "class_type" in node
        else f"Node '{title or f'ID #{node_id}'}' has no class_type. "
        "The workflow may be corrupted or a custom node is missing."
    )
    extra = {"node_id": node_id, "class_type": class_type, "node_title": title}
    return Verdict(error=_error("missing_node_type", message, f"Node ID '#{node_id}'", extra))


def _refused(kind: str, message: str, details: str) -> Verdict:
    return Verdict(error=_error(kind, message, details, {}))


def _errors_of(node: JsonDict, errors: Errors) -> JsonDict:
    return {"errors": errors, "dependent_outputs": [], "class_type": node["class_type"]}


def _error(kind: str, message: str, details: str, extra: JsonDict) -> dict[str, JsonValue]:
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def _crashed(problem: Exception) -> dict[str, JsonValue]:
    extra = {"exception_type": full_name(problem), "traceback": traceback.format_tb(problem.__traceback__)}
    return _error("exception_during_validation", "Exception when validating node", str(problem), extra)


def _inner_crash(problem: Exception, asked: _Asked) -> dict[str, JsonValue]:
    extra = asked.told | {
        "exception_message": str(problem),
        "exception_type": full_name(problem),
        "traceback": traceback.format_tb(problem.__traceback__),
    }
    message = "Exception when validating inner node"
    return _error("exception_during_inner_validation", message, str(problem), extra)


def full_name(problem: BaseException) -> str:
    """The name of an exception's class as ComfyUI reports it: with its module, unless it is Python's own."""
    kind = type(problem)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"

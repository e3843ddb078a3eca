"""Checks a submitted graph as ComfyUI does, with its error bodies, but without recursion."""

import traceback
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from comfypin.digest import JsonValue
from comfypin.engine.embedded.catalogue import describe_input
from comfypin.engine.embedded.declare import MATCHING, NodeClass, NodeInput, NodeValue
from comfypin.engine.embedded.dynamic_inputs import resolve_inputs
from comfypin.engine.embedded.folders import EngineFolders
from comfypin.engine.embedded.releases import DEFAULT_RELEASE, ComfyRelease

Errors: TypeAlias = "list[dict[str, JsonValue]]"
JsonDict: TypeAlias = "dict[str, Any]"

# ComfyUI's own limit: longer lists of choices are not written into its errors.
_LONGEST_LISTED_CHOICE = 20
_LONGEST_LISTED_CYCLE = 100
_CONVERTERS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Says whether a graph runs: `error` is None if at least one output does; `outputs` lists these."""

    error: Mapping[str, JsonValue] | None
    outputs: tuple[str, ...] = ()
    node_errors: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _CheckResult:
    valid: bool
    errors: Errors


@dataclass(frozen=True, slots=True)
class Validator:
    """Checks graphs against the classes; converts numbers and texts to their input's type in place."""

    classes: Mapping[str, NodeClass]
    folders: EngineFolders
    release: ComfyRelease = DEFAULT_RELEASE

    def check_graph(self, graph: JsonDict, wanted_outputs: frozenset[str] | None = None) -> Verdict:
        """Check a graph; with `wanted_outputs`, only these output nodes.

        Raises what Python raises for a graph of the wrong shape (a list, a node that is a number): ComfyUI answers 500.
        """
        for node_id in graph:
            node = graph[node_id]
            if "class_type" not in node or node["class_type"] not in self.classes:
                return _missing_node(node_id, node) if self.release.names_missing_nodes else _no_class(node_id, node)
        outputs = [node_id for node_id in graph if self.classes[graph[node_id]["class_type"]].is_output]
        outputs = [node_id for node_id in outputs if wanted_outputs is None or node_id in wanted_outputs]
        if not outputs:
            return _refuse_prompt("prompt_no_outputs", "Prompt has no outputs", "")
        return self._check_outputs(graph, outputs)

    def _check_outputs(self, graph: JsonDict, outputs: list[str]) -> Verdict:
        """Check each output with all nodes above it; the graph runs if one of them is valid."""
        checked: dict[str, _CheckResult] = {}
        valid_outputs: list[str] = []
        output_errors: Errors = []
        node_errors: dict[str, JsonDict] = {}
        for output in outputs:
            try:
                result = self._check_tree(graph, output, checked)
            except Exception as problem:  # noqa: BLE001, a graph may be wrong in any way; the client is told which
                result = checked[output] = _CheckResult(valid=False, errors=[_describe_crash(problem)])
            if result.valid:
                valid_outputs.append(output)
                continue
            output_errors += result.errors
            for node_id, check_result in checked.items():
                if not check_result.valid and check_result.errors:
                    node_entry = node_errors.setdefault(node_id, _node_entry(graph[node_id], check_result.errors))
                    node_entry["dependent_outputs"].append(output)
        if valid_outputs:
            return Verdict(error=None, outputs=tuple(valid_outputs), node_errors=node_errors)
        details = "\n".join(
            dict.fromkeys(f"{output_error['message']}: {output_error['details']}" for output_error in output_errors)
        )
        refusal = _refuse_prompt("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
        return Verdict(error=refusal.error, node_errors=node_errors)

    def _check_tree(self, graph: JsonDict, root: str, checked: dict[str, _CheckResult]) -> _CheckResult:
        """Check a node and all above it, on an explicit stack: graphs are deeper than Python's own."""
        if root in checked:
            return checked[root]
        stack = [_CheckFrame(root, self._check_node(graph, root), None)]
        open_ids = {root}
        cycles: dict[str, Errors] = {}
        result: _CheckResult | None = None
        while stack:
            frame = stack[-1]
            try:
                request = frame.steps.send(result)
            except StopIteration as end:
                result = end.value
            except Exception as problem:  # a graph may be wrong in any way; the client is told which
                # The output node itself: `_check_outputs` describes its crash in other words.
                if frame.request is None:
                    raise
                result = _CheckResult(valid=False, errors=[_describe_inner_crash(problem, frame.request)])
            else:
                # Each node is checked once, however many others it feeds.
                result = checked.get(request.source)
                if result is None and request.source in open_ids:
                    result = self._report_cycle(
                        graph, [open_frame.node_id for open_frame in stack], request.source, cycles
                    )
                elif result is None:
                    stack.append(_CheckFrame(request.source, self._check_node(graph, request.source), request))
                    open_ids.add(request.source)
                continue
            if cycle_errors := cycles.get(frame.node_id):
                result = _CheckResult(valid=False, errors=[*cycle_errors, *result.errors])
            checked[frame.node_id] = result
            open_ids.discard(stack.pop().node_id)
        return checked[root]

    def _report_cycle(self, graph: JsonDict, path: list[str], repeated: str, cycles: dict[str, Errors]) -> _CheckResult:
        """Return the errors of a node that is reached from itself: 0.3.64 calls it invalid and reports nothing."""
        if not self.release.names_missing_nodes:
            return _CheckResult(valid=False, errors=[])
        if repeated in cycles:
            return _CheckResult(valid=False, errors=cycles[repeated])
        members = path[path.index(repeated) :]
        details = " -> ".join(f"{member} ({graph[member]['class_type']})" for member in (*members, repeated))
        # Every error names every member, so in a long cycle only the node that closes it gets one.
        for member in members if len(members) <= _LONGEST_LISTED_CYCLE else [repeated]:
            extra_info = {"node_id": member, "cycle_nodes": members}
            cycles[member] = [_make_error("dependency_cycle", "Dependency cycle detected", details, extra_info)]
        return _CheckResult(valid=False, errors=cycles[repeated])

    def _check_node(
        self, graph: JsonDict, node_id: str
    ) -> "Generator[_SourceRequest, _CheckResult | None, _CheckResult]":
        """Check one node's inputs; yield each node that it is linked to, and receive that node's result."""
        inputs = graph[node_id]["inputs"]
        node_class = self.classes[graph[node_id]["class_type"]]
        errors: Errors = []
        valid = True
        for node_input in resolve_inputs(node_class.inputs, inputs).node_inputs():
            if node_input.name not in inputs:
                if not node_input.optional:
                    extra_info = {"input_name": node_input.name}
                    # ComfyUI names the part of a group without its group.
                    details = node_input.name.rpartition(".")[2]
                    errors.append(
                        _make_error("required_input_missing", "Required input is missing", details, extra_info)
                    )
                continue
            value = inputs[node_input.name]
            config = describe_input(node_class, node_input, self.folders)
            input_info: JsonDict = {
                "input_name": node_input.name,
                "input_config": _complete_config(node_class, node_input, config),
            }
            if not isinstance(value, list):
                input_errors = self._check_value(node_class, node_input, inputs, input_info)
            elif not (input_errors := self._check_link(graph, config[0], value, input_info)):
                source_result = yield _SourceRequest(value[0], input_info | {"linked_node": value})
                valid = valid and source_result is not None and source_result.valid
            errors += input_errors
        errors += self._collect_complaints(node_class, inputs)
        return _CheckResult(valid and not errors, errors)

    def _check_link(self, graph: JsonDict, wanted_type: JsonValue, link: list[Any], input_info: JsonDict) -> Errors:
        input_name = input_info["input_name"]
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return [_make_error("bad_linked_input", message, input_name, input_info | {"received_value": link})]
        # An index that does not exist raises here, and becomes a crash in the answer, as in ComfyUI.
        received = self.classes[graph[link[0]]["class_type"]].outputs[link[1]]
        if _types_match(received, wanted_type):
            return []
        details = f"{input_name}, received_type({received}) mismatch input_type({wanted_type})"
        extra_info = input_info | {"received_type": received, "linked_node": link}
        return [_make_error("return_type_mismatch", "Return type mismatch between linked nodes", details, extra_info)]

    def _check_value(
        self, node_class: NodeClass, node_input: NodeInput, inputs: JsonDict, input_info: JsonDict
    ) -> Errors:
        """Convert a value to its input's type, in place, and check it."""
        value = inputs[node_input.name]
        # The page wraps a value that is a list like this, so that it is not taken for a link.
        if isinstance(value, dict) and "__value__" in value:
            value = inputs[node_input.name] = value["__value__"]
        if node_input.choices is None and node_input.type in _CONVERTERS:
            try:
                converted = inputs[node_input.name] = _CONVERTERS[node_input.type](value)
            # int("1e999") and int(float("inf")) raise different errors.
            except (TypeError, ValueError, OverflowError) as problem:
                message = f"Failed to convert an input value to a {node_input.type} value"
                extra_info = input_info | {"received_value": value, "exception_message": str(problem)}
                return [
                    _make_error("invalid_input_type", message, f"{node_input.name}, {value}, {problem}", extra_info)
                ]
            value = converted
        # A class with its own check of an input replaces the general ones, as VALIDATE_INPUTS does.
        if node_input.name in node_class.complaints:
            return []
        # 0.3.64 looks at the choices of its older classes alone; a modern class fails when it runs.
        choices_unchecked = node_class.modern and not self.release.checks_schema_choices
        return _out_of_bounds(node_input, value, input_info) + (
            [] if choices_unchecked else self._not_in_list(node_input, value, input_info)
        )

    def _not_in_list(self, node_input: NodeInput, value: JsonValue, input_info: JsonDict) -> Errors:
        allowed_values = node_input.allowed_values(self.folders)
        if allowed_values is None or value in allowed_values:
            return []
        listed_values = str(allowed_values)
        if len(allowed_values) > _LONGEST_LISTED_CHOICE:
            listed_values, input_info = f"(list of length {len(allowed_values)})", input_info | {"input_config": None}
        shown_value = repr(value) if self.release.checks_schema_choices else f"'{value}'"
        details = f"{node_input.name}: {shown_value} not in {listed_values}"
        return [_make_error("value_not_in_list", "Value not in list", details, input_info | {"received_value": value})]

    def _collect_complaints(self, node_class: NodeClass, inputs: JsonDict) -> Errors:
        errors = []
        for input_name, complain in node_class.complaints.items():
            value: NodeValue = inputs.get(input_name)
            if input_name in inputs and not isinstance(value, list) and (reason := complain(self.folders, value)):
                extra_info = {"input_name": input_name}
                message = "Custom validation failed for node"
                errors.append(_make_error("custom_validation_failed", message, f"{input_name} - {reason}", extra_info))
        return errors


@dataclass(frozen=True, slots=True)
class _SourceRequest:
    """Asks for the result of the node that an input is linked to."""

    source: str
    input_info: JsonDict


@dataclass(frozen=True, slots=True)
class _CheckFrame:
    node_id: str
    steps: Generator[_SourceRequest, _CheckResult | None, _CheckResult]
    request: _SourceRequest | None


def _complete_config(node_class: NodeClass, node_input: NodeInput, config: list[JsonValue]) -> list[JsonValue]:
    """Return an input as errors write it: always with options, unlike the catalogue."""
    return config if len(config) > 1 else [*config, {}]


def _out_of_bounds(node_input: NodeInput, value: Any, input_info: JsonDict) -> Errors:
    """Return the error of a number outside its input's bounds."""
    options = node_input.options or {}
    extra_info = input_info | {"received_value": value}
    minimum, maximum = options.get("min"), options.get("max")
    if minimum is not None and value < minimum:
        return [
            _make_error(
                "value_smaller_than_min", f"Value {value} smaller than min of {minimum}", node_input.name, extra_info
            )
        ]
    if maximum is not None and value > maximum:
        return [
            _make_error(
                "value_bigger_than_max", f"Value {value} bigger than max of {maximum}", node_input.name, extra_info
            )
        ]
    return []


def _types_match(received: str, wanted_type: JsonValue) -> bool:
    """Return whether an output may feed an input: a type may be a list of types, or one that only the page checks."""
    if received == wanted_type or MATCHING in (received, wanted_type):
        return True
    # Types may be lists, such as "INT,FLOAT"; "*" matches anything.
    offered_types, accepted_types = (
        {part.strip() for part in str(type_name).split(",")} for type_name in (received, wanted_type)
    )
    return "*" in offered_types | accepted_types or bool(offered_types & accepted_types)


def _no_class(node_id: str, node: JsonDict) -> Verdict:
    """Refuse a node that has no class, or an unknown one, as 0.3.64 does."""
    message = (
        f"Cannot execute because node {node['class_type']} does not exist."
        if "class_type" in node
        else "Cannot execute because a node is missing the class_type property."
    )
    return _refuse_prompt("invalid_prompt", message, f"Node ID '#{node_id}'")


def _missing_node(node_id: str, node: JsonDict) -> Verdict:
    """Refuse such a node as 0.33 does, which names it by its title."""
    class_type = node.get("class_type")
    title = node.get("_meta", {}).get("title", class_type)
    message = (
        f"Node '{title}' not found. The custom node may not be installed."
        if "class_type" in node
        else f"Node '{title or f'ID #{node_id}'}' has no class_type. "
        "The workflow may be corrupted or a custom node is missing."
    )
    extra_info = {"node_id": node_id, "class_type": class_type, "node_title": title}
    return Verdict(error=_make_error("missing_node_type", message, f"Node ID '#{node_id}'", extra_info))


def _refuse_prompt(error_type: str, message: str, details: str) -> Verdict:
    return Verdict(error=_make_error(error_type, message, details, {}))


def _node_entry(node: JsonDict, errors: Errors) -> JsonDict:
    return {"errors": errors, "dependent_outputs": [], "class_type": node["class_type"]}


def _make_error(error_type: str, message: str, details: str, extra_info: JsonDict) -> dict[str, JsonValue]:
    return {"type": error_type, "message": message, "details": details, "extra_info": extra_info}


def _describe_crash(exception: Exception) -> dict[str, JsonValue]:
    extra_info = {
        "exception_type": exception_name(exception),
        "traceback": traceback.format_tb(exception.__traceback__),
    }
    return _make_error("exception_during_validation", "Exception when validating node", str(exception), extra_info)


def _describe_inner_crash(exception: Exception, request: _SourceRequest) -> dict[str, JsonValue]:
    extra_info = request.input_info | {
        "exception_message": str(exception),
        "exception_type": exception_name(exception),
        "traceback": traceback.format_tb(exception.__traceback__),
    }
    message = "Exception when validating inner node"
    return _make_error("exception_during_inner_validation", message, str(exception), extra_info)


def exception_name(exception: BaseException) -> str:
    """Return an exception's class as ComfyUI reports it: with its module, unless it is Python's own."""
    error_class = type(exception)
    return (
        error_class.__qualname__
        if error_class.__module__ == "builtins"
        else f"{error_class.__module__}.{error_class.__qualname__}"
    )

"""Parses why a ComfyUI refused a prompt, or which branches it dropped. Pure; raises nothing."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from comfypin.digest import JsonValue
from comfypin.workflow.errors import NodeProblem
from comfypin.workflow.graph import NodeId

# "Cannot execute because node NAME does not exist." (0.3.64), "Node 'NAME' not found. ..." (0.33).
_CLASS_IN_MESSAGE = re.compile(r"\bnode '?(.+?)'? (?:does not exist|not found)", re.IGNORECASE)
_NODE_IN_DETAILS = re.compile(r"Node ID '#(.+?)'")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRefusal:
    """Says why POST /prompt refused, or which branches it dropped: `outputs` are the output nodes that will not run."""

    reason: str
    problems: tuple[NodeProblem, ...] = ()
    outputs: tuple[NodeId, ...] = ()


def parse_refusal(response_body: JsonValue) -> PromptRefusal | None:
    """Read the body of a 400, or of a 200 with `node_errors`; None if it is neither."""
    if not isinstance(response_body, dict):
        return None
    nodes = response_body.get("node_errors")
    # An empty list stands for no errors in ComfyUI's answers.
    nodes = nodes if isinstance(nodes, dict) else {}
    error = response_body.get("error")
    if not nodes and error is None:
        return None
    outputs = dict.fromkeys(output for node in nodes.values() for output in _dependent_outputs(node))
    problems = tuple(problem for node_id, node in nodes.items() for problem in _node_problems(node_id, node))
    return PromptRefusal(
        reason=_refusal_reason(error) if error is not None else "some of its outputs failed validation",
        problems=problems or tuple(_missing_class(error)),
        outputs=tuple(outputs),
    )


def _missing_class(error: JsonValue) -> Iterator[NodeProblem]:
    """Yield the node whose class the engine lacks: newer engines name it in `extra_info`, older ones in `details`."""
    if not isinstance(error, dict) or error.get("type") not in ("missing_node_type", "invalid_prompt"):
        return
    extra_info = error.get("extra_info")
    extra_info = extra_info if isinstance(extra_info, dict) else {}
    in_details = _NODE_IN_DETAILS.search(_optional_text(error.get("details")) or "")
    node_id = _optional_text(extra_info.get("node_id")) or (in_details[1] if in_details else None)
    if node_id is None:
        return
    message = _optional_text(error.get("message")) or "its class is not known"
    class_match = _CLASS_IN_MESSAGE.search(message)
    yield NodeProblem(
        node_id=node_id,
        class_type=_optional_text(extra_info.get("class_type")) or (class_match[1] if class_match else "unknown class"),
        problem="missing_node_type",
        message=message,
    )


def _refusal_reason(error: JsonValue) -> str:
    if not isinstance(error, dict):
        return str(error)
    message, details = (
        _optional_text(error.get("message")) or "it did not say why",
        _optional_text(error.get("details")) or "",
    )
    message = message.strip().rstrip(".")
    return message if not details or details == message or details.rstrip(".") == message else f"{message}: {details}"


def _dependent_outputs(node: JsonValue) -> Iterator[NodeId]:
    outputs = node.get("dependent_outputs") if isinstance(node, dict) else None
    yield from (str(output) for output in outputs) if isinstance(outputs, list) else ()


def _node_problems(node_id: NodeId, node: JsonValue) -> Iterator[NodeProblem]:
    """Yield what is wrong with one node's inputs."""
    if not isinstance(node, dict):
        return
    errors = node.get("errors")
    for error in errors if isinstance(errors, list) else ():
        if not isinstance(error, dict):
            continue
        extra_info = error.get("extra_info")
        extra_info = extra_info if isinstance(extra_info, dict) else {}
        yield NodeProblem(
            node_id=node_id,
            class_type=_optional_text(node.get("class_type")) or "unknown class",
            problem=_optional_text(error.get("type")) or "unknown",
            message=_problem_message(error, extra_info),
            input_name=_optional_text(extra_info.get("input_name")),
            received=_received_value(extra_info),
            allowed=_allowed_values(_optional_text(error.get("type")), extra_info.get("input_config")),
        )


def _problem_message(error: Mapping[str, JsonValue], extra_info: Mapping[str, JsonValue]) -> str:
    """Return ComfyUI's sentence, with its details if they say more than the input, the value and the list do."""
    message, details = _optional_text(error.get("message")) or "invalid", _optional_text(error.get("details")) or ""
    is_repeated = (
        details in ("", message, _optional_text(extra_info.get("input_name")))
        or error.get("type") == "value_not_in_list"
    )
    return message if is_repeated else f"{message} ({details})"


def _received_value(extra_info: Mapping[str, JsonValue]) -> JsonValue:
    return extra_info.get("received_value", extra_info.get("received_type"))


def _allowed_values(problem: str | None, config: JsonValue) -> tuple[object, ...] | None:
    """Return what an input may be, by its `input_config`: `[[names], {}]`, `["COMBO", {"options": names}]`, ..."""
    if not isinstance(config, list) or not config:
        return None
    type_or_names, options = config[0], config[1] if len(config) > 1 and isinstance(config[1], dict) else {}
    if isinstance(type_or_names, list):
        return tuple(type_or_names)
    # Classes of the newer schema list their choices in the options, not as the type.
    if isinstance(names := options.get("options"), list):
        return tuple(names)
    if problem in ("value_bigger_than_max", "value_smaller_than_min"):
        return (options.get("min"), options.get("max"))
    return (type_or_names,)


def _optional_text(value: JsonValue) -> str | None:
    return None if value is None else str(value)

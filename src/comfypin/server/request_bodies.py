"""Parses what clients send: Runpod's body of a job, and the inputs of a workflow by name."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from comfypin.addresses import is_public, normalize_host
from comfypin.digest import JsonValue
from comfypin.jobs.errors import JobInvalid
from comfypin.jobs.job_input import MAX_MODELS, input_of_platform_job, parse_model_wish
from comfypin.queue.interface import ANY_ROUTE, PRIORITIES, JobRoute
from comfypin.queue.webhook_records import EVENT_NAMES, EventName
from comfypin.server.errors import RequestInvalid, RequestTooComplex
from comfypin.validation_words import describe_problem
from comfypin.workflow.inputs_file import overrides_by_name
from comfypin.workflow.settable_inputs import WorkflowInput

MAX_VALUES = 200_000
"""A quarter of a second to parse; the largest workflow that we know of has a tenth of it."""
# Python decodes them one by one, and holds all threads meanwhile.
MAX_ESCAPES = 2_000_000
# Far above what people nest; Python's own recursion ends near a thousand levels.
MAX_LEVELS = 100
_TOO_DEEP = f"its JSON has more than {MAX_LEVELS} levels"
# Counting holds Python's lock: small pieces let other threads in between.
_COUNTED_AT_ONCE = 1 << 18
_PROXY_HOST = ".proxy.runpod.net"
# Ten seconds below the proxy's own 100, for the way back.
_PROXY_WAIT_MS = 90_000
# Runpod's limit for `executionTimeout` and `ttl`.
_LONGEST_MS = 7 * 86_400_000
# Enough for any order; a number without a limit would be a client's way past all others for good.
MOST_PRIORITY = 1000
LOW_PRIORITY = -1
_LONGEST_ROUTE = 100
_ADDRESS = re.compile(r"^(https?|s3|gs)://")
_DATA = re.compile(r"^data:[a-z]+/([a-z0-9]+)[;,]", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """One job as /run takes it. Times in seconds."""

    input: object
    webhook: str | None = None
    webhook_events: tuple[EventName, ...] | None = None
    timeout_s: float | None = None
    ttl_s: float | None = None
    route: JobRoute = ANY_ROUTE


def parse_json_body(request_body: bytes) -> object:
    """Read a body. Raises `RequestInvalid`, `RequestTooComplex`; numbers that JSON does not have are refused.

    Slow for a large body, so meant for a thread. But Python's parser holds all threads until it is done: 57 MB
    of `[],[],...` are half a minute. So what it would make is counted first, from above: commas in texts count too.
    """
    mark_count = escape_count = 0
    for start in range(0, len(request_body), _COUNTED_AT_ONCE):
        chunk = request_body[start : start + _COUNTED_AT_ONCE]
        mark_count += sum(map(chunk.count, (b",", b"[", b"{")))
        escape_count += chunk.count(b"\\")
    if mark_count > MAX_VALUES:
        raise RequestTooComplex(what="values", most=MAX_VALUES)
    if escape_count > MAX_ESCAPES:
        raise RequestTooComplex(what="escaped characters", most=MAX_ESCAPES)
    try:
        # NaN and Infinity are Python's, not JSON's: the engine would refuse them, or worse, compute with them.
        document = json.loads(request_body, parse_constant=_refuse_constant, parse_float=_parse_finite)
    except RecursionError as exc:
        raise RequestInvalid(reason=_TOO_DEEP) from exc
    except ValueError as exc:
        raise RequestInvalid(reason="its body is not JSON") from exc
    _require_shallow(document)
    return document


def _require_shallow(document: object) -> None:
    """Raise `RequestInvalid` for what later code, which goes down level by level, could not go through."""
    level: list[object] = [document]
    for _ in range(MAX_LEVELS):
        level = [
            item
            for sent_value in level
            if isinstance(sent_value, dict | list)
            for item in (sent_value.values() if isinstance(sent_value, dict) else sent_value)
        ]
        if not level:
            return
    raise RequestInvalid(reason=_TOO_DEEP)


def read_job_request(request_body: bytes) -> JobRequest:
    """Read a body of /run. Raises as `parse_json_body` and `parse_job_request`."""
    return parse_job_request(parse_json_body(request_body))


def parse_job_request(document: object) -> JobRequest:
    """Read Runpod's body of a job: `input`, `webhook`, `webhook_events`, `policy`, `s3Config`. Raises `RequestInvalid`.

    An `input` that is JSON as a text becomes what the text says, so that all that is known of jobs holds for it too.
    """
    if not isinstance(document, dict):
        raise RequestInvalid(reason="its body must be an object with `input`")
    if document.get("input") is None:
        raise RequestInvalid(reason="its body has no `input`")
    webhook = document.get("webhook")
    if webhook is not None and not _is_http_address(webhook):
        raise RequestInvalid(reason="`webhook` must be an http:// or https:// address")
    policy = document.get("policy")
    if policy is not None and not isinstance(policy, dict):
        raise RequestInvalid(reason="`policy` must be an object")
    return JobRequest(
        input=input_of_platform_job({**document, "input": _read_input(document["input"])}),
        webhook=webhook,
        webhook_events=_read_events(document.get("webhook_events"), webhook),
        timeout_s=_policy_seconds(policy or {}, "executionTimeout"),
        ttl_s=_policy_seconds(policy or {}, "ttl"),
        route=_read_route(policy or {}),
    )


def _read_events(names: object, webhook: object) -> tuple[EventName, ...] | None:
    if names is None:
        return None
    if webhook is None:
        raise RequestInvalid(reason="`webhook_events` needs a `webhook` that is told of them")
    if not isinstance(names, list) or not names or not all(event_name in EVENT_NAMES for event_name in names):
        raise RequestInvalid(reason=f"`webhook_events` must be a list of {', '.join(EVENT_NAMES)}")
    return tuple(event_name for event_name in EVENT_NAMES if event_name in names)


def _read_input(media_input: object) -> object:
    if not isinstance(media_input, str):
        return media_input
    try:
        return parse_json_body(media_input.encode(errors="replace"))
    except RequestInvalid as exc:
        if _TOO_DEEP in exc.message:
            raise
        return media_input  # the job fails with what is wrong in it


def longest_wait_s(hostname: str | None, asked_ms: int) -> float:
    """Return how long a request may wait for its job's end: behind Runpod's proxy not longer than that waits.

    The proxy cuts what has not begun to answer within 100 s; then the client would not even have the job's id.
    """
    # The host name tells: Runpod's proxy passes it on unchanged.
    proxied = (hostname or "").endswith(_PROXY_HOST)
    return (min(asked_ms, _PROXY_WAIT_MS) if proxied else asked_ms) / 1000


def job_for_workflow(workflow_name: str, values: object, inputs: Sequence[WorkflowInput]) -> Mapping[str, JsonValue]:
    """Return the job that runs a workflow of the image with inputs by name. Raises `RequestInvalid`, `OverrideInvalid`.

    A file is an address, a data URI, or the name of a file beside the workflow. `models` are those that the job brings,
    unless the workflow has an input of that name.
    """
    if not isinstance(values, dict):
        raise RequestInvalid(reason="its body must be an object of the workflow's inputs")
    models: list[JsonValue] = []
    if takes_models(inputs) and "models" in values:
        models = _read_models(values["models"])
        values = {field_name: value for field_name, value in values.items() if field_name != "models"}
    overrides = overrides_by_name(values, inputs)
    files = {
        f"{node_id}.{input_name}": replace(workflow_input, node_id=node_id, input_name=input_name)
        for workflow_input in inputs
        if workflow_input.kind == "file"
        for node_id, input_name in workflow_input.places
    }
    media: list[JsonValue] = []
    changes: dict[str, JsonValue] = {}
    for override in overrides:
        file_input = files.get(override.target)
        media_input = _media_input(file_input, override.value) if file_input is not None else None
        if media_input is None:
            changes[override.target] = override.value
        else:
            media.append(media_input)
    return {
        "workflow_name": workflow_name,
        "set": changes,
        **({"inputs": media} if media else {}),
        **({"models": models} if models else {}),
    }


def takes_models(inputs: Sequence[WorkflowInput]) -> bool:
    """Return whether `models` beside the inputs of a workflow means models: unless it is the name of an input."""
    return all(workflow_input.name != "models" for workflow_input in inputs)


def _read_models(sent_value: object) -> list[JsonValue]:
    if not isinstance(sent_value, list) or len(sent_value) > MAX_MODELS:
        raise RequestInvalid(reason=f"`models` must be a list of at most {MAX_MODELS} models")
    for number, model in enumerate(sent_value):
        try:
            parse_model_wish(model)
        except JobInvalid as exc:
            raise RequestInvalid(reason=f"`models.{number}`: {'; '.join(exc.findings)}") from exc
    return sent_value


def _media_input(workflow_input: WorkflowInput, sent_value: JsonValue) -> Mapping[str, JsonValue] | None:
    if not isinstance(sent_value, str):
        return None
    file_name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{workflow_input.node_id}-{workflow_input.input_name}")
    if data_match := _DATA.match(sent_value):
        return {"name": f"{file_name}.{data_match[1].lower()}", "data": sent_value, "node": workflow_input.node_id}
    if _ADDRESS.match(sent_value):
        suffix = PurePosixPath(re.split(r"[?#]", sent_value)[0].partition("://")[2].partition("/")[2]).suffix
        return {"name": f"{file_name}{suffix}", "url": sent_value, "node": workflow_input.node_id}
    return None


def require_public_webhook(webhook: str | None) -> None:
    """Refuse a webhook whose address is private as it is written; names are asked for when it is posted.

    Raises `RequestInvalid`.
    """
    if webhook is None:
        return
    try:
        host = normalize_host(urlsplit(webhook).hostname or "")
        is_private = host == "localhost" or not is_public(host)
    except ValueError:
        # A name, or no host at all, which the post says.
        return
    if is_private:
        raise RequestInvalid(
            reason=f"`webhook` leads to the private address {host}; name a public one, or have the server started with "
            "--allow-private-inputs"
        )


def describe_mismatch(errors: Sequence[Mapping[str, Any]]) -> str:
    """Return what FastAPI found wrong with the parameters of a request, each where it stands."""
    findings = []
    for error in errors:
        place, *path = (str(step) for step in error["loc"])
        name = f"`{'.'.join(path)}` in the {place}" if path else f"the {place}"
        findings.append(f"{name}: {describe_problem(error)}")
    return "; ".join(findings)


def _is_http_address(sent_value: object) -> bool:
    if not isinstance(sent_value, str) or len(sent_value) > 2000 or not sent_value.isprintable():
        return False
    try:
        address_parts = urlsplit(sent_value)
        return (
            address_parts.scheme in ("http", "https") and bool(address_parts.hostname) and (address_parts.port or 1) > 0
        )
    except ValueError:
        return False


def _read_route(policy: Mapping[str, Any]) -> JobRoute:
    """Read which workers may run a job, and how soon; Runpod's own policy has `lowPriority` alone."""
    rank = _policy_rank(policy)
    for field_name in ("gpuClass", "release"):
        route_value = policy.get(field_name)
        if route_value is not None and not (isinstance(route_value, str) and 0 < len(route_value) <= _LONGEST_ROUTE):
            raise RequestInvalid(reason=f"`policy.{field_name}` must be a text of at most {_LONGEST_ROUTE} characters")
    return JobRoute(
        priority="high" if rank > 0 else "normal",
        rank=rank,
        gpu_class=policy.get("gpuClass"),
        release=policy.get("release"),
    )


def _policy_seconds(policy: Mapping[str, Any], field_name: str) -> float | None:
    sent_value = policy.get(field_name)
    if sent_value is None:
        return None
    if isinstance(sent_value, bool) or not isinstance(sent_value, int | float) or not 0 < sent_value <= _LONGEST_MS:
        raise RequestInvalid(reason=f"`policy.{field_name}` must be milliseconds, up to 7 days")
    return sent_value / 1000


def _policy_rank(policy: Mapping[str, Any]) -> int:
    """Read `policy.priority`, a name or a number, or Runpod's `lowPriority`."""
    low, priority = policy.get("lowPriority"), policy.get("priority")
    if low is not None and not isinstance(low, bool):
        raise RequestInvalid(reason="`policy.lowPriority` must be true or false")
    if priority is None:
        return LOW_PRIORITY if low else 0
    if isinstance(priority, str):
        if priority not in PRIORITIES:
            raise RequestInvalid(reason=f"`policy.priority` must be {' or '.join(PRIORITIES)}, or a whole number")
        return int(priority == "high")
    return read_priority(priority, "`policy.priority`")


def read_priority(sent_value: object, field_name: str) -> int:
    """Read a priority. Raises `RequestInvalid`."""
    if isinstance(sent_value, bool) or not isinstance(sent_value, int) or abs(sent_value) > MOST_PRIORITY:
        raise RequestInvalid(reason=f"{field_name} must be a whole number from -{MOST_PRIORITY} to {MOST_PRIORITY}")
    return sent_value


def _parse_finite(number_text: str) -> float:
    number = float(number_text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(number_text)
    return number


def _refuse_constant(constant: str) -> object:
    raise ValueError(constant)

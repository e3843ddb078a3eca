"""Read a workflow file's JSON within limits, unwrap it, and tell its format."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from comfypin.digest import JsonValue
from comfypin.text_encoding import decode_json
from comfypin.workflow.errors import WorkflowUnreadable

WorkflowFormat = Literal["api", "ui", "empty"]

# Far beyond the largest public workflows, and still read within a second.
MAX_BYTES = 32 << 20
# Far above what people nest; Python's own recursion ends near a thousand levels.
MAX_DEPTH = 100
# Far above what a page can still draw.
MAX_NODES = 20_000
# Bounds memory and time of parsing before anything is known of the document.
MAX_VALUES = 3_000_000

# {"prompt": ...} is ComfyUI's POST body, {"input": {"workflow": ...}} a serverless worker's, {"output", "workflow"}
# what the page's own function returns; if both formats are there, the API one comes first.
_WRAPPERS = ("prompt", "output", "workflow", "input")
# Servers wrap a prompt once or twice (`input`, `prompt`).
_MAX_WRAPPERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A workflow as unwrapped JSON: `api` (nodes by id), `ui` (what Save writes), or `empty` (`{}`).

    `extra_data` is what a whole body of POST /prompt had beside the graph; it may hold secrets.
    """

    source: str
    format: WorkflowFormat
    content: Mapping[str, JsonValue]
    extra_data: Mapping[str, JsonValue] = field(default_factory=dict, repr=False)


def read_document(json_text: bytes | str, *, source: str) -> Document:
    """Read the bytes of a JSON file. Raises `WorkflowUnreadable`.

    NaN and infinities, which Python writes and JSON does not have, become null as in ComfyUI's page.
    """
    if len(json_text) > MAX_BYTES:
        reason = f"it has {len(json_text):,} bytes, and a workflow may have at most {MAX_BYTES:,}"
        raise WorkflowUnreadable(source=source, reason=reason)
    try:
        document_text = json_text if isinstance(json_text, str) else decode_json(json_text)
        json_value: object = json.loads(document_text.removeprefix("\ufeff"), parse_constant=lambda _name: None)
    except UnicodeDecodeError as exc:
        raise WorkflowUnreadable(
            source=source, reason=f"it is not text in {exc.encoding.upper()} (byte {exc.start})"
        ) from exc
    except json.JSONDecodeError as exc:
        reason = f"it is not JSON (line {exc.lineno}, column {exc.colno}: {exc.msg})"
        raise WorkflowUnreadable(source=source, reason=reason) from exc
    except ValueError as exc:
        raise WorkflowUnreadable(source=source, reason=f"its JSON holds a number that is too long ({exc})") from exc
    except RecursionError as exc:
        raise WorkflowUnreadable(source=source, reason="its JSON is nested too deeply") from exc
    return to_document(json_value, source=source)


def to_document(json_value: object, *, source: str) -> Document:
    """Unwrap a JSON value and tell its format. Raises `WorkflowUnreadable`."""
    extra_data: Mapping[str, JsonValue] = {}
    # A file inside wrappers inside wrappers: bounded, so that a hostile file cannot keep us unwrapping.
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(json_value, Mapping):
            raise WorkflowUnreadable(
                source=source, reason=f"it is {_name_json_kind(json_value)}, and a workflow is a JSON object"
            )
        if "schema_version" in json_value and "version_name" in json_value:
            raise WorkflowUnreadable(source=source, reason="it is a lock, which --lock takes")
        # Only the UI format lists its nodes; in API format a node may be called `nodes`, but is an object.
        if isinstance(json_value.get("nodes"), list):
            content = _check_limits(json_value, len(json_value["nodes"]), source)
            return Document(source=source, format="ui", content=content, extra_data=extra_data)
        inner = _unwrap_once(json_value)
        if inner is None:
            break
        own_extra_data = json_value.get("extra_data")
        if isinstance(own_extra_data, Mapping):
            _check_size(own_extra_data, source)
            extra_data = own_extra_data
        json_value = inner
    graph = cast("Mapping[str, JsonValue]", json_value)
    content = _check_limits(graph, len(graph), source)
    return Document(source=source, format="api" if content else "empty", content=content, extra_data=extra_data)


def _unwrap_once(json_value: Mapping[str, object]) -> Mapping[str, object] | None:
    # A node with the id `prompt` or `input` must not be taken for a wrapper.
    if any(isinstance(node, Mapping) and "class_type" in node for node in json_value.values()):
        return None
    for wrapper in _WRAPPERS:
        inner = json_value.get(wrapper)
        if isinstance(inner, Mapping):
            return inner
    return None


def _check_limits(content: Mapping[str, JsonValue], nodes: int, source: str) -> Mapping[str, JsonValue]:
    if nodes > MAX_NODES:
        reason = f"it has {nodes:,} nodes, and a workflow may have at most {MAX_NODES:,}"
        raise WorkflowUnreadable(source=source, reason=reason)
    _check_size(content, source)
    return content


def _check_size(json_value: object, source: str) -> None:
    # Level by level instead of recursively: the depth is what we are about to bound.
    this_level: list[object] = [json_value]
    count = 0
    for _ in range(MAX_DEPTH):
        deeper: list[object] = []
        for nested in this_level:
            if isinstance(nested, dict):
                deeper.extend(nested.values())
            elif isinstance(nested, list):
                deeper.extend(nested)
        count += len(deeper)
        if count > MAX_VALUES:
            raise WorkflowUnreadable(source=source, reason=f"it holds more than {MAX_VALUES:,} values")
        if not deeper:
            return
        this_level = [nested for nested in deeper if isinstance(nested, dict | list)]
    if this_level:
        raise WorkflowUnreadable(source=source, reason=f"its JSON is nested more than {MAX_DEPTH} levels deep")


def _name_json_kind(json_value: object) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(json_value), "a number")

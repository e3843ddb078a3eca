"""Parses what a ComfyUI says while it works: websocket messages and the queue. Pure; raises nothing.

ComfyUI's answers vary with its version and with its custom nodes, so everything here is read by shape: what has the
shape is taken, the rest left out, and `None` says that an answer is not one of ComfyUI's at all.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from comfypin.digest import JsonValue
from comfypin.workflow.graph import NodeId

_BINARY_HEAD = struct.Struct(">II")
_PREVIEW, _PREVIEW_WITH_METADATA = 1, 4
_PREVIEW_FORMATS: Mapping[int, str] = {1: "image/jpeg", 2: "image/png"}
_FIRST_BYTES: Mapping[str, bytes] = {"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG\r\n"}
# Sent first on the websocket: without it, previews come without the prompt and node that they are of.
CLIENT_FEATURES = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})


@dataclass(frozen=True, slots=True)
# The rest of ComfyUI's messages (logs, feature flags) tell a job nothing.
class QueueLength:
    """Reports that the queue changed (this one is broadcast: every connected client gets it)."""

    remaining: int


@dataclass(frozen=True, slots=True)
class CachedNodes:
    """Reports that the prompt began; these nodes will not run."""

    nodes: frozenset[NodeId]


@dataclass(frozen=True, slots=True)
class NodeRuns:
    """Reports that a node began."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class NodeStates:
    """Reports how far each node of the prompt is: (node, value, maximum, state)."""

    nodes: tuple[tuple[NodeId, float, float, str], ...]


@dataclass(frozen=True, slots=True)
class NodeEnded:
    """Reports that an output node ended."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class PromptEnding:
    """Reports that the prompt succeeded, failed or was interrupted; its history may not be written yet."""


@dataclass(frozen=True, slots=True)
class PromptDone:
    """Ends the messages about a prompt: its history is written."""


@dataclass(frozen=True, slots=True)
class PreviewImage:
    """Brings a picture of what a node is making; older engines do not say which node."""

    node_id: NodeId | None
    content_type: str
    data: bytes


PromptMessage: TypeAlias = CachedNodes | NodeRuns | NodeStates | NodeEnded | PromptEnding | PromptDone | PreviewImage


@dataclass(frozen=True, slots=True)
class AddressedMessage:
    """Holds a message about one prompt; `prompt_id` is None in the greeting of a reconnected client."""

    prompt_id: str | None
    message: PromptMessage


def parse_message(message_text: str) -> AddressedMessage | QueueLength | None:
    """Read one text message of the websocket; None for noise and for what we do not need."""
    try:
        message = json.loads(message_text)
    except ValueError:
        return None
    if not isinstance(message, dict) or not isinstance(message_data := message.get("data"), dict):
        return None
    message_type = message.get("type")
    # Every client gets this one; it names no prompt.
    if message_type == "status":
        return _queue_length(message_data)
    parsed = _prompt_message(message_type, message_data)
    prompt_id = message_data.get("prompt_id")
    return None if parsed is None else AddressedMessage(prompt_id if isinstance(prompt_id, str) else None, parsed)


def parse_binary(message: bytes) -> AddressedMessage | None:
    """Read one binary message of the websocket, if it is a preview; `prompt_id` is None if it names no prompt.

    Two forms: 1, the picture's format, the picture; or 4, the length of the JSON that follows, that, the picture.
    """
    if len(message) <= _BINARY_HEAD.size:
        return None
    message_type, number = _BINARY_HEAD.unpack_from(message)
    if message_type == _PREVIEW:
        content_type = _PREVIEW_FORMATS.get(number)
        return None if content_type is None else _preview_message({}, content_type, message[_BINARY_HEAD.size :])
    if message_type != _PREVIEW_WITH_METADATA or number > len(message) - _BINARY_HEAD.size:
        return None
    picture_at = _BINARY_HEAD.size + number
    try:
        metadata = json.loads(message[_BINARY_HEAD.size : picture_at])
    except (ValueError, RecursionError):
        return None
    if not isinstance(metadata, dict) or metadata.get("image_type") not in _PREVIEW_FORMATS.values():
        return None
    return _preview_message(metadata, str(metadata["image_type"]), message[picture_at:])


def _preview_message(metadata: Mapping[str, JsonValue], content_type: str, picture: bytes) -> AddressedMessage | None:
    """Return a preview, or None if the bytes are not what their header says."""
    if not picture.startswith(_FIRST_BYTES[content_type]):
        return None
    node_id = metadata.get("display_node_id") or metadata.get("node_id")
    prompt_id = metadata.get("prompt_id")
    return AddressedMessage(
        prompt_id if isinstance(prompt_id, str) else None,
        PreviewImage(node_id if isinstance(node_id, str) else None, content_type, picture),
    )


def _queue_length(message_data: Mapping[str, JsonValue]) -> QueueLength | None:
    status = message_data.get("status")
    info = status.get("exec_info") if isinstance(status, dict) else None
    remaining = info.get("queue_remaining") if isinstance(info, dict) else None
    return QueueLength(remaining) if isinstance(remaining, int) else None


def _prompt_message(message_type: object, message_data: Mapping[str, JsonValue]) -> PromptMessage | None:
    """Read a message about a prompt by its type; None if we do not need it."""
    match message_type:
        case "execution_cached":
            return CachedNodes(_node_ids(message_data.get("nodes")))
        case "executing":
            node = message_data.get("display_node") or message_data.get("node")
            # `executing` without a node is ComfyUI's way to say that it is done, history and all.
            return PromptDone() if node is None else NodeRuns(str(node))
        # Older engines report only the node that runs; newer ones all nodes (`progress_state`).
        case "progress":
            return _parse_state(message_data)
        case "progress_state":
            return _parse_states(message_data.get("nodes"))
        case "executed":
            node = message_data.get("display_node") or message_data.get("node")
            return None if node is None else NodeEnded(str(node))
        case "execution_success" | "execution_error" | "execution_interrupted":
            return PromptEnding()
        case _:
            return None


def _parse_state(message_data: Mapping[str, JsonValue]) -> NodeStates | None:
    node, value, maximum = message_data.get("node"), message_data.get("value"), message_data.get("max")
    if node is None or not isinstance(value, int | float) or not isinstance(maximum, int | float):
        return None
    return NodeStates(((str(node), float(value), float(maximum), "running"),))


def _parse_states(nodes: JsonValue) -> NodeStates | None:
    if not isinstance(nodes, dict):
        return None
    states = []
    for node_id, state in nodes.items():
        # A node that a node expanded into is shown, on the page and here, as the one the user placed.
        if not isinstance(state, dict) or state.get("display_node_id", node_id) != node_id:
            continue
        value, maximum = state.get("value"), state.get("max")
        if isinstance(value, int | float) and isinstance(maximum, int | float):
            states.append((str(node_id), float(value), float(maximum), str(state.get("state", "running"))))
    return NodeStates(tuple(states))


def _node_ids(nodes: JsonValue) -> frozenset[NodeId]:
    return frozenset(str(node) for node in nodes) if isinstance(nodes, list) else frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineQueue:
    """Lists who runs and who waits, in the order in which they will run."""

    running: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()

    def ahead_of(self, prompt_id: str) -> int | None:
        """Return how many prompts run before this one; None if it does not wait."""
        if prompt_id not in self.pending:
            return None
        return len(self.running) + self.pending.index(prompt_id)


def parse_queue(response_body: JsonValue) -> EngineQueue | None:
    """Read GET /queue; None if it is not one. Items are `[number, prompt_id, ...]`, lowest number first."""
    if not isinstance(response_body, dict) or "queue_running" not in response_body:
        return None
    return EngineQueue(
        running=_queue_ids(response_body["queue_running"]), pending=_queue_ids(response_body.get("queue_pending"))
    )


def parse_jobs(response_body: JsonValue) -> EngineQueue | None:
    """Read GET /api/jobs, which newer engines have and which holds no graphs; None if it is not one.

    The status says whether a job runs or waits; the lowest priority runs first, as in the queue.
    """
    jobs = response_body.get("jobs") if isinstance(response_body, dict) else None
    if not isinstance(jobs, list):
        return None
    items: dict[str, list[JsonValue]] = {"in_progress": [], "pending": []}
    for job in jobs:
        if isinstance(job, dict) and job.get("status") in items:
            items[str(job["status"])].append([job.get("priority", 0), job.get("id")])
    return EngineQueue(running=_queue_ids(items["in_progress"]), pending=_queue_ids(items["pending"]))


def parse_cancelled(response_body: JsonValue) -> bool | None:
    """Read POST /api/jobs/ID/cancel: whether something was stopped; None if the answer is not that route's."""
    cancelled = response_body.get("cancelled") if isinstance(response_body, dict) else None
    return cancelled if isinstance(cancelled, bool) else None


def _queue_ids(items: JsonValue) -> tuple[str, ...]:
    prompt_ids: list[tuple[float, str]] = []
    for queue_entry in items if isinstance(items, list) else ():
        if isinstance(queue_entry, list) and len(queue_entry) >= 2 and isinstance(queue_entry[1], str):
            prompt_ids.append((queue_entry[0] if isinstance(queue_entry[0], int | float) else 0, queue_entry[1]))
    return tuple(prompt_id for _, prompt_id in sorted(prompt_ids, key=lambda pair: pair[0]))

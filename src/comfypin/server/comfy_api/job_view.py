"""Jobs as Comfy API v2 shows them. Pure."""

import json
import re
from collections.abc import Mapping, Sequence

from comfypin.digest import JsonValue
from comfypin.jobs.interface import JobState
from comfypin.queue.interface import JobRecord, JobRow
from comfypin.server.comfy_api.asset_view import shown_time
from comfypin.server.comfy_api.links import Links

_STATUS: Mapping[JobState, str] = {
    "IN_QUEUE": "queued",
    "IN_PROGRESS": "running",
    "COMPLETED": "succeeded",
    "FAILED": "failed",
    "CANCELLED": "canceled",
}
TERMINAL = frozenset({"succeeded", "canceled", "failed", "expired"})
_CODES = {"NodeFailed": "node_execution_error", "DeadlineExceeded": "execution_timeout", "JobBroken": "internal_error"}
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def status_of(row: JobRow, *, is_canceling: bool = False) -> str:
    """Return a job's status in the API's words. A job is `expired` if the time that it was given to wait has passed."""
    if row.state == "TIMED_OUT":
        return "expired" if _has_expired(row) else "failed"
    return "canceling" if is_canceling and row.ended_at is None else _STATUS[row.state]


def _has_expired(row: JobRow) -> bool:
    if row.started_at is None:
        return True
    return row.ttl_s is not None and row.ended_at is not None and row.ended_at >= row.created_at + row.ttl_s


def progress_to_json(progress: Mapping[str, JsonValue]) -> dict[str, JsonValue] | None:
    """Return a snapshot of progress out of what a job told last; None if it has told none yet."""
    if "nodes_total" not in progress:
        return None
    progress_json: dict[str, JsonValue] = {
        "value": progress.get("progress", 0.0),
        "nodes_done": progress.get("nodes_done", 0),
        "nodes_total": progress["nodes_total"],
        "current_node": progress.get("current_node"),
        "current_node_class": progress.get("current_node_class"),
        "step": progress.get("step"),
        "steps": progress.get("steps"),
    }
    node_name = progress.get("current_node_class") or progress.get("current_node")
    if node_name is not None:
        progress_json["message"] = (
            f"{node_name} {progress['step']}/{progress['steps']}" if "steps" in progress else str(node_name)
        )
    return progress_json


def all_done(nodes: int) -> dict[str, JsonValue]:
    """Return the progress of a job of so many nodes that has succeeded."""
    return {"value": 1.0, "nodes_done": nodes, "nodes_total": nodes}


def job_to_json(
    record: JobRecord,
    links: Links,
    *,
    status: str,
    expires_at: float,
    queue_position: int | None,
    progress: Mapping[str, JsonValue] | None,
    outputs: Sequence[JsonValue],
    labels: Mapping[str, str],
) -> dict[str, JsonValue]:
    """Return a job."""
    row = record.row
    job_json: dict[str, JsonValue] = {
        "id": row.id,
        "status": status,
        "created_at": shown_time(row.created_at),
        "started_at": _time_or_none(row.started_at),
        "completed_at": _time_or_none(row.ended_at),
        "expires_at": shown_time(expires_at),
        "queue_position": queue_position,
        "progress": None if progress is None else dict(progress),
        "outputs": list(outputs),
        "error": error_of(record, status),
        "metrics": metrics_of(row),
        "urls": links.job(row.id),
    }
    if labels:
        job_json["metadata"] = dict(labels)
    return job_json


def metrics_of(row: JobRow) -> dict[str, JsonValue]:
    """Return how long a job waited and ran, in milliseconds."""
    return {"queue_ms": _ms(row.created_at, row.started_at), "execution_ms": _ms(row.started_at, row.ended_at)}


def error_of(record: JobRecord, status: str) -> dict[str, JsonValue] | None:
    """Return what a job failed with."""
    if status not in ("failed", "expired"):
        return None
    try:
        output = json.loads(record.output or "{}")
    except (ValueError, RecursionError):
        output = {}
    output = output if isinstance(output, dict) else {}
    facts = output.get("error_facts")
    facts = facts if isinstance(facts, dict) else {}
    kind = str(output.get("error_type") or "JobFailed")
    code = _CODES.get(kind) or _WORD.sub("_", kind).lower()
    if record.row.state == "TIMED_OUT":
        code = "expired" if status == "expired" else "execution_timeout"
    return {
        "code": code,
        "message": str(output.get("error") or record.error or "The job failed."),
        "node_id": _text_or_none(facts.get("node_id")),
        "class_type": _text_or_none(facts.get("class_type")),
        "traceback": _text_or_none(output.get("error_traceback")),
    }


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _time_or_none(at: float | None) -> str | None:
    return None if at is None else shown_time(at)


def _ms(since: float | None, until: float | None) -> int | None:
    return None if since is None or until is None else max(0, round((until - since) * 1000))

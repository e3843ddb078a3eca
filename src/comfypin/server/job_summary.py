"""Jobs as lists, events and pages show them: one JSON everywhere. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime

from comfypin.digest import JsonValue
from comfypin.jobs.interface import JobState
from comfypin.queue.interface import JobRow
from comfypin.queue.job_description import JobDescription, JobEnd


def job_summary(
    row: JobRow,
    description: JobDescription,
    end: JobEnd | None,
    *,
    progress: Mapping[str, JsonValue] | None = None,
    position: int | None = None,
    ends_in_s: float | None = None,
) -> dict[str, JsonValue]:
    """Return a job in short: what it is, where it stands, and what came of it."""
    end = end or JobEnd()
    return {
        "id": row.id,
        "status": row.state,
        "workflow": description.workflow,
        "release": description.release,
        "api": description.api,
        "created_at": shown_time(row.created_at),
        "started_at": shown_time(row.started_at),
        "finished_at": shown_time(row.ended_at),
        "position": position,
        "estimate_s": None if ends_in_s is None else round(ends_in_s, 1),
        "progress": progress_summary(progress or {}),
        "error": _error_summary(row.state, end),
        "output_count": end.outputs,
        "warnings": end.warnings,
    }


def progress_summary(told: Mapping[str, JsonValue]) -> dict[str, JsonValue] | None:
    """Return how far a job is out of what it told last; None if its graph does not run yet."""
    if "nodes_total" not in told:
        return None
    node_id = told.get("current_node")
    return {
        "fraction": told.get("progress", 0.0),
        "node_id": node_id,
        "node_title": told.get("current_node_title") or told.get("current_node_class") or node_id,
        "nodes_done": told.get("nodes_done"),
        "nodes_total": told["nodes_total"],
        "step": told.get("step"),
        "steps": told.get("steps"),
    }


def shown_time(at: float | None) -> str | None:
    """Return a time as RFC 3339 has it, in UTC."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _error_summary(state: JobState, end: JobEnd) -> JsonValue:
    if state not in ("FAILED", "TIMED_OUT"):
        return None
    return {"name": end.error_name or "JobFailed", "message": end.error or "The job failed."}

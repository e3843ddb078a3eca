"""Jobs as lists, events and pages show them: one JSON everywhere. Pure."""

from collections.abc import Mapping

from comfypin.digest import JsonValue
from comfypin.jobs.interface import JobState
from comfypin.queue.interface import JobRow
from comfypin.queue.job_description import JobDescription, JobEnd
from comfypin.queue.status_bodies import progress_summary, shown_time


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
        "priority": row.rank,
        "position": position,
        "estimate_s": None if ends_in_s is None else round(ends_in_s, 1),
        # Where it was when it ended, or was queued once more, is no progress.
        "progress": progress_summary(progress or {}) if row.state == "IN_PROGRESS" else None,
        "error": _error_summary(row.state, end),
        "output_count": end.outputs,
        "warnings": end.warnings,
    }


def _error_summary(state: JobState, end: JobEnd) -> JsonValue:
    if state not in ("FAILED", "TIMED_OUT"):
        return None
    return {"name": end.error_name or "JobFailed", "message": end.error or "The job failed."}

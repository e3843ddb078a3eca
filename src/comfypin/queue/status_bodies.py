"""Renders what clients are told about jobs and the queue, in Runpod's words. Pure."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from comfypin.digest import JsonValue
from comfypin.jobs.interface import PENDING_STATES, JobState
from comfypin.queue.interface import JobCounts, JobRecord


def status_body(job_record: JobRecord) -> bytes:
    """Return the body of a job's status. `output` is JSON text already, and goes in as it is."""
    job_row = job_record.row
    status_fields: dict[str, JsonValue] = {"id": job_row.id, "status": job_row.state}
    if job_row.started_at is not None:
        status_fields["delayTime"] = max(0, round((job_row.started_at - job_row.created_at) * 1000))
        status_fields["workerId"] = job_record.worker_id
        if job_row.ended_at is not None:
            status_fields["executionTime"] = max(0, round((job_row.ended_at - job_row.started_at) * 1000))
    if job_record.error is not None:
        status_fields["error"] = job_record.error
    status_text = json.dumps(status_fields)
    return (
        f'{status_text[:-1]}, "output": {job_record.output}}}' if job_record.output is not None else status_text
    ).encode()


def health_body(job_counts: JobCounts, *, trouble: str | None, ready: bool) -> dict[str, JsonValue]:
    """Return the body of /health; `problems`, which Runpod does not have, says why no jobs start."""
    return {
        "jobs": {
            "completed": job_counts.completed,
            "failed": job_counts.failed,
            "inProgress": job_counts.running,
            "inQueue": job_counts.waiting,
            "retried": job_counts.retried,
        },
        "workers": {
            "idle": int(ready and not job_counts.running),
            "initializing": int(not ready),
            "ready": int(ready and trouble is None),
            "running": int(bool(job_counts.running)),
            "throttled": 0,
            "unhealthy": int(trouble is not None),
        },
        "problems": [trouble] if trouble is not None else [],
    }


def is_pending(state: JobState) -> bool:
    """Return whether a job of this state has not ended."""
    return state in PENDING_STATES


def progress_summary(progress: Mapping[str, JsonValue]) -> dict[str, JsonValue] | None:
    """Return how far a job is, from its latest progress; None if nothing can be told yet.

    While its models arrive, `model`, `done_bytes` and `total_bytes` tell of the newest.
    """
    # Events of models name no phase.
    phase = "models" if "model" in progress else progress.get("phase")
    if "nodes_total" not in progress and phase not in ("queue", "models"):
        return None
    node_id = progress.get("current_node")
    arriving = {name: progress[name] for name in ("model", "done_bytes", "total_bytes") if name in progress}
    return {
        "fraction": progress.get("progress", 0.0),
        "node_id": node_id,
        "node_title": progress.get("current_node_title") or progress.get("current_node_class") or node_id,
        "nodes_done": progress.get("nodes_done"),
        "nodes_total": progress.get("nodes_total"),
        "step": progress.get("step"),
        "steps": progress.get("steps"),
        "phase": phase,
        **arriving,
    }


def shown_time(at: float | None) -> str | None:
    """Return a time as RFC 3339 has it, in UTC."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

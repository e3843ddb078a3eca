"""Bodies that tell clients of jobs and of the queue, in RunPod's words. Pure."""

import json

from comfypin.digest import JsonValue
from comfypin.jobs.interface import PENDING_STATES, JobState
from comfypin.queue.interface import JobCounts, JobRecord


def status_body(record: JobRecord) -> bytes:
    """Return the body of a job's status. `output` is JSON text already, and goes in as it is."""
    row = record.row
    fields: dict[str, JsonValue] = {"id": row.id, "status": row.state}
    if row.started_at is not None:
        fields["delayTime"] = max(0, round((row.started_at - row.created_at) * 1000))
        fields["workerId"] = record.worker_id
        if row.ended_at is not None:
            fields["executionTime"] = max(0, round((row.ended_at - row.started_at) * 1000))
    if record.error is not None:
        fields["error"] = record.error
    text = json.dumps(fields)
    return (f'{text[:-1]}, "output": {record.output}}}' if record.output is not None else text).encode()


def health_body(counts: JobCounts, *, trouble: str | None, ready: bool) -> dict[str, JsonValue]:
    """Return the body of /health; `problems`, which RunPod does not have, says why no jobs begin."""
    return {
        "jobs": {
            "completed": counts.completed,
            "failed": counts.failed,
            "inProgress": counts.running,
            "inQueue": counts.waiting,
            "retried": counts.retried,
        },
        "workers": {
            "idle": int(ready and not counts.running),
            "initializing": int(not ready),
            "ready": int(ready and trouble is None),
            "running": int(bool(counts.running)),
            "throttled": 0,
            "unhealthy": int(trouble is not None),
        },
        "problems": [trouble] if trouble is not None else [],
    }


def is_pending(state: JobState) -> bool:
    """Return whether a job of this state has not ended."""
    return state in PENDING_STATES

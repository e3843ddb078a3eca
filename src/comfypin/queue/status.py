"""A job's status as clients are told it, in RunPod's words. Pure."""

import json

from comfypin.digest import JsonValue
from comfypin.jobs.interface import PENDING_STATES, JobState
from comfypin.queue.sqlite import JobRecord


def status_body(record: JobRecord, worker_id: str) -> bytes:
    """A job's status in RunPod's words. `output` is JSON text already, and goes in as it is."""
    row = record.row
    facts: dict[str, JsonValue] = {"id": row.id, "status": row.state}
    if row.started_at is not None:
        facts["delayTime"] = max(0, round((row.started_at - row.created_at) * 1000))
        facts["workerId"] = worker_id
        if row.ended_at is not None:
            facts["executionTime"] = max(0, round((row.ended_at - row.started_at) * 1000))
    if record.error is not None:
        facts["error"] = record.error
    text = json.dumps(facts)
    return (f'{text[:-1]}, "output": {record.output}}}' if record.output is not None else text).encode()


def is_pending(state: JobState) -> bool:
    """Whether a job of this state has not ended."""
    return state in PENDING_STATES

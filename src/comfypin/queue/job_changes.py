"""The changes to a stored job, one SQL statement each. Pure."""

# ruff: noqa: S608 - statements are put together from constants alone

import json
from dataclasses import dataclass

from comfypin.jobs.interface import RETRYABLE_STATES, JobState
from comfypin.jobs.secret_fields import holds_secret, is_secret_address
from comfypin.queue.interface import JobRow

# What is longer is looked through in a thread, so that other requests do not wait.
_SMALL_INPUT = 262_144


@dataclass(frozen=True, slots=True)
class JobChange:
    """One statement of a transaction. `forgets` names a job whose secrets it removes, if it has any."""

    statement: str
    values: tuple[object, ...]
    forgets: str | None = None


def job_accepted(row: JobRow, job_input: object) -> JobChange:
    """Return the change for a job that was taken. Slow for a large input: walks and dumps all of it."""
    input_text = json.dumps(job_input)
    secret = holds_secret(job_input) or is_secret_address(row.webhook or "")
    columns = (row.id, row.state, input_text, row.webhook, row.timeout_s, row.ttl_s, secret, row.created_at)
    return JobChange(
        "INSERT INTO jobs (id, state, input, webhook, timeout_s, ttl_s, secret, created_at, priority, rank, size) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*columns, row.priority, row.rank, len(input_text)),
    )


def job_started(job_id: str, changed_at: float) -> JobChange:
    """Return the change for a job that begins, unless it has been ended meanwhile."""
    return JobChange(
        "UPDATE jobs SET state = 'IN_PROGRESS', attempts = attempts + 1, started_at = ? "
        "WHERE id = ? AND ended_at IS NULL",
        (changed_at, job_id),
    )


def job_given_back(job_id: str) -> JobChange:
    """Return the change for a job that was stopped with the server: it waits again, as if it had not begun."""
    return JobChange(
        "UPDATE jobs SET state = 'IN_QUEUE', attempts = attempts - 1 WHERE id = ? AND ended_at IS NULL", (job_id,)
    )


def job_ended(job_id: str, state: JobState, changed_at: float, *, output: str | None, error: str | None) -> JobChange:
    """Return the change for a job that ended; its webhook is owed from here on. A job ends once.

    Its input goes if it holds a secret, or if it is large and the job cannot be retried.
    """
    # A completed job is never run again, so a large input need not stay; a small one says how its outputs were made.
    is_kept = "1" if state in RETRYABLE_STATES else f"length(input) <= {_SMALL_INPUT}"
    return JobChange(
        "UPDATE jobs SET state = ?, ended_at = ?, output = ?, error = ?, webhook_owed = webhook IS NOT NULL, "
        f"input = CASE WHEN NOT secret AND {is_kept} THEN input ELSE '{{}}' END, size = length(input) + ? "
        "WHERE id = ? AND ended_at IS NULL",
        (state, changed_at, output, error, len(output or ""), job_id),
        forgets=job_id,
    )


def job_queued_again(job_id: str, changed_at: float) -> JobChange:
    """Return the change for a job that had ended and waits again."""
    return JobChange(
        "UPDATE jobs SET state = 'IN_QUEUE', attempts = 0, retries = retries + 1, created_at = ?, started_at = NULL, "
        "ended_at = NULL, output = NULL, error = NULL, webhook_owed = 0 WHERE id = ? AND ended_at IS NOT NULL",
        (changed_at, job_id),
    )


def job_ranked(job_id: str, rank: int) -> JobChange:
    """Return the change for a job that waits and is to begin earlier or later than others."""
    return JobChange("UPDATE jobs SET rank = ? WHERE id = ? AND ended_at IS NULL", (rank, job_id))


def webhook_delivered(job_id: str) -> JobChange:
    """Return the change for a webhook that was told. Its address may hold a token: it stays for a retry only."""
    return JobChange(
        "UPDATE jobs SET webhook_owed = 0, "
        "webhook = CASE WHEN secret OR state IN ('COMPLETED', 'CANCELLED') THEN NULL ELSE webhook END WHERE id = ?",
        (job_id,),
        forgets=job_id,
    )

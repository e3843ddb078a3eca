"""What is owed to webhooks, and what could not be told: tables beside the jobs, one statement a change. Pure."""

# ruff: noqa: S608 - statements are put together from constants alone

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from comfypin.digest import JsonValue
from comfypin.jobs.interface import JobState
from comfypin.queue.job_changes import JobChange

EventName = Literal["started", "progress", "output", "completed", "failed", "cancelled", "timed_out"]
EVENT_NAMES: tuple[EventName, ...] = get_args(EventName)
END_EVENTS: Mapping[JobState, EventName] = {
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
    "TIMED_OUT": "timed_out",
}
# A request of tens of kilobytes, which every receiver takes.
BATCH_EVENTS = 100
# A receiver that is away does not want every step of a long job afterwards.
_MOST_OF_JOB = 500
# A receiver that is gone for days must not fill the disk of the jobs.
_MOST_OF_ALL = 20_000
# For reading what went wrong; the newest say it.
_MOST_FAILURES = 1000

# The triggers: whatever removes a job removes all that was kept for its webhook.
TABLES = """
CREATE TABLE IF NOT EXISTS webhook_choices (
    job_id TEXT PRIMARY KEY, events TEXT NOT NULL, dropped INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS webhook_events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS webhook_events_of_job ON webhook_events (job_id, number);
CREATE TABLE IF NOT EXISTS webhook_failures (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL, kind TEXT NOT NULL, host TEXT NOT NULL,
    events INTEGER NOT NULL, reason TEXT NOT NULL, failed_at REAL NOT NULL, address TEXT, body TEXT
);
CREATE INDEX IF NOT EXISTS webhook_failures_of_job ON webhook_failures (job_id);
CREATE TRIGGER IF NOT EXISTS webhooks_of_job_removed AFTER DELETE ON jobs BEGIN
    DELETE FROM webhook_choices WHERE job_id = OLD.id;
    DELETE FROM webhook_events WHERE job_id = OLD.id;
    DELETE FROM webhook_failures WHERE job_id = OLD.id;
END;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsentEvent:
    """One event that a webhook asked for; `body` is JSON text without its number."""

    name: EventName
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookFailure:
    """One post that was given up. `kind` is "events" or "end"; `host` is all of the address that may be shown."""

    number: int
    job_id: str
    kind: str
    host: str
    events: int
    reason: str
    failed_at: float
    address: str | None
    body: str | None


FAILURE_COLUMNS = "number, job_id, kind, host, events, reason, failed_at, address, body"


def events_chosen(job_id: str, names: Iterable[EventName]) -> JobChange:
    """Return the change for a job whose webhook gets these events, instead of every end."""
    return JobChange("INSERT INTO webhook_choices (job_id, events) VALUES (?, ?)", (job_id, json.dumps(sorted(names))))


def events_owed(job_id: str, events: Iterable[UnsentEvent]) -> list[JobChange]:
    """Return the changes for events that are to be posted; what a deaf receiver leaves unread has a bound.

    Progress replaces what was not posted of it. Events beyond the bound are counted, and left out.
    """
    changes = []
    for event in events:
        if event.name == "progress":
            statement = "DELETE FROM webhook_events WHERE job_id = ? AND name = 'progress'"
            changes.append(JobChange(statement, (job_id,)))
        changes += [
            JobChange(
                "INSERT INTO webhook_events (job_id, name, body) SELECT ?, ?, ? "
                f"WHERE (SELECT COUNT(*) FROM webhook_events WHERE job_id = ?) < {_MOST_OF_JOB} "
                f"AND (SELECT COUNT(*) FROM webhook_events) < {_MOST_OF_ALL}",
                (job_id, event.name, event.body, job_id),
            ),
            JobChange("UPDATE webhook_choices SET dropped = dropped + (changes() = 0) WHERE job_id = ?", (job_id,)),
        ]
    return changes


def events_delivered(job_id: str, last_number: int) -> JobChange:
    """Return the change for events up to a number: they were posted, or given up."""
    return JobChange("DELETE FROM webhook_events WHERE job_id = ? AND number <= ?", (job_id, last_number))


def post_given_up(
    job_id: str,
    *,
    kind: str,
    host: str,
    events: int,
    reason: str,
    failed_at: float,
    address: str,
    webhook_body: str | None,
) -> list[JobChange]:
    """Return the changes that note a post that failed; of a job with secrets neither address nor body is kept."""
    return [
        JobChange(
            "INSERT INTO webhook_failures (job_id, kind, host, events, reason, failed_at, address, body) "
            "SELECT id, ?, ?, ?, ?, ?, CASE WHEN secret THEN NULL ELSE ? END, CASE WHEN secret THEN NULL ELSE ? END "
            "FROM jobs WHERE id = ?",
            (kind, host, events, reason, failed_at, address, webhook_body, job_id),
        ),
        JobChange(
            "DELETE FROM webhook_failures WHERE number <= (SELECT MAX(number) FROM webhook_failures) - ?",
            (_MOST_FAILURES,),
        ),
    ]


def failure_mended(number: int) -> JobChange:
    """Return the change for a failed post that was told after all."""
    return JobChange("DELETE FROM webhook_failures WHERE number = ?", (number,))


def output_events(result: Mapping[str, JsonValue]) -> list[dict[str, JsonValue]]:
    """Return a result's outputs, each as the result has it; base64 is left to the result."""
    listed = [result.get(list_name) for list_name in ("images", "videos", "audio", "files")]
    return [
        {key: value for key, value in entry.items() if not (key == "data" and entry.get("type") == "base64")}
        for entries in listed
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict)
    ]

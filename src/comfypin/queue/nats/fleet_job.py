"""One job as the bucket `comfypin_jobs` holds it, under its id, and how it changes. Pure.

What is large stands elsewhere (`Body`): servers keep all records in sight. docs/architecture.md describes the layout.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from comfypin.jobs.interface import RETRYABLE_STATES, JobState
from comfypin.queue.interface import JobRow
from comfypin.queue.job_description import JobDescription, JobEnd
from comfypin.queue.job_notes import ComfyNote, JobNotes
from comfypin.queue.nats.names import Lane

_VERSION = 1
# As on one machine: a job that kills its worker each time must not kill all.
MOST_ATTEMPTS = 5
SMALL_INPUT = 262_144
NOT_DEAD = b'"dead":null'
"""Stands in the record of each job that was not given up, and in no text of one: quotes are escaped there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """Where the text of an input or a result is: under a key of the bucket of bodies, or at an address.

    `size` is that of the text itself; `sealed` texts are encrypted with the fleet's key.
    """

    key: str
    size: int
    sealed: bool = False
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetJob:
    """One job. `run` counts how often it was asked for, by /run and each /retry; `number` orders lists.

    `owes_webhook` is set together with the end, until the webhook was told. `dead` says why a job was given up whose
    workers died. `upload` is where a worker may put a result that is too large for the queue.
    `is_pinned` says that it named its release by digest, so that no roll moves it.
    """

    row: JobRow
    lane: Lane
    description: JobDescription
    run: int = 0
    retries: int = 0
    number: int = 0
    secret: bool = False
    input: Body | None = None
    result: Body | None = None
    error: str | None = None
    end: JobEnd | None = None
    worker_id: str = ""
    webhook_events: tuple[str, ...] | None = None
    owes_webhook: bool = False
    dead: str | None = None
    upload: str | None = None
    is_pinned: bool = False
    notes: JobNotes = field(default_factory=JobNotes)

    @property
    def has_ended(self) -> bool:
        """Return whether the job has ended."""
        return self.row.ended_at is not None

    @property
    def ticket(self) -> str:
        """Return the subject of the ticket of this run."""
        return self.lane.ticket_subject(self.row.id, self.run)

    def dump(self) -> bytes:
        """Return the record as it is stored."""
        return json.dumps({"version": _VERSION, **asdict(self)}, separators=(",", ":")).encode()

    @classmethod
    def load(cls, record_bytes: bytes, *, revision: int = 0) -> "FleetJob":
        """Read a record. `revision` is that at which it is kept: the number of a job that has not changed yet.

        Raises `ValueError`, `TypeError`, `KeyError` if it is not one.
        """
        json_object: dict[str, Any] = json.loads(record_bytes)
        del json_object["version"]
        json_object["number"] = json_object.get("number") or revision
        notes = json_object.pop("notes")
        events, end = json_object.pop("webhook_events"), json_object.pop("end")
        return cls(
            row=JobRow(**json_object.pop("row")),
            lane=Lane(**json_object.pop("lane")),
            description=JobDescription(**json_object.pop("description")),
            input=_body(json_object.pop("input")),
            result=_body(json_object.pop("result")),
            end=None if end is None else JobEnd(**end),
            webhook_events=None if events is None else tuple(events),
            notes=JobNotes(
                comfy=None if notes["comfy"] is None else ComfyNote(**notes["comfy"]),
                assets=tuple(notes["assets"]),
                key=notes["key"],
            ),
            **json_object,
        )


def _body(json_object: Mapping[str, Any] | None) -> Body | None:
    return None if json_object is None else Body(**json_object)


# -- Changes: each returns the record as it is to be, or None if the job does not allow it -----------------------------


def started(job: FleetJob, *, run: int, at: float, worker_id: str) -> FleetJob | None:
    """Return the job as one that this worker runs; also if another did, whose ticket was delivered again."""
    if job.has_ended or job.run != run or job.row.attempts >= MOST_ATTEMPTS:
        return None
    row = replace(job.row, state="IN_PROGRESS", started_at=at, attempts=job.row.attempts + 1)
    return replace(job, row=row, worker_id=worker_id)


def given_back(job: FleetJob, *, run: int, worker_id: str) -> FleetJob | None:
    """Return the job as one that waits, as if it had not begun: its worker was asked to stop."""
    if job.has_ended or job.run != run or job.worker_id != worker_id or job.row.state != "IN_PROGRESS":
        return None
    row = replace(job.row, state="IN_QUEUE", started_at=None, attempts=max(0, job.row.attempts - 1))
    return replace(job, row=row, worker_id="")


def ended(
    job: FleetJob,
    state: JobState,
    *,
    at: float,
    result: Body | None = None,
    end: JobEnd | None = None,
    dead: str | None = None,
    run: int | None = None,
) -> FleetJob | None:
    """Return the job as one that has ended: once, whoever comes first. `run` is that of a worker's ticket.

    The input goes if it holds a secret, or if it is large and the job cannot be retried.
    """
    if job.has_ended or run not in (None, job.run):
        return None
    is_kept = not job.secret and (state in RETRYABLE_STATES or job.input is None or job.input.size <= SMALL_INPUT)
    return replace(
        job,
        row=replace(job.row, state=state, ended_at=at),
        input=job.input if is_kept else None,
        result=result,
        end=end or JobEnd(),
        error=None if end is None else end.error,
        dead=dead,
        upload=None,
        owes_webhook=job.row.webhook is not None,
    )


def queued_again(
    job: FleetJob, *, at: float, successor: Callable[[str], str] = lambda release: release
) -> FleetJob | None:
    """Return the job as one that waits for another run, if it has ended. `successor` is what rolls say of releases."""
    if not job.has_ended or job.row.state not in RETRYABLE_STATES or job.secret:
        return None
    row = replace(job.row, state="IN_QUEUE", created_at=at, started_at=None, ended_at=None, attempts=0)
    lane = job.lane if job.is_pinned else replace(job.lane, release=successor(job.lane.release))
    return replace(
        job,
        row=row,
        lane=lane,
        run=job.run + 1,
        retries=job.retries + 1,
        result=None,
        error=None,
        end=None,
        worker_id="",
        owes_webhook=False,
        dead=None,
    )


def moved(job: FleetJob, *, release: str) -> FleetJob | None:
    """Return the job as one that waits for another release, in another run: whoever still runs it cannot end it."""
    if job.has_ended or job.is_pinned or job.lane.release == release:
        return None
    row = replace(job.row, state="IN_QUEUE", started_at=None)
    return replace(job, row=row, lane=replace(job.lane, release=release), run=job.run + 1, worker_id="")


def webhook_delivered(job: FleetJob, *, run: int) -> FleetJob | None:
    """Return the job as one whose webhook was told. Its address may hold a token: it stays for a retry only."""
    if not job.owes_webhook or job.run != run:
        return None
    is_kept = not job.secret and job.row.state in RETRYABLE_STATES
    return replace(job, owes_webhook=False, row=job.row if is_kept else replace(job.row, webhook=None))

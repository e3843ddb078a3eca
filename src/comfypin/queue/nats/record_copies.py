"""Copies records into a server's file while the next ones are read, a hundred with one statement.

SQLite lets go of Python's lock for the whole of a statement. With a statement for each record its thread has to wait
for the lock a hundred thousand times, while the event loop reads the next records and keeps it for 5 ms each time.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from comfypin.queue.job_changes import JobChange
from comfypin.queue.job_description import JobEnd
from comfypin.queue.job_notes import notes_kept
from comfypin.queue.nats.fleet_job import FleetJob
from comfypin.queue.sqlite import JobStore

ROWS = 128
"""So many records make one statement: each has up to 16 values, and SQLite takes 32,766."""
# Some ten thousand usual records. Ids are random, so each transaction writes most pages of their indexes anew: with one
# for each 512 records, 100,000 of them wrote 1.2 GB.
_TRANSACTION_BYTES = 16 << 20
_JOB_COLUMNS = (
    "number, id, state, input, webhook, webhook_owed, timeout_s, ttl_s, attempts, retries, secret, created_at, "
    "started_at, ended_at, error, size"
)
# A number is given once: it is the job's place in lists, whatever becomes of the job.
_ON_CONFLICT = (
    "ON CONFLICT (id) DO UPDATE SET state = excluded.state, webhook = excluded.webhook, "
    "webhook_owed = excluded.webhook_owed, attempts = excluded.attempts, retries = excluded.retries, "
    "created_at = excluded.created_at, started_at = excluded.started_at, ended_at = excluded.ended_at, "
    "error = excluded.error, size = excluded.size"
)
_DESCRIPTION_COLUMNS = "job_id, api, workflow, release, shape, texts, outputs, warnings, error_name"


class RecordCopier:
    """Copies records into the file, in the order of the calls. Whoever reads records is never far ahead of it."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._held: list[JobChange] = []
        self._held_bytes = 0
        self._submitted: list[asyncio.Future[None]] = []

    def hold(self, changed: Mapping[str, FleetJob | None], size_bytes: int) -> None:
        """Take records, None for a job that was removed, for the next transaction. They have about so many bytes."""
        removed = [JobChange("DELETE FROM jobs WHERE id = ?", (job_id,)) for job_id, job in changed.items() if not job]
        self._held += [*removed, *copied(job for job in changed.values() if job)]
        self._held_bytes += size_bytes

    async def keep_up(self) -> None:
        """Write what is held once it is much, while more is read. Raises `JobsNotStored` if an earlier write failed."""
        if self._held_bytes >= _TRANSACTION_BYTES:
            self._submit()
            # One is written while the next is put together.
            await self._wait_for(self._submitted[:-1])

    async def finish(self) -> None:
        """Write all that is held: lists show it when this returns. Raises `JobsNotStored`."""
        if self._held:
            self._submit()
        await self._wait_for(self._submitted)

    def _submit(self) -> None:
        self._submitted.append(self._store.submit_copies(*self._held))
        self._held, self._held_bytes = [], 0

    async def _wait_for(self, submitted: Sequence[asyncio.Future[None]]) -> None:
        waited = tuple(submitted)
        if not waited:
            return
        # They are made in their order: with the last one all are done. It is not awaited itself, since several may wait
        # for one write, and whoever is cancelled must not cancel it.
        await asyncio.wait(waited[-1:])
        self._submitted = [write for write in self._submitted if not write.done()]
        for write in waited:
            write.result()


def copied(jobs: Iterable[FleetJob]) -> list[JobChange]:
    """Return the changes that copy records into the file."""
    changes: list[JobChange] = []
    rest = iter(jobs)
    while rows := list(islice(rest, ROWS)):
        changes.append(_inserted("INSERT", "jobs", _JOB_COLUMNS, [_job_values(job) for job in rows], _ON_CONFLICT))
        described = [_description_values(job) for job in rows]
        changes.append(_inserted("INSERT OR REPLACE", "job_descriptions", _DESCRIPTION_COLUMNS, described))
        for job in rows:
            changes += notes_kept(job.row.id, job.notes, job.row.created_at)
    return changes


def _inserted(
    verb: str, table: str, columns: str, rows: Sequence[tuple[object, ...]], on_conflict: str = ""
) -> JobChange:
    row = f"({', '.join('?' * len(rows[0]))})"
    statement = f"{verb} INTO {table} ({columns}) VALUES {', '.join([row] * len(rows))} {on_conflict}"
    return JobChange(statement, tuple(_storable(value) for values in rows for value in values))


def _job_values(job: FleetJob) -> tuple[object, ...]:
    row = job.row
    size = sum(stored_body.size for stored_body in (job.input, job.result) if stored_body is not None)
    webhook = None if job.secret else row.webhook
    return (
        *(job.number, row.id, row.state, "{}", webhook, job.owes_webhook, row.timeout_s, row.ttl_s, row.attempts),
        *(job.retries, job.secret, row.created_at, row.started_at, row.ended_at, job.error, size),
    )


def _description_values(job: FleetJob) -> tuple[object, ...]:
    end = job.end or JobEnd()
    described = job.description
    return (
        *(job.row.id, described.api, described.workflow, described.release, described.shape, described.texts),
        *(end.outputs, end.warnings, end.error_name),
    )


def _storable(value: object) -> object:
    """Return a text without the half characters that JSON may hold and SQLite refuses; anything else as it is."""
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode(errors="replace").decode()

"""Stores jobs in SQLite on the local disk: accepted means committed; unfinished jobs are found after any kill.

WAL with full synchronisation: what a commit returned from survives a power cut. All changes that wait are committed
together, so that hundreds of clients cost a few flushes. One thread owns the connection. A disk that refuses a write is
remembered (`trouble`) until a write works again.
"""

# ruff: noqa: S608 - statements are put together from constants alone

import asyncio
import contextlib
import json
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from comfypin.jobs.interface import JOB_STATES, JobState
from comfypin.machine_errors import reason_of
from comfypin.queue.errors import JobsNotStored, JobsUnusable
from comfypin.queue.interface import JobRecord, JobRow
from comfypin.queue.job_changes import JobChange
from comfypin.queue.job_description import SCHEMA as DESCRIPTIONS_SCHEMA
from comfypin.queue.job_description import JobDescription
from comfypin.queue.job_listing import JobFilter, ListedJob, listing_query, to_listed_job
from comfypin.queue.older_jobs import add_missing_columns, forget_older_inputs
from comfypin.small_work import run_by_size

log = logging.getLogger(__name__)

Result = TypeVar("Result")
# A full disk that somebody is making room on is tried again before clients give up.
WRITE_AGAIN_S = 0.5
# Above the pages that SQLite has at hand, so that a full disk cannot take it by chance.
_PROBE_BYTES = 65_536
# SQLite keeps the log at its largest size otherwise, after one job with a large input.
_LONGEST_WAL_BYTES = 8 << 20
_CHECKPOINT_PAGES = 256  # 1 MB: a log that is larger than a small disk could never be folded

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, input TEXT NOT NULL,
    webhook TEXT, webhook_owed INTEGER NOT NULL DEFAULT 0, timeout_s REAL, ttl_s REAL,
    attempts INTEGER NOT NULL DEFAULT 0, retries INTEGER NOT NULL DEFAULT 0, secret INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL, started_at REAL, ended_at REAL, output TEXT, error TEXT, size INTEGER NOT NULL,
    priority TEXT NOT NULL DEFAULT 'normal', rank INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS probe (number INTEGER PRIMARY KEY, bytes BLOB);
CREATE INDEX IF NOT EXISTS by_end ON jobs (ended_at);
CREATE INDEX IF NOT EXISTS by_state ON jobs (state);
"""
_SUMMARY = "id, state, webhook, timeout_s, ttl_s, attempts, created_at, started_at, ended_at, priority, rank"


class _WaitingBatch(NamedTuple):
    """Changes that are to be made together, and the future that says whether they were."""

    job_changes: tuple[JobChange, ...]
    is_copy: bool
    committed: asyncio.Future[None]


class JobStore:
    """Stores the jobs of one server. Raises `JobsUnusable` if the file cannot be used."""

    def __init__(self, database_path: Path) -> None:
        self._path = database_path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._waiting_batches: list[_WaitingBatch] = []
        self._flushing: asyncio.Task[None] | None = None
        self._log_holds_secrets = True  # what a server that was killed left in the log
        self._flushes = True
        self.changes_beside: Callable[[str], tuple[JobChange, ...]] = lambda _job_id: ()
        """What another room writes of a job together with its end, or when it waits again."""
        self.trouble: JobsNotStored | None = None
        """Why the last write failed; None if it worked."""
        try:
            database_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Inputs may hold secrets: nobody else on this machine may read them.
            database_path.touch(mode=0o600)
            self._inode = database_path.stat().st_ino
            # Transactions are begun below, not by the module; made here, it is used on the store's thread from now on.
            self._connection = sqlite3.connect(database_path, isolation_level=None, check_same_thread=False)
            # SQLite's own lower() knows the letters of ASCII only.
            self._connection.create_function("casefold", 1, _casefold, deterministic=True)
            for pragma in (
                # Must be set before the first table is made: pruning gives pages back to a small disk.
                "auto_vacuum = INCREMENTAL",
                "journal_mode = WAL",
                "synchronous = FULL",
                # Overwrites what is deleted: jobs may hold keys and signed URLs.
                "secure_delete = ON",
                f"journal_size_limit = {_LONGEST_WAL_BYTES}",
                f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
            ):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(_SCHEMA + DESCRIPTIONS_SCHEMA)
            add_missing_columns(self._connection)
            forget_older_inputs(self._connection)
            self._truncate_log()
        except (sqlite3.Error, OSError) as exc:
            raise JobsUnusable(path=str(database_path), reason=_failure_reason(exc)) from exc

    async def write_changes(self, *job_changes: JobChange) -> None:
        """Make the changes; they are on the disk when this returns, together with what others write meanwhile."""
        await self._submit(job_changes, is_copy=False)

    def submit_copies(self, *job_changes: JobChange) -> asyncio.Future[None]:
        """Put changes in line, behind all that were asked for before; return a future of when they can be read.

        They copy what is safe elsewhere: a power cut may undo them.
        """
        return self._submit(job_changes, is_copy=True)

    def _submit(self, job_changes: tuple[JobChange, ...], *, is_copy: bool) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        committed: asyncio.Future[None] = loop.create_future()
        self._waiting_batches.append(_WaitingBatch(job_changes, is_copy, committed))
        if self._flushing is None or self._flushing.done():
            self._flushing = loop.create_task(self._flush_batches())
        return committed

    async def write_until_done(self, *job_changes: JobChange) -> None:
        """Make the changes, however long the disk refuses them; ends otherwise only when it is cancelled."""
        while True:
            try:
                return await self.write_changes(*job_changes)
            except JobsNotStored:
                await asyncio.sleep(WRITE_AGAIN_S)

    def add_tables(self, script: str) -> None:
        """Make tables of another room's beside those of the jobs, if they are not there. Raises `JobsUnusable`.

        To be called before the store is used.
        """
        try:
            self._connection.executescript(script)
        except sqlite3.Error as exc:
            raise JobsUnusable(path=str(self._path), reason=_failure_reason(exc)) from exc

    async def query_rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query over tables that were added. Raises `JobsNotStored`."""
        return await self._run_query(query, *values)

    async def query_together(self, *queries: tuple[str, *tuple[object, ...]]) -> list[list[tuple[Any, ...]]]:
        """Return the rows of several queries, each with its values, in one way to the store. Raises `JobsNotStored`."""

        def query_in_thread() -> list[list[tuple[Any, ...]]]:
            try:
                return [self._fetch_rows(query, values) for query, *values in queries]
            except sqlite3.Error as exc:
                raise JobsNotStored(reason=_failure_reason(exc)) from exc

        return await self._on_thread(query_in_thread)

    async def probe_disk(self) -> None:
        """Find out whether writes work again: `trouble` says it then."""
        # A small write may succeed on a disk that is full: it fits into a page that SQLite already has.
        big = JobChange("INSERT OR REPLACE INTO probe VALUES (1, zeroblob(?))", (_PROBE_BYTES,))
        with contextlib.suppress(JobsNotStored):
            await self.write_changes(big)
            await self.write_changes(JobChange("DELETE FROM probe", ()))

    async def forget_secrets(self) -> None:
        """Empty the write-ahead log of what ended jobs held; when the disk refuses, the next call tries again."""

        def try_truncate() -> None:
            with contextlib.suppress(sqlite3.Error):
                self._truncate_log()

        if self._log_holds_secrets:
            await self._on_thread(try_truncate)

    async def read_record(self, job_id: str) -> JobRecord | None:
        """Return a job with its result, or None."""
        found_rows = await self._run_query(f"SELECT {_SUMMARY}, output, error FROM jobs WHERE id = ?", job_id)
        return (
            JobRecord(row=_to_row(found_rows[0][:-2]), output=found_rows[0][-2], error=found_rows[0][-1])
            if found_rows
            else None
        )

    async def read_input(self, job_id: str) -> object:
        """Return the input of a job, or None."""
        found_rows = await self._run_query("SELECT input FROM jobs WHERE id = ?", job_id)
        return await run_by_size(len(found_rows[0][0]), json.loads, found_rows[0][0]) if found_rows else None

    async def read_description(self, job_id: str) -> JobDescription:
        """Return what a job was asked for; an empty description for one of an older version."""
        found_rows = await self._run_query(
            "SELECT api, workflow, release, shape, texts FROM job_descriptions WHERE job_id = ?", job_id
        )
        if not found_rows:
            return JobDescription(api="runpod")
        api, workflow, release, shape, texts = found_rows[0]
        return JobDescription(api=api, workflow=workflow, release=release, shape=shape, texts=texts)

    async def list_jobs(self, job_filter: JobFilter) -> list[ListedJob]:
        """Return the jobs that a filter lets through, newest first."""
        query, values = listing_query(job_filter)
        return [to_listed_job(columns) for columns in await self._run_query(query, *values)]

    async def recent_runs(self, most: int) -> list[tuple[str, float]]:
        """Return the shapes of the newest completed jobs and the seconds that these ran, oldest first."""
        found_rows = await self._run_query(
            "SELECT shape, ended_at - started_at FROM jobs JOIN job_descriptions ON job_id = id "
            "WHERE state = 'COMPLETED' AND started_at IS NOT NULL ORDER BY number DESC LIMIT ?",
            most,
        )
        return [(str(shape), max(0.0, float(run_s))) for shape, run_s in reversed(found_rows)]

    async def had_secrets(self, job_id: str) -> bool:
        """Return whether the job came with secrets, which are removed when it ends; yes if it is not in the file."""
        found_rows = await self._run_query("SELECT secret FROM jobs WHERE id = ?", job_id)
        return not found_rows or bool(found_rows[0][0])

    async def pending_jobs(self) -> list[JobRow]:
        """Return the jobs that have not ended, in order of arrival."""
        found_rows = await self._run_query(f"SELECT {_SUMMARY} FROM jobs WHERE ended_at IS NULL ORDER BY number")
        return [_to_row(columns) for columns in found_rows]

    async def webhooks_owed(self) -> list[JobRow]:
        """Return the ended jobs whose webhooks were not posted."""
        return [
            _to_row(columns) for columns in await self._run_query(f"SELECT {_SUMMARY} FROM jobs WHERE webhook_owed")
        ]

    async def count_by_state(self) -> dict[JobState, int]:
        """Count the jobs that are kept, by state."""
        found_rows = dict(await self._run_query("SELECT state, COUNT(*) FROM jobs GROUP BY state"))
        return {state: int(found_rows.get(state, 0)) for state in JOB_STATES}

    async def count_retries(self) -> int:
        """Count how often jobs were run again on request."""
        return int((await self._run_query("SELECT COALESCE(SUM(retries), 0) FROM jobs"))[0][0])

    async def prune_results(self, *, ended_before: float, max_bytes: int) -> list[str]:
        """Drop the results that are too old, and the oldest of those that take too much; returns their jobs' ids."""

        def prune_in_thread() -> list[str]:
            try:
                return self._delete_old_results(ended_before, max_bytes)
            except sqlite3.Error as exc:
                raise JobsNotStored(reason=_failure_reason(exc)) from exc

        return await self._on_thread(prune_in_thread)

    def close(self) -> None:
        """Fold the log into the file and close it."""
        # Waits for the thread: nothing may still use the connection when it is closed.
        self._thread.shutdown()
        with contextlib.suppress(sqlite3.Error):
            self._truncate_log()
        self._connection.close()

    async def _flush_batches(self) -> None:
        while self._waiting_batches:
            # What arrives while one batch is committed makes up the next.
            change_batch, self._waiting_batches = self._waiting_batches, []
            try:
                failures = await self._on_thread(partial(self._commit_batch, change_batch))
            except Exception as exc:  # a mistake of ours must not leave anybody waiting for ever
                log.exception("jobs not written", extra={"action": "jobs_broken"})
                failures = [JobsNotStored(reason=str(exc))] * len(change_batch)
            self._note_trouble(None if None in failures else failures[-1])
            for waiting_batch, write_failure in zip(change_batch, failures, strict=True):
                # Whoever asked was cancelled meanwhile, and waits no more.
                if waiting_batch.committed.done():
                    continue
                if write_failure is None:
                    waiting_batch.committed.set_result(None)
                else:
                    waiting_batch.committed.set_exception(write_failure)

    def _note_trouble(self, write_failure: JobsNotStored | None) -> None:
        if write_failure is not None and self.trouble is None:
            log.error(write_failure.message, extra={"action": "jobs_not_written", "path": str(self._path)})
        elif write_failure is None and self.trouble is not None:
            log.info("jobs are written again", extra={"action": "jobs_written_again", "path": str(self._path)})
        self.trouble = write_failure

    def _commit_batch(self, change_batch: "Sequence[_WaitingBatch]") -> list[JobsNotStored | None]:
        """Commit all together; if that fails, each alone: one that does not fit must not take the others along."""
        self._require_flush(any(not waiting_batch.is_copy for waiting_batch in change_batch))
        write_failure = self._try_commit([change for batch in change_batch for change in batch.job_changes])
        if write_failure is None or len(change_batch) == 1:
            return [write_failure] * len(change_batch)
        return [self._try_commit(waiting_batch.job_changes) for waiting_batch in change_batch]

    def _require_flush(self, is_required: bool) -> None:  # noqa: FBT001 - the pragma's own two values
        """Let commits wait for the disk, or not; one that waits takes along what was committed before it."""
        if is_required != self._flushes:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if is_required else 'NORMAL'}")
            self._flushes = is_required

    def _try_commit(self, job_changes: Sequence[JobChange]) -> JobsNotStored | None:
        try:
            self._commit_changes(job_changes)
        except JobsNotStored:
            # The log takes more than what is in it: folded into the file, it makes room on a disk that is full of it.
            self._log_holds_secrets = True
            with contextlib.suppress(sqlite3.Error):
                self._truncate_log()
            try:
                self._commit_changes(job_changes)
            except JobsNotStored as write_failure:
                return write_failure
        return None

    def _require_file(self) -> None:
        """Refuse to write into a file that was removed: SQLite would, and no later server could find it there."""
        try:
            inode = self._path.stat().st_ino
        except OSError as exc:
            raise JobsNotStored(reason=f"their file was removed ({reason_of(exc)})") from exc
        if inode != self._inode:
            raise JobsNotStored(reason="another file has taken the place of theirs")

    def _commit_changes(self, job_changes: Sequence[JobChange]) -> None:
        self._require_file()
        try:
            # IMMEDIATE takes the write lock at once, so that a commit cannot fail half-way for want of it.
            self._connection.execute("BEGIN IMMEDIATE")
            for change in job_changes:
                self._connection.execute(change.statement, change.values)
            self._connection.execute("COMMIT")
        except (sqlite3.Error, UnicodeError) as exc:
            # A full disk ends a transaction by itself; what is not ended here would swallow all later ones.
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise JobsNotStored(reason=_failure_reason(exc)) from exc
        with contextlib.suppress(sqlite3.Error):  # `forget_secrets` tries again
            self._log_holds_secrets |= any(self._had_secret(change.forgets) for change in job_changes)
            self._truncate_log()

    def _had_secret(self, job_id: str | None) -> bool:
        if job_id is None:
            return False
        return bool(self._connection.execute("SELECT 1 FROM jobs WHERE id = ? AND secret", (job_id,)).fetchall())

    def _truncate_log(self) -> None:
        """Empty the write-ahead log: it holds pages as they were before what was forgotten in them."""
        if self._log_holds_secrets:
            busy, *_ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._log_holds_secrets = bool(busy)

    def _delete_old_results(self, before: float, max_bytes: int) -> list[str]:
        newest_first = (
            "SELECT id, size, ended_at FROM jobs WHERE ended_at IS NOT NULL AND NOT webhook_owed ORDER BY ended_at DESC"
        )
        kept_bytes = 0
        dropped_ids: list[str] = []
        for job_id, size, ended_at in self._connection.execute(newest_first).fetchall():
            kept_bytes += size
            if kept_bytes > max_bytes or ended_at < before:
                dropped_ids.append(job_id)
        self._commit_changes([JobChange("DELETE FROM jobs WHERE id = ?", (job_id,)) for job_id in dropped_ids])
        # Each row that is read gives one page back; without reading them it would stop after the first.
        self._connection.execute("PRAGMA incremental_vacuum").fetchall()
        return dropped_ids

    async def _run_query(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        def query_in_thread() -> list[tuple[Any, ...]]:
            try:
                return self._fetch_rows(query, values)
            except sqlite3.Error as exc:
                raise JobsNotStored(reason=_failure_reason(exc)) from exc

        return await self._on_thread(query_in_thread)

    def _fetch_rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except UnicodeEncodeError:
            # Half a surrogate pair, which a client may send as an id: SQLite can hold nothing of that name.
            return []

    async def _on_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _casefold(text: str | None) -> str | None:
    return None if text is None else text.casefold()


def _failure_reason(sqlite_error: Exception) -> str:
    """Name a full disk as such; SQLite says "database or disk is full" or, for its log, "I/O error"."""
    if isinstance(sqlite_error, OSError):
        return reason_of(sqlite_error)
    if getattr(sqlite_error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return "the disk is full"
    return str(sqlite_error)


def _to_row(found_rows: Sequence[Any]) -> JobRow:
    return JobRow(**dict(zip(_SUMMARY.split(", "), found_rows, strict=True)))

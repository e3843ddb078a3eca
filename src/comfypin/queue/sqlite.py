"""Jobs in SQLite on the local disk: accepted means committed; what had not ended is found again after any kill.

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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from comfypin.jobs.interface import RETRYABLE, STATES, State
from comfypin.jobs.secret_fields import holds_secret, is_secret_address
from comfypin.machine_errors import reason_of
from comfypin.queue.errors import JobsUnusable
from comfypin.queue.older_jobs import forget_older_inputs

log = logging.getLogger(__name__)

Result = TypeVar("Result")
WRITE_AGAIN_S = 0.5
_PROBE_BYTES = 65_536
_LONGEST_WAL_BYTES = 8 << 20
_CHECKPOINT_PAGES = 256  # 1 MB: a log that is larger than a small disk could never be folded

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, input TEXT NOT NULL,
    webhook TEXT, webhook_owed INTEGER NOT NULL DEFAULT 0, timeout_s REAL, ttl_s REAL,
    attempts INTEGER NOT NULL DEFAULT 0, retries INTEGER NOT NULL DEFAULT 0, secret INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL, started_at REAL, ended_at REAL, output TEXT, error TEXT, size INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS probe (number INTEGER PRIMARY KEY, bytes BLOB);
CREATE INDEX IF NOT EXISTS by_end ON jobs (ended_at);
CREATE INDEX IF NOT EXISTS by_state ON jobs (state);
"""
_SUMMARY = "id, state, webhook, timeout_s, ttl_s, attempts, created_at, started_at, ended_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job without its input and output. Times in seconds since the epoch."""

    id: str
    state: State
    webhook: str | None = None
    timeout_s: float | None = None
    ttl_s: float | None = None
    attempts: int = 0
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A job as its status tells it; `output` is JSON text."""

    row: JobRow
    output: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One statement of a transaction. `forgets` names a job whose secrets it removes, if it has any."""

    statement: str
    values: tuple[object, ...]
    forgets: str | None = None


def accepted(row: JobRow, job_input: object) -> Change:
    """Return the change for a job that was taken. Slow for a large input: walks and dumps all of it."""
    text = json.dumps(job_input)
    secret = holds_secret(job_input) or is_secret_address(row.webhook or "")
    places = (row.id, row.state, text, row.webhook, row.timeout_s, row.ttl_s, secret, row.created_at)
    return Change(
        "INSERT INTO jobs (id, state, input, webhook, timeout_s, ttl_s, secret, created_at, size) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*places, len(text)),
    )


def started(job_id: str, at: float) -> Change:
    """Return the change for a job that begins, unless it has been ended meanwhile."""
    return Change(
        "UPDATE jobs SET state = 'IN_PROGRESS', attempts = attempts + 1, started_at = ? "
        "WHERE id = ? AND ended_at IS NULL",
        (at, job_id),
    )


def given_back(job_id: str) -> Change:
    """Return the change for a job that was stopped with the server: it waits again, as if it had not begun."""
    return Change(
        "UPDATE jobs SET state = 'IN_QUEUE', attempts = attempts - 1 WHERE id = ? AND ended_at IS NULL", (job_id,)
    )


def ended(job_id: str, state: State, at: float, *, output: str | None, error: str | None) -> Change:
    """Return the change for a job that ended; its webhook is owed from here on. A job ends once.

    Its input goes, unless the job may be retried and holds no secret.
    """
    kept = "input" if state in RETRYABLE else "'{}'"
    return Change(
        "UPDATE jobs SET state = ?, ended_at = ?, output = ?, error = ?, webhook_owed = webhook IS NOT NULL, "
        f"input = CASE WHEN secret THEN '{{}}' ELSE {kept} END, size = length(input) + ? "
        "WHERE id = ? AND ended_at IS NULL",
        (state, at, output, error, len(output or ""), job_id),
        forgets=job_id,
    )


def queued_again(job_id: str, at: float) -> Change:
    """Return the change for a job that had ended and waits again."""
    return Change(
        "UPDATE jobs SET state = 'IN_QUEUE', attempts = 0, retries = retries + 1, created_at = ?, started_at = NULL, "
        "ended_at = NULL, output = NULL, error = NULL, webhook_owed = 0 WHERE id = ? AND ended_at IS NOT NULL",
        (at, job_id),
    )


def webhook_told(job_id: str) -> Change:
    """Return the change for a webhook that was told. Its address may hold a token: it stays for a retry only."""
    return Change(
        "UPDATE jobs SET webhook_owed = 0, "
        "webhook = CASE WHEN secret OR state IN ('COMPLETED', 'CANCELLED') THEN NULL ELSE webhook END WHERE id = ?",
        (job_id,),
        forgets=job_id,
    )


class JobStore:
    """The jobs of one server. Raises `JobsUnusable` where the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._waiting: list[tuple[tuple[Change, ...], asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._forgetting = True  # what a server that was killed left in the log
        self.trouble: JobsUnusable | None = None
        """Why the last write failed; None if it worked."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            self._inode = path.stat().st_ino
            self._base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in (
                "auto_vacuum = INCREMENTAL",
                "journal_mode = WAL",
                "synchronous = FULL",
                "secure_delete = ON",
                f"journal_size_limit = {_LONGEST_WAL_BYTES}",
                f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
            ):
                self._base.execute(f"PRAGMA {pragma}")
            self._base.executescript(_SCHEMA)
            forget_older_inputs(self._base)
            self._checkpoint()
        except (sqlite3.Error, OSError) as exc:
            raise JobsUnusable(path=str(path), reason=_reason(exc)) from exc

    async def write(self, *changes: Change) -> None:
        """Make the changes; they are on the disk when this returns, together with what others write meanwhile."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((changes, done))
        if self._flushing is None or self._flushing.done():
            self._flushing = loop.create_task(self._flush())
        await done

    async def write_until_done(self, *changes: Change) -> None:
        """Make the changes, however long the disk refuses them; ends otherwise only when it is cancelled."""
        while True:
            try:
                return await self.write(*changes)
            except JobsUnusable:
                await asyncio.sleep(WRITE_AGAIN_S)

    async def probe(self) -> None:
        """Find out whether writes work again: `trouble` says it then."""
        big = Change("INSERT OR REPLACE INTO probe VALUES (1, zeroblob(?))", (_PROBE_BYTES,))
        with contextlib.suppress(JobsUnusable):
            await self.write(big)
            await self.write(Change("DELETE FROM probe", ()))

    async def forget(self) -> None:
        """Empty the write-ahead log of what ended jobs held; when the disk refuses, the next call tries again."""

        def checkpoint() -> None:
            with contextlib.suppress(sqlite3.Error):
                self._checkpoint()

        if self._forgetting:
            await self._on_thread(checkpoint)

    async def row(self, job_id: str) -> JobRow | None:
        """A job's row."""
        found = await self._ask(f"SELECT {_SUMMARY} FROM jobs WHERE id = ?", job_id)
        return _row(found[0]) if found else None

    async def record(self, job_id: str) -> Record | None:
        """A job with its result."""
        found = await self._ask(f"SELECT {_SUMMARY}, output, error FROM jobs WHERE id = ?", job_id)
        return Record(row=_row(found[0][:-2]), output=found[0][-2], error=found[0][-1]) if found else None

    async def input(self, job_id: str) -> object:
        """What a job asks for."""
        found = await self._ask("SELECT input FROM jobs WHERE id = ?", job_id)
        return await asyncio.to_thread(json.loads, found[0][0]) if found else None

    async def had_secrets(self, job_id: str) -> bool:
        """Whether the job came with secrets, which are gone when it has ended."""
        return bool((await self._ask("SELECT secret FROM jobs WHERE id = ?", job_id))[0][0])

    async def pending(self) -> list[JobRow]:
        """What has not ended, in the order in which it was taken."""
        found = await self._ask(f"SELECT {_SUMMARY} FROM jobs WHERE ended_at IS NULL ORDER BY number")
        return [_row(one) for one in found]

    async def webhooks_owed(self) -> list[JobRow]:
        """The ended jobs whose webhooks were not told."""
        return [_row(one) for one in await self._ask(f"SELECT {_SUMMARY} FROM jobs WHERE webhook_owed")]

    async def counts(self) -> dict[State, int]:
        """How many jobs are kept, by state."""
        found = dict(await self._ask("SELECT state, COUNT(*) FROM jobs GROUP BY state"))
        return {state: int(found.get(state, 0)) for state in STATES}

    async def retries(self) -> int:
        """How often jobs were run again on request."""
        return int((await self._ask("SELECT COALESCE(SUM(retries), 0) FROM jobs"))[0][0])

    async def prune(self, *, ended_before: float, max_bytes: int) -> int:
        """Drop the results that are too old, and the oldest of those that take too much; returns how many."""

        def prune() -> int:
            try:
                return self._prune(ended_before, max_bytes)
            except sqlite3.Error as exc:
                raise JobsUnusable(path=str(self._path), reason=_reason(exc)) from exc

        return await self._on_thread(prune)

    def close(self) -> None:
        """Fold the log into the file and close it."""
        self._thread.shutdown()
        with contextlib.suppress(sqlite3.Error):
            self._checkpoint()
        self._base.close()

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                failures = await self._on_thread(partial(self._commit_batch, [changes for changes, _ in batch]))
            except Exception as exc:  # a mistake of ours must not leave anybody waiting for ever
                log.exception("jobs not written", extra={"action": "jobs_broken"})
                failures = [JobsUnusable(path=str(self._path), reason=str(exc))] * len(batch)
            self._note(None if None in failures else failures[-1])
            for (_, done), failure in zip(batch, failures, strict=True):
                if done.done():
                    continue
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(failure)

    def _note(self, failure: JobsUnusable | None) -> None:
        if failure is not None and self.trouble is None:
            log.error(failure.message, extra={"action": "jobs_not_written", "path": str(self._path)})
        elif failure is None and self.trouble is not None:
            log.info("jobs are written again", extra={"action": "jobs_written_again", "path": str(self._path)})
        self.trouble = failure

    def _commit_batch(self, batch: Sequence[tuple[Change, ...]]) -> list[JobsUnusable | None]:
        """Commit all together; if that fails, each alone: one that does not fit must not take the others along."""
        failure = self._failure_of([change for changes in batch for change in changes])
        if failure is None or len(batch) == 1:
            return [failure] * len(batch)
        return [self._failure_of(changes) for changes in batch]

    def _failure_of(self, changes: Sequence[Change]) -> JobsUnusable | None:
        try:
            self._commit(changes)
        except JobsUnusable:
            # The log takes more than what is in it: folded into the file, it makes room on a disk that is full of it.
            self._forgetting = True
            with contextlib.suppress(sqlite3.Error):
                self._checkpoint()
            try:
                self._commit(changes)
            except JobsUnusable as failure:
                return failure
        return None

    def _require_file(self) -> None:
        """Refuse to write into a file that was removed: SQLite would, and no later server could find it there."""
        try:
            inode = self._path.stat().st_ino
        except OSError as exc:
            raise JobsUnusable(path=str(self._path), reason=f"{reason_of(exc)}; it was removed") from exc
        if inode != self._inode:
            raise JobsUnusable(path=str(self._path), reason="another file has taken its place")

    def _commit(self, changes: Sequence[Change]) -> None:
        self._require_file()
        try:
            self._base.execute("BEGIN IMMEDIATE")
            for change in changes:
                self._base.execute(change.statement, change.values)
            self._base.execute("COMMIT")
        except (sqlite3.Error, UnicodeError) as exc:
            # A full disk ends a transaction by itself; what is not ended here would swallow all later ones.
            if self._base.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._base.execute("ROLLBACK")
            raise JobsUnusable(path=str(self._path), reason=_reason(exc)) from exc
        with contextlib.suppress(sqlite3.Error):  # `forget` tries again
            self._forgetting |= any(self._had_secret(change.forgets) for change in changes)
            self._checkpoint()

    def _had_secret(self, job_id: str | None) -> bool:
        if job_id is None:
            return False
        return bool(self._base.execute("SELECT 1 FROM jobs WHERE id = ? AND secret", (job_id,)).fetchall())

    def _checkpoint(self) -> None:
        """Empty the write-ahead log: it holds pages as they were before what was forgotten in them."""
        if self._forgetting:
            busy, *_ = self._base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._forgetting = bool(busy)

    def _prune(self, before: float, max_bytes: int) -> int:
        newest_first = (
            "SELECT id, size FROM jobs WHERE ended_at IS NOT NULL AND NOT webhook_owed ORDER BY ended_at DESC"
        )
        kept_bytes = 0
        dropped = [Change("DELETE FROM jobs WHERE ended_at < ? AND NOT webhook_owed", (before,))]
        for job_id, size in self._base.execute(newest_first).fetchall():
            kept_bytes += size
            if kept_bytes > max_bytes:
                dropped.append(Change("DELETE FROM jobs WHERE id = ?", (job_id,)))
        changes = self._base.total_changes
        self._commit(dropped)
        self._base.execute("PRAGMA incremental_vacuum").fetchall()
        return self._base.total_changes - changes

    async def _ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        def ask() -> list[tuple[Any, ...]]:
            try:
                return self._base.execute(query, values).fetchall()
            except sqlite3.Error as exc:
                raise JobsUnusable(path=str(self._path), reason=_reason(exc)) from exc

        return await self._on_thread(ask)

    async def _on_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _reason(error: Exception) -> str:
    """Say a full disk in words of its own; SQLite's are "database or disk is full" and, for its log, an I/O error."""
    if isinstance(error, OSError):
        return reason_of(error)
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return "the disk is full"
    return str(error)


def _row(found: Sequence[Any]) -> JobRow:
    return JobRow(**dict(zip(_SUMMARY.split(", "), found, strict=True)))

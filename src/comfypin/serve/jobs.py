"""Jobs in SQLite on the local disk: accepted means committed; what had not ended is found again after any kill.

WAL with full synchronisation: what a commit returned from survives a power cut. All changes that wait are committed
together, so that hundreds of clients cost a few flushes. One thread owns the connection.
"""

# ruff: noqa: S608 - statements are put together from constants alone
import asyncio
import json
import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from comfypin.errors.serve import JobsUnusable

Result = TypeVar("Result")
State = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]
STATES: tuple[State, ...] = get_args(State)
PENDING: frozenset[State] = frozenset({"IN_QUEUE", "IN_PROGRESS"})
SECRETS = ("comfy_org_api_key", "s3Config", "s3_config", "api_key_comfy_org", "auth_token_comfy_org")
# A job may be JSON within a JSON text, where its quotes stand behind backslashes.
_SECRET_FIELD = re.compile(rf'(?:{"|".join(SECRETS)})\\*"\s*:')
"""What of a job's input is kept only while the job is owed."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, input TEXT NOT NULL,
    webhook TEXT, webhook_owed INTEGER NOT NULL DEFAULT 0, timeout_s REAL, ttl_s REAL,
    attempts INTEGER NOT NULL DEFAULT 0, retries INTEGER NOT NULL DEFAULT 0, secret INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL, started_at REAL, ended_at REAL, output TEXT, error TEXT, size INTEGER NOT NULL
);
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


Change: TypeAlias = tuple[str, tuple[object, ...]]
"""One statement of a transaction."""


def accepted(row: JobRow, job_input: object) -> Change:
    """A job was taken."""
    text = json.dumps(job_input)
    places = (row.id, row.state, text, row.webhook, row.timeout_s, row.ttl_s, _holds_secret(text), row.created_at)
    return (
        "INSERT INTO jobs (id, state, input, webhook, timeout_s, ttl_s, secret, created_at, size) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*places, len(text)),
    )


def started(job_id: str, at: float) -> Change:
    """A job began."""
    return (
        "UPDATE jobs SET state = 'IN_PROGRESS', attempts = attempts + 1, started_at = ? WHERE id = ?",
        (at, job_id),
    )


def given_back(job_id: str) -> Change:
    """A job that was stopped with the server waits again, as if it had not begun."""
    return ("UPDATE jobs SET state = 'IN_QUEUE', attempts = attempts - 1 WHERE id = ?", (job_id,))


def ended(job_id: str, state: State, at: float, *, output: str | None, error: str | None) -> Change:
    """A job ended; its webhook is owed from here on, and its secrets are gone. A job ends once."""
    return (
        "UPDATE jobs SET state = ?, ended_at = ?, output = ?, error = ?, webhook_owed = webhook IS NOT NULL, "
        "input = CASE WHEN secret THEN '{}' ELSE input END, size = length(input) + ? "
        "WHERE id = ? AND ended_at IS NULL",
        (state, at, output, error, len(output or ""), job_id),
    )


def queued_again(job_id: str, at: float) -> Change:
    """A job that had ended waits again."""
    return (
        "UPDATE jobs SET state = 'IN_QUEUE', attempts = 0, retries = retries + 1, created_at = ?, started_at = NULL, "
        "ended_at = NULL, output = NULL, error = NULL, webhook_owed = 0 WHERE id = ? AND ended_at IS NOT NULL",
        (at, job_id),
    )


def webhook_told(job_id: str) -> Change:
    """Nothing is owed to the job's webhook any more."""
    return ("UPDATE jobs SET webhook_owed = 0 WHERE id = ?", (job_id,))


class JobStore:
    """The jobs of one server. Raises `JobsUnusable` where the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._waiting: list[tuple[tuple[Change, ...], asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            self._base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in (
                "auto_vacuum = INCREMENTAL",
                "journal_mode = WAL",
                "synchronous = FULL",
                "secure_delete = ON",
            ):
                self._base.execute(f"PRAGMA {pragma}")
            self._base.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as exc:
            raise JobsUnusable(path=str(path), reason=str(exc)) from exc

    async def write(self, *changes: Change) -> None:
        """Make the changes; they are on the disk when this returns, together with what others write meanwhile."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((changes, done))
        if self._flushing is None or self._flushing.done():
            self._flushing = loop.create_task(self._flush())
        await done

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
        return json.loads(found[0][0]) if found else None

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

    async def prune(self, *, older_than_s: float, max_bytes: int) -> int:
        """Drop the results that are too old, and the oldest of those that take too much; returns how many."""
        return await self._on_thread(lambda: self._prune(time.time() - older_than_s, max_bytes))

    def close(self) -> None:
        """Fold the log into the file and close it."""
        self._thread.shutdown()
        self._base.close()

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            failure: JobsUnusable | None = None
            try:
                await self._on_thread(partial(self._commit, [one for changes, _ in batch for one in changes]))
            except JobsUnusable as exc:
                failure = exc
            for _, done in batch:
                if done.done():
                    continue
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(failure)

    def _commit(self, changes: Sequence[Change]) -> None:
        try:
            self._base.execute("BEGIN IMMEDIATE")
            for statement, values in changes:
                self._base.execute(statement, values)
            self._base.execute("COMMIT")
        except (sqlite3.Error, UnicodeError) as exc:
            if self._base.in_transaction:
                self._base.execute("ROLLBACK")
            raise JobsUnusable(path=str(self._path), reason=str(exc)) from exc

    def _prune(self, before: float, max_bytes: int) -> int:
        newest_first = (
            "SELECT id, size FROM jobs WHERE ended_at IS NOT NULL AND NOT webhook_owed ORDER BY ended_at DESC"
        )
        kept_bytes = 0
        dropped: list[Change] = [("DELETE FROM jobs WHERE ended_at < ? AND NOT webhook_owed", (before,))]
        for job_id, size in self._base.execute(newest_first).fetchall():
            kept_bytes += size
            if kept_bytes > max_bytes:
                dropped.append(("DELETE FROM jobs WHERE id = ?", (job_id,)))
        changes = self._base.total_changes
        self._commit(dropped)
        self._base.execute("PRAGMA incremental_vacuum").fetchall()
        return self._base.total_changes - changes

    async def _ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        def ask() -> list[tuple[Any, ...]]:
            try:
                return self._base.execute(query, values).fetchall()
            except sqlite3.Error as exc:
                raise JobsUnusable(path=str(self._path), reason=str(exc)) from exc

        return await self._on_thread(ask)

    async def _on_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _holds_secret(text: str) -> bool:
    """Whether a job has a field that holds a secret, at any depth: a whole /prompt body brings ComfyUI's own names."""
    return _SECRET_FIELD.search(text) is not None


def _row(found: Sequence[Any]) -> JobRow:
    return JobRow(**dict(zip(_SUMMARY.split(", "), found, strict=True)))

"""A file of jobs of an older version, in which inputs stayed when their jobs had ended."""

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from comfypin.queue.sqlite import JobStore

SECRET = "hunter2-of-an-old-job"
_OLD = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, input TEXT NOT NULL,
    webhook TEXT, webhook_owed INTEGER NOT NULL DEFAULT 0, timeout_s REAL, ttl_s REAL,
    attempts INTEGER NOT NULL DEFAULT 0, retries INTEGER NOT NULL DEFAULT 0, secret INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL, started_at REAL, ended_at REAL, output TEXT, error TEXT, size INTEGER NOT NULL
);
"""
_INPUT = json.dumps({"workflow": {}, "S3Config": {"accessSecret": SECRET}})


def older(path: Path, *rows: tuple[str, str, str, float | None]) -> Path:
    """A file as the older version left it: (id, state, input, when it ended), and one row that was deleted."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.executescript(f"PRAGMA journal_mode = WAL; PRAGMA secure_delete = OFF; {_OLD}")
        insert = "INSERT INTO jobs (id, state, input, ended_at, created_at, size) VALUES (?, ?, ?, ?, 1, ?)"
        for row in [*rows, ("dropped", "COMPLETED", _INPUT, 1.0)]:
            base.execute(insert, (*row, len(row[2])))
        base.execute("DELETE FROM jobs WHERE id = 'dropped'")
    return path


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


@pytest.mark.parametrize("state", ["COMPLETED", "CANCELLED", "FAILED", "TIMED_OUT"])
def test_secrets_of_ended_jobs_are_gone_when_the_file_is_opened(tmp_path: Path, state: str) -> None:
    path = older(tmp_path / "jobs.sqlite", ("job", state, _INPUT, 1.0))
    assert SECRET.encode() in bytes_of(tmp_path)
    JobStore(path).close()
    assert SECRET.encode() not in bytes_of(tmp_path)


async def test_a_failed_job_without_secrets_may_still_be_retried(tmp_path: Path) -> None:
    store = JobStore(older(tmp_path / "jobs.sqlite", ("job", "FAILED", '{"workflow": {"1": {}}}', 1.0)))
    assert await store.read_input("job") == {"workflow": {"1": {}}}
    assert not await store.had_secrets("job")
    store.close()


async def test_a_job_that_waits_keeps_its_secrets_until_it_ends(tmp_path: Path) -> None:
    store = JobStore(older(tmp_path / "jobs.sqlite", ("job", "IN_QUEUE", _INPUT, None)))
    assert await store.read_input("job") == json.loads(_INPUT)
    assert await store.had_secrets("job")
    store.close()


def test_a_file_is_judged_once(tmp_path: Path) -> None:
    path = older(tmp_path / "jobs.sqlite", ("job", "COMPLETED", _INPUT, 1.0))
    JobStore(path).close()
    with contextlib.closing(sqlite3.connect(path)) as base:
        assert base.execute("PRAGMA user_version").fetchone() == (1,)
        assert base.execute("SELECT input, size FROM jobs").fetchall() == [("{}", 2)]

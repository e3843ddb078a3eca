"""Brings a file of jobs that an older version wrote to what this one promises: no secret outlives its job."""

import contextlib
import json
import sqlite3

from comfypin.jobs.secret_fields import holds_secret, is_secret_address

_VERSION = 1  # PRAGMA user_version: 0 is a new file, or one in which inputs stayed until their jobs were dropped


def add_missing_columns(connection: sqlite3.Connection) -> None:
    """Add what the table of jobs of an older version lacks. Raises `sqlite3.Error`."""
    columns = {row[1] for row in connection.execute("PRAGMA table_info(jobs)").fetchall()}
    if "priority" not in columns:
        connection.execute("ALTER TABLE jobs ADD COLUMN priority TEXT NOT NULL DEFAULT 'normal'")
    if "rank" not in columns:
        connection.execute("ALTER TABLE jobs ADD COLUMN rank INTEGER NOT NULL DEFAULT 0")


def forget_older_inputs(connection: sqlite3.Connection) -> None:
    """Remove what ended jobs of an older version left, from the free pages too. Raises `sqlite3.Error`.

    A disk without room for the free pages' turn is no failure: the next open tries again.
    """
    if connection.execute("PRAGMA user_version").fetchone()[0] >= _VERSION:
        return
    is_new = connection.execute("SELECT NOT EXISTS (SELECT 1 FROM jobs)").fetchone()[0]
    connection.execute("BEGIN IMMEDIATE")
    try:
        _note_secrets(connection)
        connection.execute(
            "UPDATE jobs SET input = '{}', size = 2 + length(COALESCE(output, '')) "
            "WHERE ended_at IS NOT NULL AND (secret OR state IN ('COMPLETED', 'CANCELLED'))"
        )
        connection.execute(
            "UPDATE jobs SET webhook = NULL WHERE ended_at IS NOT NULL AND NOT webhook_owed "
            "AND (secret OR state IN ('COMPLETED', 'CANCELLED'))"
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    with contextlib.suppress(sqlite3.OperationalError):
        if not is_new:
            connection.execute("VACUUM")  # older versions did not overwrite what they freed
        connection.execute(f"PRAGMA user_version = {_VERSION}")


def _note_secrets(connection: sqlite3.Connection) -> None:
    """Judge by today's rules the jobs whose inputs stay: those that wait, and those that may be retried."""
    staying = "SELECT id, input, webhook FROM jobs WHERE NOT secret AND state NOT IN ('COMPLETED', 'CANCELLED')"
    for job_id, json_text, webhook in connection.execute(staying).fetchall():
        if holds_secret(_parsed(json_text)) or is_secret_address(webhook or ""):
            connection.execute("UPDATE jobs SET secret = 1 WHERE id = ?", (job_id,))


def _parsed(json_text: str) -> object:
    try:
        return json.loads(json_text)
    except (ValueError, RecursionError):
        return json_text

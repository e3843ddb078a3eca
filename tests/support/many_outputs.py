"""Gives a server that has one output thousands more, as copies of that row."""

import sqlite3
from pathlib import Path


def copy_outputs(state_dir: Path, count: int) -> None:
    """Add `count` outputs to the index of a server that runs."""
    with sqlite3.connect(state_dir / "jobs.sqlite") as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(job_outputs)")][3:]
        copied = ", ".join(name for name in columns if name != "position")
        database.execute(
            "WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < ?) "
            f"INSERT INTO job_outputs (job_id, made_at, position, {copied}) "
            f"SELECT job_id, made_at, counted.n, {copied} FROM job_outputs, counted",
            (count,),
        )

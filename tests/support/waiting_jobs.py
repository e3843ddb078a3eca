"""Puts jobs that wait into a server's state before it starts: a thousand requests would take half a minute."""

import asyncio
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from comfypin.queue.interface import JobRow
from comfypin.queue.job_changes import job_accepted
from comfypin.queue.job_description import SCHEMA, describe_job, job_described
from comfypin.queue.sqlite import JobStore


def leave_waiting(state_dir: Path, job_inputs: Iterable[object]) -> None:
    """Write jobs as the last server left them that wait in this order, each a second after the one before."""
    # Playwright's loop runs in the thread of tests with a browser.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _write(state_dir, list(job_inputs))).result()


async def _write(state_dir: Path, job_inputs: list[object]) -> None:
    store = JobStore(state_dir / "jobs.sqlite")
    try:
        store.add_tables(SCHEMA)
        first_at = time.time() - len(job_inputs)
        changes = []
        for place, job_input in enumerate(job_inputs):
            row = JobRow(
                id=f"waits-{place:05}",
                state="IN_QUEUE",
                webhook=None,
                timeout_s=None,
                ttl_s=None,
                created_at=first_at + place,
            )
            described = job_described(row.id, describe_job(job_input, api="runpod", release="demo"))
            changes += [job_accepted(row, job_input), described]
        await store.write_changes(*changes)
    finally:
        store.close()

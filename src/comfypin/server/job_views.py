"""Looks up jobs for lists, pages and events: those in memory as they are now, the rest from the disk."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from comfypin.digest import JsonValue
from comfypin.jobs.interface import JOB_STATES, PENDING_STATES
from comfypin.queue.interface import JobRow, ServedQueue
from comfypin.queue.job_listing import JobFilter
from comfypin.queue.live_jobs import LiveJob
from comfypin.queue.status_bodies import is_pending
from comfypin.server.job_errors import error_details
from comfypin.server.job_summary import job_summary

# As many as the page shows before somebody scrolls.
_NEWEST_ENDED = 50
_WRITTEN_AT_ONCE = 25  # half a millisecond's work
_LET_OTHERS_S = 0.0005
_LONGEST_SHOWN = 2_000  # a longer text of an input is a file in base64
_ENDED_STATES = tuple(state for state in JOB_STATES if state not in PENDING_STATES)


class JobViews:
    """Shows the jobs of a queue."""

    def __init__(self, queue: ServedQueue) -> None:
        self._queue = queue

    def live_summary(self, job_id: str) -> dict[str, JsonValue] | None:
        """Return a job that has not ended, or ended a short while ago; None if it is not in memory."""
        live_job = self._queue.find_live(job_id)
        if live_job is None:
            return None
        return self._summary_of(live_job, self._queue.waiting_place(job_id), self._queue.end_in_s(live_job))

    async def page(self, job_filter: JobFilter) -> tuple[list[JsonValue], int | None]:
        """Return jobs, newest first, and the number to go on before; None after the last. Raises `JobsNotStored`."""
        # One more than is shown tells whether there are more.
        job_rows = await self._queue.list_jobs(replace(job_filter, limit=job_filter.limit + 1))
        summaries: list[JsonValue] = []
        for listed in job_rows[: job_filter.limit]:
            live_job = self._queue.find_live(listed.row.id)
            if live_job is None or (job_filter.states and live_job.row.state not in job_filter.states):
                summaries.append(job_summary(listed.row, listed.description, listed.end))
            else:
                queue_position = self._queue.waiting_place(listed.row.id)
                summaries.append(self._summary_of(live_job, queue_position, self._queue.end_in_s(live_job)))
        has_more = len(job_rows) > job_filter.limit
        return summaries, job_rows[job_filter.limit - 1].number if has_more else None

    async def snapshot(self) -> str:
        """Return all jobs that wait or run, in order, then the newest that ended, as JSON. Raises `JobsNotStored`."""
        ended, _ = await self.page(JobFilter(states=_ENDED_STATES, limit=_NEWEST_ENDED))
        # In a thread: thousands of jobs may wait.
        pending = await asyncio.to_thread(self._write_pending, self._queue.list_pending())
        jobs = ", ".join([*pending, *map(json.dumps, ended)])
        return f'{{"jobs": [{jobs}], "queue": {json.dumps(self.queue_summary())}}}'

    def queue_summary(self) -> dict[str, JsonValue]:
        """Return how many jobs wait and run, and why none begins, if so."""
        return {
            "waiting": self._queue.waiting_count,
            "running": self._queue.running_count,
            "paused": self._queue.trouble,
            "can_reorder": self._queue.can_reorder,
            "runs_here": self._queue.runs_here,
        }

    async def details(self, job_id: str) -> dict[str, JsonValue]:
        """Return all that is known of a job. Raises `JobUnknown`, `JobsNotStored`."""
        record = await self._queue.read_record(job_id)
        summary = self.live_summary(job_id)
        if summary is None:
            summary = await self._ended_summary(record.row)
        output = json.loads(record.output) if record.output and not is_pending(record.row.state) else None
        # What may hold a secret is shown to nobody, not even while it is there.
        job_input = None if await self._queue.had_secrets(job_id) else await self._queue.read_input(job_id)
        timing = output.get("timing") if isinstance(output, Mapping) else None
        error = summary["error"]
        if isinstance(error, Mapping) and isinstance(output, Mapping):
            summary = {**summary, "error": {**error, **error_details(output)}}
        return {**summary, "input": _shorten(job_input) or None, "output": output, "timing": timing}

    async def _ended_summary(self, row: JobRow) -> dict[str, JsonValue]:
        job_rows = await self._queue.list_jobs(JobFilter(job_id=row.id, limit=1))
        return (
            job_summary(row, job_rows[0].description, job_rows[0].end)
            if job_rows
            else {"id": row.id, "status": row.state}
        )

    @staticmethod
    def _summary_of(live_job: LiveJob, position: int | None, ends_in_s: float | None) -> dict[str, JsonValue]:
        return job_summary(
            live_job.row,
            live_job.description,
            live_job.end,
            progress=live_job.progress,
            position=position,
            ends_in_s=ends_in_s,
        )

    def _write_pending(self, pending: Sequence[LiveJob]) -> list[str]:
        """Return each job as JSON. Blocks, but a few jobs at a time.

        A thread that computes takes Python's lock for 5 ms each time that a request lets go of it, which each does a
        dozen times: with 5,000 jobs that wait, one snapshot made requests take 40 ms longer.
        """
        ends_in_s = self._queue.ends_in_s(pending)
        written, place = list[str](), 0
        for number, live_job in enumerate(pending, 1):
            waits = live_job.row.state == "IN_QUEUE" and not live_job.ending
            place += waits
            summary = self._summary_of(live_job, place if waits else None, ends_in_s[live_job.row.id])
            written.append(json.dumps(summary))
            if number % _WRITTEN_AT_ONCE == 0:
                time.sleep(_LET_OTHERS_S)
        return written


def _shorten(value: object) -> JsonValue:
    """Replace what nobody can read, files in base64, by its size."""
    match value:
        case Mapping():
            return {str(key): _shorten(item) for key, item in value.items()}
        case str():
            return value if len(value) <= _LONGEST_SHOWN else f"({len(value)} characters)"
        case Sequence():
            return [_shorten(item) for item in value]
        case int() | float() | None:
            return value
        case _:
            return str(value)

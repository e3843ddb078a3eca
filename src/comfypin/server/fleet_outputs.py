"""Lists the outputs of a fleet's jobs for the gallery: their results are kept in the queue, not in a file here."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable

from comfypin.errors import StorageError
from comfypin.queue.errors import JobsNotStored, JobUnknown
from comfypin.queue.interface import ServedQueue
from comfypin.queue.sqlite import JobStore
from comfypin.server.output_index import outputs_listed_of

log = logging.getLogger(__name__)

# A gallery of a few thousand; results of years would be read at each start.
_LISTED_JOBS = 2000
_READ_AT_ONCE = 8
# News of a job's end comes by an event; this is for what was missed.
_LOOK_AGAIN_S = 5.0
# The server that keeps a large result may be starting again, or be gone for good.
_OUT_OF_REACH_FOR_S = 60.0
_UNLISTED = """
SELECT j.id, j.ended_at FROM (SELECT id, ended_at FROM jobs WHERE ended_at IS NOT NULL ORDER BY ended_at DESC LIMIT ?) j
JOIN job_descriptions d ON d.job_id = j.id AND d.outputs > 0
WHERE NOT EXISTS (SELECT 1 FROM job_outputs o WHERE o.job_id = j.id AND o.made_at = j.ended_at) ORDER BY j.ended_at
"""


class FleetOutputs:
    """Lists the outputs of the newest jobs, in the order in which these ended."""

    def __init__(self, store: JobStore, queue: ServedQueue, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        # When jobs that were not listed are looked at again, by job and end: one that runs again has other outputs.
        self._look_again_at_s: dict[tuple[str, float], float] = {}

    async def list_forever(self) -> None:
        """List what jobs leave, as they end, until cancelled."""
        has_ended = asyncio.Event()
        self._queue.events.listen(lambda event: has_ended.set() if event.kind == "ended" else None)
        while True:
            with contextlib.suppress(JobsNotStored):
                await self.list_new()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(has_ended.wait(), _LOOK_AGAIN_S)
            # Only now: ends that came while the last ones were listed are looked for at once.
            has_ended.clear()

    async def list_new(self) -> None:
        """List what has ended since the last call. Raises `JobsNotStored`."""
        ended_jobs = await self._store.query_rows(_UNLISTED, _LISTED_JOBS)
        # What is listed by now, or too old, is not found again.
        self._look_again_at_s = {
            (job_id, ended_at): self._look_again_at_s.get((job_id, ended_at), -math.inf)
            for job_id, ended_at in ended_jobs
        }
        now_s = self._clock()
        due_jobs = [ended_job for ended_job, at_s in self._look_again_at_s.items() if at_s <= now_s]
        for begin in range(0, len(due_jobs), _READ_AT_ONCE):
            batch = due_jobs[begin : begin + _READ_AT_ONCE]
            results = await asyncio.gather(*(self._read_result(ended_job) for ended_job in batch))
            # One after the other: the gallery shows them in this order.
            for (job_id, ended_at), job_result in zip(batch, results, strict=True):
                if job_result is not None:
                    await self._store.write_changes(*outputs_listed_of(job_id, ended_at, job_result))
                    # Also if it names no output after all, and so is found again.
                    self._look_again_at_s[job_id, ended_at] = math.inf
                    self._queue.events.publish("output", job_id, {})

    async def _read_result(self, ended_job: tuple[str, float]) -> str | None:
        """Return a job's result, or None if it has none to read. Raises `JobsNotStored` if the queue is away."""
        job_id, _ = ended_job
        try:
            job_result = (await self._queue.read_record(job_id)).output
        except (JobUnknown, StorageError) as exc:
            log.info("outputs not listed", extra={"action": "outputs_not_listed", "job_id": job_id, "reason": str(exc)})
            is_gone = isinstance(exc, JobUnknown)
            self._look_again_at_s[ended_job] = math.inf if is_gone else self._clock() + _OUT_OF_REACH_FOR_S
            return None
        if job_result is None:
            self._look_again_at_s[ended_job] = math.inf
        return job_result

"""Lists the outputs of a fleet's jobs for the gallery: their results are kept in the queue, not in a file here."""

import asyncio
import contextlib
import logging

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
_UNLISTED = """
SELECT j.id, j.ended_at FROM (SELECT id, ended_at FROM jobs WHERE ended_at IS NOT NULL ORDER BY ended_at DESC LIMIT ?) j
JOIN job_descriptions d ON d.job_id = j.id AND d.outputs > 0
WHERE NOT EXISTS (SELECT 1 FROM job_outputs o WHERE o.job_id = j.id AND o.made_at = j.ended_at) ORDER BY j.ended_at
"""


class FleetOutputs:
    """Lists the outputs of the newest jobs, in the order in which these ended."""

    def __init__(self, store: JobStore, queue: ServedQueue) -> None:
        self._store = store
        self._queue = queue
        # A result that names no output after all, or cannot be read, is not asked for again and again.
        self._looked_at: set[tuple[str, float]] = set()

    async def list_forever(self) -> None:
        """List what jobs leave, as they end, until cancelled."""
        has_ended = asyncio.Event()
        self._queue.events.listen(lambda event: has_ended.set() if event.kind == "ended" else None)
        while True:
            with contextlib.suppress(JobsNotStored):
                await self._list_new()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(has_ended.wait(), _LOOK_AGAIN_S)
            # Only now: ends that came while the last ones were listed are looked for at once.
            has_ended.clear()

    async def _list_new(self) -> None:
        unlisted_rows = [
            row for row in await self._store.query_rows(_UNLISTED, _LISTED_JOBS) if row not in self._looked_at
        ]
        for begin in range(0, len(unlisted_rows), _READ_AT_ONCE):
            batch = unlisted_rows[begin : begin + _READ_AT_ONCE]
            results = await asyncio.gather(*(self._read_result(job_id) for job_id, _ in batch))
            # By its end as well: a job that runs again has other outputs.
            for (job_id, ended_at), result in zip(batch, results, strict=True):
                self._looked_at.add((job_id, ended_at))
                if result is not None:
                    await self._store.write_changes(*outputs_listed_of(job_id, ended_at, result))
                    self._queue.events.publish("output", job_id, {})

    async def _read_result(self, job_id: str) -> str | None:
        try:
            return (await self._queue.read_record(job_id)).output
        except (JobUnknown, JobsNotStored) as exc:
            log.info("outputs not listed", extra={"action": "outputs_not_listed", "job_id": job_id, "reason": str(exc)})
            return None

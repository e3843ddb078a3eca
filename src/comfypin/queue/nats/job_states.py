"""The records of jobs, changed by revision: whoever comes second sees what the first has made of a job."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from comfypin.queue.nats.buckets import Bucket
from comfypin.queue.nats.failures import UNCLEAR
from comfypin.queue.nats.fleet_job import FleetJob

log = logging.getLogger(__name__)

_MOST_TRIES = 40
# With the tries above, longer than a cluster needs for a new leader.
_UNCLEAR_WAIT_S = 0.5

Change = Callable[[FleetJob], FleetJob | None]
"""Returns the record as it is to be, or None if the job, as it is, does not allow that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A job as it is kept now. `changed` says whether this call has made it so."""

    job: FleetJob
    revision: int
    changed: bool = True


class JobStates:
    """The bucket of records. What NATS refuses or does not answer is raised as nats-py raises it."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket

    async def create(self, job: FleetJob) -> int:
        """Keep a job that is new; return its revision. Tried again while nobody knows whether it is kept."""
        data = job.dump()
        for tries_left in reversed(range(_MOST_TRIES)):
            try:
                revision = await self.bucket.create(job.row.id, data)
            except UNCLEAR:
                if not tries_left:
                    raise
                await asyncio.sleep(_UNCLEAR_WAIT_S)
                continue
            if revision is not None:
                return revision
            # An id is ours alone: what is there came of a try whose answer was lost.
            found = await self.bucket.get(job.row.id)
            if found is not None:
                return found.revision
        raise AssertionError

    async def read(self, job_id: str) -> Kept | None:
        """Return a job as it is, or None."""
        found = await self.bucket.get(job_id)
        if found is None:
            return None
        job = FleetJob.load(found.data)
        return Kept(job=_numbered(job, found.revision), revision=found.revision, changed=False)

    async def change(self, job_id: str, change: Change) -> Kept | None:
        """Change a job as soon as nobody else does; None if there is no such job.

        If the job does not allow the change, it is returned as it is. If the answer to a change was lost, what is kept
        then tells whether it was made: a change is made once.
        """
        wanted: FleetJob | None = None
        for tries_left in reversed(range(_MOST_TRIES)):
            try:
                kept = await self.read(job_id)
                if kept is None:
                    return None
                if wanted is not None and kept.job == wanted:
                    return replace(kept, changed=True)
                wanted = change(kept.job)
                if wanted is None:
                    return kept
                revision = await self.bucket.change(job_id, wanted.dump(), revision=kept.revision)
            except UNCLEAR:
                if not tries_left:
                    raise
                await asyncio.sleep(_UNCLEAR_WAIT_S)
                continue
            if revision is not None:
                return Kept(job=wanted, revision=revision)
        log.error("job not changed", extra={"action": "job_contended", "job_id": job_id})
        raise TimeoutError


def _numbered(job: FleetJob, revision: int) -> FleetJob:
    """Return a job with its number in lists: the revision at which it was taken, which the record cannot hold yet."""
    return job if job.number else replace(job, number=revision)

"""The records of jobs, changed by revision: whoever comes second sees what the first has made of a job."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from comfypin.queue.nats.buckets import Bucket
from comfypin.queue.nats.failures import until_clear
from comfypin.queue.nats.fleet_job import FleetJob

log = logging.getLogger(__name__)

# Who changes a job at the same moment is a worker and a server or two.
_MOST_TRIES = 40

Change = Callable[[FleetJob], FleetJob | None]
"""Returns the record as it is to be, or None if the job, as it is, does not allow that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJob:
    """A job as it is stored now. `changed` says whether this call has made it so."""

    job: FleetJob
    revision: int
    changed: bool = True


class JobStates:
    """The bucket of records. What NATS refuses or does not answer is raised as nats-py raises it."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket

    async def create(self, job: FleetJob) -> int:
        """Keep a job that is new; return its revision. Tried again while nobody knows whether it is kept."""
        return await until_clear(partial(self._create, job.row.id, job.dump()))

    async def _create(self, job_id: str, record_bytes: bytes) -> int:
        revision = await self.bucket.create(job_id, record_bytes)
        if revision is None:
            # An id is ours alone: what is there came of a try whose answer was lost.
            stored_entry = await self.bucket.get(job_id)
            revision = None if stored_entry is None else stored_entry.revision
        if revision is None:
            raise TimeoutError
        return revision

    async def read(self, job_id: str) -> StoredJob | None:
        """Return a job as it is, or None."""
        stored_entry = await self.bucket.get(job_id)
        if stored_entry is None:
            return None
        job = FleetJob.load(stored_entry.data, revision=stored_entry.revision)
        return StoredJob(job=job, revision=stored_entry.revision, changed=False)

    async def change(self, job_id: str, change: Change) -> StoredJob | None:
        """Change a job as soon as nobody else does; None if there is no such job.

        If the job does not allow the change, it is returned as it is. If the answer to a change was lost, what is kept
        then tells whether it was made: a change is made once.
        """
        wanted_job: FleetJob | None = None

        async def attempt() -> StoredJob | None:
            nonlocal wanted_job
            for _ in range(_MOST_TRIES):
                stored_job = await self.read(job_id)
                if stored_job is None:
                    return None
                # The answer to the last try was lost, and it had worked.
                if wanted_job is not None and stored_job.job == wanted_job:
                    return replace(stored_job, changed=True)
                wanted_job = change(stored_job.job)
                if wanted_job is None:
                    return stored_job
                revision = await self.bucket.change(job_id, wanted_job.dump(), revision=stored_job.revision)
                if revision is not None:
                    return StoredJob(job=wanted_job, revision=revision)
            log.error("job not changed", extra={"action": "job_contended", "job_id": job_id})
            raise TimeoutError

        return await until_clear(attempt)

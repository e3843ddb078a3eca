"""What a queue shows of its jobs, whoever runs them: those in memory, and the rows of its file."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence

from comfypin.queue.errors import JobUnknown
from comfypin.queue.interface import JobCounts, JobProgress, JobRecord
from comfypin.queue.job_listing import JobFilter, ListedJob
from comfypin.queue.live_jobs import LiveJob, LiveJobs
from comfypin.queue.run_estimates import ExpectedEnds
from comfypin.queue.sqlite import JobStore
from comfypin.queue.status_bodies import is_pending, status_body


class QueueViews(ABC):
    """The half of `ServedQueue` that only looks. A fleet's file and memory are a copy of what NATS holds."""

    def __init__(self, store: JobStore, jobs: LiveJobs, ends: ExpectedEnds) -> None:
        self._store = store
        self._jobs = jobs
        self._ends = ends

    @abstractmethod
    async def read_record(self, job_id: str, *, wait_s: float = 0.0) -> JobRecord:
        """Return the job once it has ended, or as it is after `wait_s` seconds. Raises `JobUnknown`."""

    @property
    def has_all_jobs(self) -> bool:
        """Return whether lists and counts hold all jobs that are kept."""
        return True

    async def wait_for_all_jobs(self) -> None:
        """Wait until lists and counts hold all jobs that are kept."""
        return

    def find_live(self, job_id: str) -> LiveJob | None:
        """Return the job if it has not ended, or ended a short while ago."""
        return self._jobs.find_recent(job_id)

    def waiting_place(self, job_id: str) -> int | None:
        """Return a waiting job's place in the queue, from 1; None if it does not wait."""
        return self._jobs.waiting_place(job_id)

    async def read_status(self, job_id: str) -> bytes | None:
        """Return the body that tells a webhook of a job's end, or None if the job is not kept or runs again."""
        try:
            record = await self.read_record(job_id)
        except JobUnknown:
            return None
        return None if is_pending(record.row.state) else status_body(record)

    def list_pending(self) -> list[LiveJob]:
        """Return the jobs that run, then those that wait, in the order in which they are to begin."""
        return self._jobs.list_in_order()

    def ends_in_s(self, pending: Sequence[LiveJob]) -> dict[str, float | None]:
        """Return the seconds until the expected end of each job of `list_pending`, if its history tells."""
        return self._ends.of_all(pending)

    def end_in_s(self, live_job: LiveJob) -> float | None:
        """Return the seconds until one job's expected end; costs little if thousands wait."""
        return self._ends.of_job(live_job)

    async def list_jobs(self, job_filter: JobFilter) -> list[ListedJob]:
        """Return the jobs that a filter lets through, newest first. Raises `JobsNotStored`."""
        return await self._store.list_jobs(job_filter)

    async def had_secrets(self, job_id: str) -> bool:
        """Return whether a job came with secrets."""
        return await self._store.had_secrets(job_id)

    async def follow_progress(self, job_id: str, *, silence_s: float) -> AsyncIterator[JobProgress | None]:
        """Yield the newest progress whenever it changes, until the job ends; None after `silence_s` without news."""
        async for progress in self._jobs.follow_progress(job_id, silence_s=silence_s):
            yield progress

    def take_progress(self, job_id: str, *, poller: str, after: int | None) -> tuple[list[JobProgress], int]:
        """Return a job's progress, oldest first, and how often this server has heard of any.

        It is what came after the `after`th, or what this poller has not been given yet.
        """
        return self._jobs.take_progress(job_id, poller=poller, after=after)

    @property
    def waiting_count(self) -> int:
        """Return how many jobs wait."""
        return self._jobs.waiting_count

    @property
    def running_count(self) -> int:
        """Return how many jobs run."""
        return self._jobs.pending_count - self.waiting_count

    async def count_jobs(self) -> JobCounts:
        """Count the jobs that are kept. Raises `JobsNotStored`."""
        counts_by_state = await self._store.count_by_state()
        return JobCounts(
            waiting=self.waiting_count,
            running=self.running_count,
            completed=counts_by_state["COMPLETED"],
            failed=counts_by_state["FAILED"] + counts_by_state["TIMED_OUT"],
            retried=await self._store.count_retries(),
        )

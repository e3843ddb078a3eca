"""Runs the jobs of a queue on this machine, a few at a time, and puts them back if the server stops."""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, replace
from functools import partial

from comfypin.jobs.errors import JobBroken
from comfypin.jobs.interface import Handle
from comfypin.jobs.result_json import failed_outcome
from comfypin.queue import job_changes
from comfypin.queue.errors import JobsNotStored, JobTimedOut
from comfypin.queue.interface import JobProgress, JobRow
from comfypin.queue.job_endings import JobEndings
from comfypin.queue.job_events import JobEvents
from comfypin.queue.live_jobs import LiveJob, LiveJobs
from comfypin.queue.preview_relay import PreviewRelay
from comfypin.queue.sqlite import JobStore
from comfypin.queue.steady_clock import Clock

log = logging.getLogger(__name__)

# A disk that was full, or a job that has just ended: soon enough for people, seldom enough for a processor.
LOOK_AGAIN_S = 0.2
# A job that kills its server each time must not keep it from ever serving again.
_MOST_ATTEMPTS = 5
# Results are kept for hours, so a half minute more is noticed by nobody.
_PRUNE_EVERY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """Limits of a queue: jobs that wait and run, and the age and total bytes of results that are kept."""

    max_waiting: int = 1000
    max_running: int = 2
    keep_s: float = 86_400.0
    keep_bytes: int = 1 << 30


class JobRunner:
    """Begins jobs by priority, then in order of arrival. A job is never ahead of its record on the disk.

    While the disk refuses writes, no more jobs begin, and what ended waits with its result; when writes work again, all
    of it goes on by itself.
    """

    def __init__(
        self,
        store: JobStore,
        jobs: LiveJobs,
        endings: JobEndings,
        limits: QueueLimits,
        *,
        clock: Clock,
        events: JobEvents,
        previews: PreviewRelay,
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._endings = endings
        self._limits = limits
        self._clock = clock
        self._events = events
        self._previews = previews
        self._stopping = False
        self._idle_count = 0
        self.is_worn_out = False
        """Whether the engine died several times in a row."""

    @property
    def is_idle(self) -> bool:
        """Return whether a job that comes now, and before which no other waits, begins at once."""
        return self._idle_count > 0 and self._store.trouble is None and not self._stopping

    async def recover_jobs(self) -> None:
        """Queue again what had not ended when the last server did, and post the webhooks that it owed."""
        for job_row in await self._store.pending_jobs():
            # A job of the future was taken before the clock was set back.
            created_at = min(job_row.created_at, self._clock())
            live_job = LiveJob(
                replace(job_row, state="IN_QUEUE", created_at=created_at, started_at=None),
                description=await self._store.read_description(job_row.id),
            )
            self._jobs.add_pending(live_job)
            if job_row.attempts >= _MOST_ATTEMPTS:
                # A job that takes the server down with it (memory, a driver) would do so for ever.
                job_failure = JobTimedOut(
                    reason=f"was given up: the server ended {job_row.attempts} times while it ran it"
                )
                self._endings.end_in_background(live_job, "FAILED", failed_outcome(job_failure))
            else:
                self._jobs.let_begin(live_job)
        await self._endings.post_owed_webhooks()

    async def run_jobs(self, handle_job: Handle) -> None:
        """Run jobs until cancelled, or until `stop_jobs`."""
        # If one loop fails by a mistake of ours, the server should end rather than run on with fewer.
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_housekeeping())
            for _ in range(self._limits.max_running):
                group.create_task(self._run_next_jobs(handle_job))

    async def stop_jobs(self, grace_s: float) -> None:
        """Begin no more jobs; give those that run some time, then put them back for the next server."""
        self._stopping = True
        await self._wait_for_running(grace_s)
        running_tasks = [live_job.task for live_job in self._jobs.list_pending() if live_job.task is not None]
        for job_task in running_tasks:
            job_task.cancel()
        await asyncio.gather(*running_tasks, return_exceptions=True)
        await self._endings.stop_background()

    async def _wait_for_running(self, grace_s: float) -> None:
        """Wait for jobs that run, but not for a disk that refuses to note their ends: it may stay so."""
        deadline_s = time.monotonic() + grace_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            is_refused = self._store.trouble is not None
            running_tasks = [
                live_job.task
                for live_job in self._jobs.list_pending()
                if live_job.task is not None and not (is_refused and live_job.ending)
            ]
            if not running_tasks:
                return
            await asyncio.wait(running_tasks, timeout=min(left_s, LOOK_AGAIN_S))

    async def _run_next_jobs(self, handle_job: Handle) -> None:
        while True:
            self._idle_count += 1
            try:
                live_job = await self._jobs.next_arrival()
            finally:
                self._idle_count -= 1
            if not await self._begin_job(live_job):
                continue
            # A task of its own, so that cancelling the job does not cancel this loop.
            live_job.task = asyncio.create_task(self._execute_job(live_job, handle_job))
            # wait() raises nothing: what became of the job is looked at next.
            await asyncio.wait([live_job.task])
            await self._look_after(live_job, live_job.task)

    async def _begin_job(self, live_job: LiveJob) -> bool:
        """Note on the disk that a job begins, as soon as the disk takes it; return whether it may run then."""
        while self._store.trouble is not None and not self._stopping:  # noqa: ASYNC110 - `trouble` is the store's
            await asyncio.sleep(LOOK_AGAIN_S)
        if live_job.ending or live_job.row.state != "IN_QUEUE":
            return False
        started_at = live_job.start_noted_at
        if started_at is None:
            if self._stopping:
                return False
            started_at = self._clock()
            await self._store.write_until_done(job_changes.job_started(live_job.row.id, started_at))
        if live_job.ending:
            return False  # it was cancelled meanwhile, or waited too long
        if self._stopping:
            await self._give_back(live_job)
            return False
        attempts = live_job.row.attempts + 1
        live_job.row = replace(live_job.row, state="IN_PROGRESS", started_at=started_at, attempts=attempts)
        self._jobs.note_started(live_job)
        live_job.wake_followers()
        self._events.publish("started", live_job.row.id)
        return True

    async def _execute_job(self, live_job: LiveJob, handle_job: Handle) -> None:
        job_id = live_job.row.id
        try:
            async with asyncio.timeout(_time_left_s(live_job.row, self._clock())):
                note_progress = partial(self._note_progress, live_job)
                job_input, live_job.job_input = live_job.job_input, None
                if job_input is None:
                    job_input = await self._read_input(job_id)
                await asyncio.sleep(0)  # one whose time has passed already does not begin
                job_outcome = await handle_job(job_id, job_input, progress=note_progress)
        except TimeoutError:
            job_failure = JobTimedOut(
                reason="was stopped: it took longer than its policy (executionTimeout, ttl) allows"
            )
            await self._endings.end_job(live_job, "TIMED_OUT", failed_outcome(job_failure))
        except asyncio.CancelledError:
            if self._stopping:
                await self._give_back(live_job)
                raise
            await self._endings.end_job(live_job, "CANCELLED")
        else:
            self.is_worn_out = job_outcome.replace_worker
            await self._endings.end_job(live_job, "COMPLETED" if job_outcome.failure is None else "FAILED", job_outcome)
        finally:
            self._previews.forget_job(job_id)

    async def _look_after(self, live_job: LiveJob, job_task: asyncio.Task[None]) -> None:
        """End a job that was cancelled before its first step, or that failed by a mistake of ours."""
        if job_task.cancelled():
            if not (self._stopping or live_job.ending):
                await self._endings.end_job(live_job, "CANCELLED")
        elif (job_failure := job_task.exception()) is not None:
            facts = {"action": "job_broken", "job_id": live_job.row.id}
            log.error("job failed unexpectedly", extra=facts, exc_info=job_failure)
            await self._endings.end_job(live_job, "FAILED", failed_outcome(JobBroken(kind=type(job_failure).__name__)))

    def _note_progress(self, live_job: LiveJob, job_progress: JobProgress) -> None:
        live_job.note_progress(job_progress)
        self._events.publish("progress", live_job.row.id, job_progress)

    async def _read_input(self, job_id: str) -> object:
        """Read what a job asks for, however long the disk refuses to give it."""
        while True:
            try:
                return await self._store.read_input(job_id)
            except JobsNotStored:
                await asyncio.sleep(LOOK_AGAIN_S)

    async def _give_back(self, live_job: LiveJob) -> None:
        """Put a job back for the next server. If the disk refuses, that one finds it as a job that ran."""
        with contextlib.suppress(JobsNotStored):
            await self._store.write_changes(job_changes.job_given_back(live_job.row.id))

    async def _run_housekeeping(self) -> None:
        """End jobs that waited too long, drop old results, and look whether a full disk has room again."""
        pruned_at_s = 0.0
        while True:
            if time.monotonic() - pruned_at_s > _PRUNE_EVERY_S:
                pruned_at_s = time.monotonic()
                with contextlib.suppress(JobsNotStored):
                    ended_before = self._clock() - self._limits.keep_s
                    pruned_ids = await self._store.prune_results(
                        ended_before=ended_before, max_bytes=self._limits.keep_bytes
                    )
                    for job_id in pruned_ids:
                        self._jobs.forget_ended(job_id)
                        self._events.publish("removed", job_id)
            if self._store.trouble is not None:
                await self._store.probe_disk()
            await self._store.forget_secrets()
            self._end_overdue_jobs(self._clock())
            await asyncio.sleep(1)

    def _end_overdue_jobs(self, now_s: float) -> None:
        for live_job in self._jobs.list_with_ttl():
            if live_job.task is None and live_job.row.ttl_s and now_s > live_job.row.created_at + live_job.row.ttl_s:
                job_failure = JobTimedOut(reason="was given up: it waited longer than its policy's ttl allows")
                self._endings.end_in_background(live_job, "TIMED_OUT", failed_outcome(job_failure))


def _time_left_s(job_row: JobRow, now_s: float) -> float | None:
    limits = [job_row.timeout_s, None if job_row.ttl_s is None else job_row.created_at + job_row.ttl_s - now_s]
    return min((max(0.0, limit) for limit in limits if limit is not None), default=None)

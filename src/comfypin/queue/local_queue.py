"""The job queue of one machine: kept in SQLite, run here."""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

from comfypin.jobs.interface import RETRYABLE_STATES, Handle, JobState
from comfypin.jobs.metrics import Metrics
from comfypin.queue import job_changes
from comfypin.queue.errors import JobUnknown, QueueFull, RetryRefused, RouteUnknown
from comfypin.queue.interface import ANY_ROUTE, ApiName, JobRecord, JobRoute, JobRow
from comfypin.queue.job_changes import JobChange
from comfypin.queue.job_description import JobDescription, describe_job, job_described
from comfypin.queue.job_endings import JobEndings
from comfypin.queue.job_events import JobEvents
from comfypin.queue.job_notes import SCHEMA as NOTES_SCHEMA
from comfypin.queue.job_notes import JobNotes, notes_kept
from comfypin.queue.job_runner import LOOK_AGAIN_S, JobRunner, QueueLimits
from comfypin.queue.live_jobs import LiveJob, LiveJobs
from comfypin.queue.preview_relay import PreviewRelay
from comfypin.queue.queue_views import QueueViews
from comfypin.queue.run_estimates import ExpectedEnds, RunEstimates
from comfypin.queue.sqlite import JobStore
from comfypin.queue.steady_clock import Clock, steady_clock
from comfypin.queue.webhook import Webhooks
from comfypin.queue.webhook_events import WebhookEvents
from comfypin.queue.webhook_records import EventName, events_chosen
from comfypin.small_work import SMALL_BYTES, json_size, run_by_size

# An engine takes a prompt back within a step; the rest is for one that is just saving.
_CANCEL_WITHIN_S = 10.0
# A full queue has room again when a job ends, which takes seconds.
_RETRY_AFTER_S = 5
# Estimates need the newest runs of each workflow; a start should not read a year of them.
_REMEMBERED_RUNS = 2000


class LocalJobQueue(QueueViews):
    """Implements `ServedQueue` with a file on the local disk. Jobs that are not in memory any more are in the store."""

    can_reorder = True

    runs_here = True

    def __init__(
        self,
        store: JobStore,
        webhooks: Webhooks,
        queue_limits: QueueLimits,
        *,
        worker_id: str,
        clock: Clock | None = None,
        events: JobEvents | None = None,
        release: str | None = None,
    ) -> None:
        self._estimates = RunEstimates()
        # One clock for all times that are compared: those of jobs that were taken, began and ended.
        self._clock = clock or steady_clock()
        jobs = LiveJobs()
        ends = ExpectedEnds(self._estimates, jobs, at_once=lambda: queue_limits.max_running, clock=self._clock)
        super().__init__(store, jobs, ends)
        store.add_tables(NOTES_SCHEMA)
        self.events = events or JobEvents()
        self._release = release
        self._limits = queue_limits
        self._worker_id = worker_id
        self.metrics = Metrics()
        self.webhooks = WebhookEvents(store, webhooks, self.metrics, clock=self._clock, events=self.events)
        self._endings = JobEndings(
            store,
            self._jobs,
            self.webhooks,
            self.metrics,
            worker_id=worker_id,
            clock=self._clock,
            events=self.events,
            estimates=self._estimates,
        )
        self._previews = PreviewRelay(self.events)
        self._runner = JobRunner(
            store,
            self._jobs,
            self._endings,
            queue_limits,
            clock=self._clock,
            events=self.events,
            previews=self._previews,
        )

    # -- JobQueue -------------------------------------------------------------------------------------------------

    async def accept_job(
        self,
        job_input: object,
        *,
        webhook: str | None,
        timeout_s: float | None,
        ttl_s: float | None,
        api: ApiName = "runpod",
        job_id: str | None = None,
        webhook_events: Sequence[EventName] | None = None,
        notes: JobNotes | None = None,
        route: JobRoute = ANY_ROUTE,
    ) -> str:
        """Take a job and return its id; it is on the disk from here on, together with its notes.

        Its webhook is told of its `webhook_events`, or else of its end, whichever it is.
        Raises `QueueFull`, `JobsNotStored`, `RouteUnknown`.
        """
        self._require_room()
        if route.release is not None and route.release != self._release:
            raise RouteUnknown(what="release", name=route.release, known=self._release or "one without a name")
        job_row = JobRow(
            id=job_id or str(uuid.uuid4()),
            state="IN_QUEUE",
            webhook=webhook,
            timeout_s=timeout_s,
            ttl_s=ttl_s,
            created_at=self._clock(),
            priority=route.priority,
            rank=route.rank or int(route.priority == "high"),
        )
        live_job = LiveJob(job_row)
        # Counted before it is written: clients that send at the same moment must not overfill the queue together.
        self._jobs.add_pending(live_job)
        try:
            # A large input takes a while to be walked and dumped.
            size = json_size(job_input)
            accepted, live_job.description = await run_by_size(size, self._read_job, job_row, job_input, api)
            changes = [accepted, job_described(job_row.id, live_job.description)]
            if size <= SMALL_BYTES and self.waiting_count == 1:
                live_job.job_input = job_input  # it is about to begin, and need not be read again
                if self._runner.is_idle:
                    # One commit for both: each is a flush of the disk, which takes a millisecond or more.
                    live_job.start_noted_at = self._clock()
                    changes.append(job_changes.job_started(job_row.id, live_job.start_noted_at))
            chosen = [events_chosen(job_row.id, webhook_events)] if webhook_events is not None else []
            noted = [] if notes is None else notes_kept(job_row.id, notes, job_row.created_at)
            await self._store.write_changes(*changes, *chosen, *noted)
        # BaseException, as a client that goes away cancels this: the job would count as waiting for ever.
        except BaseException:
            self._jobs.drop_pending(live_job)
            raise
        if webhook_events is not None:
            self.webhooks.follow(job_row, webhook_events)
        self.events.publish("accepted", job_row.id)
        self._jobs.let_begin(live_job)
        return job_row.id

    def _read_job(self, job_row: JobRow, job_input: object, api: ApiName) -> tuple[JobChange, JobDescription]:
        return job_changes.job_accepted(job_row, job_input), describe_job(job_input, api=api, release=self._release)

    async def read_record(self, job_id: str, *, wait_s: float = 0.0) -> JobRecord:
        """Return the job once it has ended, or as it is after `wait_s` seconds. Raises `JobUnknown`."""
        live_job = self._jobs.find_pending(job_id)
        if live_job is not None and wait_s > 0:
            ended: asyncio.Future[JobRecord] = live_job.ended or asyncio.get_running_loop().create_future()
            live_job.ended = ended
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    # Others may wait for the same end, and this request may be cut off.
                    return replace(await asyncio.shield(ended), worker_id=self._worker_id)
            live_job = self._jobs.find_pending(job_id)
        if live_job is not None:
            progress = json.dumps(live_job.progress) if live_job.progress else None
            return JobRecord(row=live_job.row, output=progress, worker_id=self._worker_id)
        job_record = await self._store.read_record(job_id)
        if job_record is None:
            raise JobUnknown(job_id=job_id)
        return replace(job_record, worker_id=self._worker_id)

    async def cancel_job(self, job_id: str) -> JobState:
        """Stop a job and return its state then.

        Raises `JobUnknown`, and `JobsNotStored` if the disk refuses the end now; the job ends once it does not.
        """
        live_job = self._jobs.find_pending(job_id)
        if live_job is None:
            return (await self.read_record(job_id)).row.state
        # Without a task it has not begun: there is nothing to cancel, and it must not begin any more.
        if live_job.task is None:
            self._endings.end_in_background(live_job, "CANCELLED")
        elif not live_job.ending:
            live_job.task.cancel()
        await self._wait_for_end(live_job, _CANCEL_WITHIN_S)
        return live_job.row.state

    async def cancel_waiting(self) -> int:
        """Cancel all jobs that wait; return how many those were. Raises `JobsNotStored` as `cancel_job` does."""
        waiting_jobs = [
            live_job for live_job in self._jobs.list_pending() if live_job.task is None and not live_job.ending
        ]
        for live_job in waiting_jobs:
            self._endings.end_in_background(live_job, "CANCELLED")
        # Only when all were told: their ends are written together, in one commit or two.
        for live_job in waiting_jobs:
            await self._wait_for_end(live_job, _CANCEL_WITHIN_S)
        return sum(live_job.row.state == "CANCELLED" for live_job in waiting_jobs)

    async def retry_job(self, job_id: str) -> None:
        """Run an ended job again. Raises `JobUnknown`, `RetryRefused`, `QueueFull`, `JobsNotStored`."""
        job_row = (await self.read_record(job_id)).row
        if job_row.state not in RETRYABLE_STATES:
            raise RetryRefused(
                job_id=job_id, reason=f"it is {job_row.state}; only jobs that are FAILED or TIMED_OUT can"
            )
        if await self._store.had_secrets(job_id):
            await self.read_record(job_id)  # one that was dropped at this moment is unknown, not secret
            raise RetryRefused(job_id=job_id, reason="it came with secrets, which are not kept; send it anew")
        self._require_room()
        fresh = replace(job_row, state="IN_QUEUE", created_at=self._clock(), started_at=None, ended_at=None, attempts=0)
        live_job = LiveJob(fresh, description=await self._store.read_description(job_id))
        # Much was awaited since the job was read: another request may have been first.
        if self._jobs.find_pending(job_id) is not None:
            raise RetryRefused(job_id=job_id, reason="it waits already")
        self._jobs.add_pending(live_job)
        try:
            queued_again = job_changes.job_queued_again(job_id, fresh.created_at)
            await self._store.write_changes(queued_again, *self._store.changes_beside(job_id))
            if await self._store.read_record(job_id) is None:
                raise JobUnknown(job_id=job_id)  # it was dropped before it could be queued again
        except BaseException:
            self._jobs.drop_pending(live_job)
            raise
        await self.webhooks.follow_again(fresh)
        self.events.publish("retried", job_id)
        self._jobs.let_begin(live_job)

    async def prioritize_job(self, job_id: str, priority: int) -> None:
        """Let a job that waits begin before those of a lower priority. Raises `JobUnknown`, `JobsNotStored`.

        It is behind those of the same priority. Of one that runs or has ended, nothing changes.
        """
        await self.read_record(job_id)
        await self._store.write_changes(job_changes.job_ranked(job_id, priority))
        live_job = self._jobs.find_pending(job_id)
        if live_job is not None:
            live_job.row = replace(live_job.row, rank=priority)
            self._jobs.move_to_priority(live_job)
            self.events.publish("moved", job_id)

    # -- What Comfy API v2 asks beside --------------------------------------------------------------------------------

    async def read_input(self, job_id: str) -> object:
        """Return what a job asked for, as far as it is kept."""
        return await self._store.read_input(job_id)

    # -- QueueHealth ----------------------------------------------------------------------------------------------

    @property
    def trouble(self) -> str | None:
        """Return why no jobs begin now, as a sentence, or None."""
        if self._store.trouble is not None:
            return self._store.trouble.message
        return "The engine died several times in a row." if self._runner.is_worn_out else None

    @property
    def previews(self) -> PreviewRelay:
        """Return where previews of running jobs go."""
        return self._previews

    # -- running --------------------------------------------------------------------------------------------------

    def note_start(self, start_s: Mapping[str, float]) -> None:
        """Show the seconds of the engine's start, by phase, among the metrics."""
        self.metrics.watch_start(lambda: start_s)

    async def recover_jobs(self) -> None:
        """Queue again what had not ended when the last server did, and post the webhooks that it owed."""
        self._estimates.note_runs(await self._store.recent_runs(_REMEMBERED_RUNS))
        await self._runner.recover_jobs()

    async def run_jobs(self, handle: Handle) -> None:
        """Run jobs until cancelled, or until `stop_jobs`."""
        await self._runner.run_jobs(handle)

    async def stop_jobs(self, grace_s: float) -> None:
        """Begin no more jobs; give those that run some time, then put them back for the next server."""
        await self._runner.stop_jobs(grace_s)

    async def _wait_for_end(self, live_job: LiveJob, within_s: float) -> None:
        """Wait for a job's end, but not for a disk that refuses it. Raises `JobsNotStored`."""
        deadline_s = time.monotonic() + within_s
        while self._jobs.find_pending(live_job.row.id) is not None and time.monotonic() < deadline_s:
            if live_job.ending and self._store.trouble is not None:
                raise self._store.trouble
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(live_job.changed.wait(), LOOK_AGAIN_S)

    def _require_room(self) -> None:
        waiting_jobs = self.waiting_count
        if waiting_jobs >= self._limits.max_waiting:
            self.metrics.refused.inc()
            raise QueueFull(waiting=waiting_jobs, retry_after_s=_RETRY_AFTER_S)

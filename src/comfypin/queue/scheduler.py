"""The queue of a server: takes jobs durably, runs a few at a time, and ends each exactly once, whatever is killed."""

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace

from comfypin.digest import JsonValue
from comfypin.jobs.errors import JobBroken
from comfypin.jobs.interface import Handle, JobState
from comfypin.jobs.metrics import Metrics
from comfypin.jobs.result_json import failure_to_json
from comfypin.queue import sqlite as jobs
from comfypin.queue.errors import JobsUnusable, JobTimedOut, JobUnknown, QueueFull, RetryRefused
from comfypin.queue.sqlite import JobRecord, JobRow, JobStore
from comfypin.queue.status import status_body
from comfypin.queue.webhook import Webhooks

log = logging.getLogger(__name__)

_KEPT_PROGRESS = 256
_KEPT_ENDED = 1000
_MOST_ATTEMPTS = 5
_CANCEL_WITHIN_S = 10.0
_PRUNE_EVERY_S = 30.0
_LOOK_AGAIN_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How many jobs may wait and run, and how long results are kept: by age and by all their bytes."""

    max_waiting: int = 1000
    max_running: int = 2
    keep_s: float = 86_400.0
    keep_bytes: int = 1 << 30


@dataclass(slots=True)
class LiveJob:
    """A job in memory: its state, its newest progress, and what its followers have not been told yet."""

    row: JobRow
    progress: Mapping[str, JsonValue] = field(default_factory=dict)
    untold_progress: deque[Mapping[str, JsonValue]] = field(default_factory=lambda: deque(maxlen=_KEPT_PROGRESS))
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    ending: bool = False

    def note_progress(self, progress: Mapping[str, JsonValue]) -> None:
        """Take note of progress."""
        self.progress = progress
        self.untold_progress.append(progress)
        self.wake_followers()

    def wake_followers(self) -> None:
        """Wake whoever waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


class LocalJobQueue:
    """Jobs in order of arrival; what is not in memory any more is in the store.

    A job is in the state that the disk says, never ahead of it. While the disk refuses writes, no more jobs begin, what
    ended waits with its result, and clients are told; when writes work again, all of it goes on by itself.
    """

    def __init__(self, store: JobStore, webhooks: Webhooks, limits: QueueLimits, *, worker_id: str) -> None:
        self._store = store
        self._webhooks = webhooks
        self._limits = limits
        self.worker_id = worker_id
        self.metrics = Metrics()
        self._worn_out = False
        self._live_jobs: dict[str, LiveJob] = {}
        self._recently_ended: OrderedDict[str, LiveJob] = OrderedDict()
        self._waiting_jobs: asyncio.Queue[LiveJob] = asyncio.Queue()
        self._background_tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    # -- What clients ask -----------------------------------------------------------------------------------------

    @property
    def trouble(self) -> str | None:
        """Why no jobs begin now, or None."""
        if self._store.trouble is not None:
            return self._store.trouble.message
        return "The engine died several times in a row." if self._worn_out else None

    @property
    def is_unhealthy(self) -> bool:
        """Whether a load balancer should send nothing here."""
        return self.trouble is not None

    @property
    def waiting_count(self) -> int:
        """How many jobs wait."""
        # A copy: metrics are read by another thread.
        return sum(live.row.state == "IN_QUEUE" for live in tuple(self._live_jobs.values()))

    @property
    def running_count(self) -> int:
        """How many jobs run."""
        return len(self._live_jobs) - self.waiting_count

    async def accept_job(
        self, job_input: object, *, webhook: str | None, timeout_s: float | None, ttl_s: float | None
    ) -> LiveJob:
        """Take a job; it is on the disk when this returns. Raises `QueueFull`, `JobsUnusable`."""
        self._require_room()
        row = JobRow(
            id=str(uuid.uuid4()),
            state="IN_QUEUE",
            webhook=webhook,
            timeout_s=timeout_s,
            ttl_s=ttl_s,
            created_at=time.time(),
        )
        live = LiveJob(row)
        self._live_jobs[row.id] = live
        try:
            # Off the loop: a large input takes a while to be walked and dumped.
            await self._store.write_changes(await asyncio.to_thread(jobs.job_accepted, row, job_input))
        except BaseException:
            del self._live_jobs[row.id]
            raise
        self._waiting_jobs.put_nowait(live)
        return live

    def find_live(self, job_id: str) -> LiveJob | None:
        """The job, if it has not ended, or ended a short while ago."""
        return self._live_jobs.get(job_id) or self._recently_ended.get(job_id)

    async def read_record(self, job_id: str) -> JobRecord:
        """The job as its status tells it. Raises `JobUnknown`."""
        live = self._live_jobs.get(job_id)
        if live is not None:
            progress = json.dumps(live.progress) if live.progress else None
            return JobRecord(row=live.row, output=progress)
        record = await self._store.read_record(job_id)
        if record is None:
            raise JobUnknown(job_id=job_id)
        return record

    async def wait_for_end(self, job_id: str, within_s: float) -> JobRecord:
        """The job when it has ended, or as it is after `within_s` seconds. Raises `JobUnknown`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while (live := self._live_jobs.get(job_id)) is not None:
                    await live.changed.wait()
        return await self.read_record(job_id)

    async def cancel_job(self, job_id: str) -> JobState:
        """Stop a job; returns the state it is in then.

        Raises `JobUnknown`, and `JobsUnusable` if the disk refuses to note it now: the job ends as soon as it does not.
        """
        live = self._live_jobs.get(job_id)
        if live is None:
            return (await self.read_record(job_id)).row.state
        if live.task is None:
            self._end_in_background(live, "CANCELLED", output=None)
        elif not live.ending:
            live.task.cancel()
        await self._ended_within(live, _CANCEL_WITHIN_S)
        return live.row.state

    async def cancel_waiting(self) -> int:
        """Cancel all that waits; returns how many jobs that were. Raises `JobsUnusable` as `cancel_job` does."""
        waiting = [live for live in self._live_jobs.values() if live.task is None and not live.ending]
        for live in waiting:
            self._end_in_background(live, "CANCELLED", output=None)
        for live in waiting:
            await self._ended_within(live, _CANCEL_WITHIN_S)
        return sum(live.row.state == "CANCELLED" for live in waiting)

    async def _ended_within(self, live: LiveJob, within_s: float) -> None:
        """Wait for a job's end, but not for a disk that refuses it. Raises `JobsUnusable`."""
        until = time.monotonic() + within_s
        while live.row.id in self._live_jobs and time.monotonic() < until:
            if live.ending and self._store.trouble is not None:
                raise self._store.trouble
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(live.changed.wait(), _LOOK_AGAIN_S)

    async def retry_job(self, job_id: str) -> LiveJob:
        """Run an ended job again. Raises `JobUnknown`, `RetryRefused`, `QueueFull`."""
        row = (await self.read_record(job_id)).row
        if row.state not in ("FAILED", "TIMED_OUT"):
            raise RetryRefused(job_id=job_id, reason=f"it is {row.state}; only FAILED and TIMED_OUT jobs are")
        if await self._store.had_secrets(job_id):
            raise RetryRefused(job_id=job_id, reason="it came with secrets, which are not kept; send it anew")
        self._require_room()
        fresh = replace(row, state="IN_QUEUE", created_at=time.time(), started_at=None, ended_at=None, attempts=0)
        live = LiveJob(fresh)
        if job_id in self._live_jobs:
            raise RetryRefused(job_id=job_id, reason="it waits already")
        self._live_jobs[job_id] = live
        try:
            await self._store.write_changes(jobs.job_queued_again(job_id, fresh.created_at))
        except BaseException:
            del self._live_jobs[job_id]
            raise
        self._recently_ended.pop(job_id, None)
        self._waiting_jobs.put_nowait(live)
        return live

    async def health_body(self, *, ready: bool) -> dict[str, JsonValue]:
        """The bodies of RunPod's /health; `problems` says in sentences why no jobs begin."""
        counts = await self._store.count_by_state()
        running = self.running_count
        return {
            "jobs": {
                "completed": counts["COMPLETED"],
                "failed": counts["FAILED"] + counts["TIMED_OUT"],
                "inProgress": running,
                "inQueue": self.waiting_count,
                "retried": await self._store.count_retries(),
            },
            "workers": {
                "idle": int(ready and not running),
                "initializing": int(not ready),
                "ready": int(ready and not self.is_unhealthy),
                "running": int(bool(running)),
                "throttled": 0,
                "unhealthy": int(self.is_unhealthy),
            },
            "problems": [self.trouble] if self.trouble else [],
        }

    # -- Running --------------------------------------------------------------------------------------------------

    async def recover_jobs(self) -> None:
        """Queue again what had not ended when the last server did, and tell the webhooks that it owed."""
        for row in await self._store.pending_jobs():
            live = LiveJob(replace(row, state="IN_QUEUE"))
            self._live_jobs[row.id] = live
            if row.attempts >= _MOST_ATTEMPTS:
                died = JobTimedOut(f"The server ended {row.attempts} times while it ran this job, which is given up.")
                self._end_in_background(live, "FAILED", output=failure_to_json(died))
            else:
                self._waiting_jobs.put_nowait(live)
        for row in await self._store.webhooks_owed():
            self._start_background(self._tell_webhook(row))

    async def run_jobs(self, handle: Handle) -> None:
        """Run jobs until cancelled, or until `stop_jobs`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_housekeeping())
            for _ in range(self._limits.max_running):
                group.create_task(self._run_next_jobs(handle))

    async def stop_jobs(self, grace_s: float) -> None:
        """Begin no more jobs; give those that run some time, then put them back for the next server."""
        self._stopping = True
        tasks = [live.task for live in self._live_jobs.values() if live.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Ends and webhooks that a full disk holds up: the disk says what the next server owes.
        beside = list(self._background_tasks)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)

    async def _run_next_jobs(self, handle: Handle) -> None:
        while True:
            live = await self._waiting_jobs.get()
            if not await self._begin_job(live):
                continue
            live.task = asyncio.create_task(self._execute_job(live, handle))
            await asyncio.wait([live.task])
            await self._look_after(live, live.task)

    async def _begin_job(self, live: LiveJob) -> bool:
        """Note on the disk that a job begins, as soon as the disk takes it; returns whether it may run then."""
        while self._store.trouble is not None and not self._stopping:  # noqa: ASYNC110 - `trouble` is the store's
            await asyncio.sleep(_LOOK_AGAIN_S)
        if self._stopping or live.ending or live.row.state != "IN_QUEUE":
            return False
        begun_at = time.time()
        await self._store.write_until_done(jobs.job_started(live.row.id, begun_at))
        if live.ending:
            return False  # it was cancelled meanwhile, or waited too long
        if self._stopping:
            await self._give_back(live)
            return False
        live.row = replace(live.row, state="IN_PROGRESS", started_at=begun_at)
        live.wake_followers()
        return True

    async def _look_after(self, live: LiveJob, task: asyncio.Task[None]) -> None:
        """End a job that was cancelled before it began, and one that met a mistake of ours."""
        if task.cancelled():
            if not (self._stopping or live.ending):
                await self._end_job(live, "CANCELLED", output=None)
        elif (failure := task.exception()) is not None:
            facts = {"action": "job_broken", "job_id": live.row.id}
            log.error("job failed unexpectedly", extra=facts, exc_info=failure)
            cause = failure if isinstance(failure, Exception) else RuntimeError(type(failure).__name__)
            await self._end_job(live, "FAILED", output=failure_to_json(JobBroken(cause=cause)))

    async def _execute_job(self, live: LiveJob, handle: Handle) -> None:
        job_id = live.row.id
        try:
            async with asyncio.timeout(_time_left_s(live.row, time.time())):
                outcome = await handle(job_id, await self._read_input(job_id), progress=live.note_progress)
        except TimeoutError:
            late = JobTimedOut("The job took longer than its policy (executionTimeout, ttl) allows, and was stopped.")
            await self._end_job(live, "TIMED_OUT", output=failure_to_json(late))
        except asyncio.CancelledError:
            if self._stopping:
                await self._give_back(live)
                raise
            await self._end_job(live, "CANCELLED", output=None)
        else:
            self._worn_out = outcome.replace_worker
            await self._end_job(live, "COMPLETED" if outcome.failure is None else "FAILED", output=outcome.output)

    async def _read_input(self, job_id: str) -> object:
        """Read what a job asks for, however long the disk refuses to give it."""
        while True:
            try:
                return await self._store.read_input(job_id)
            except JobsUnusable:
                await asyncio.sleep(_LOOK_AGAIN_S)

    async def _give_back(self, live: LiveJob) -> None:
        """Put a job back for the next server; if the disk refuses, that one finds it as a job that ran."""
        with contextlib.suppress(JobsUnusable):
            await self._store.write_changes(jobs.job_given_back(live.row.id))

    def _end_in_background(self, live: LiveJob, state: JobState, *, output: Mapping[str, JsonValue] | None) -> None:
        """End a job that waits, and do not wait for the disk. From here on it cannot begin."""
        if not live.ending:
            live.ending = True
            self._start_background(self._end_job(live, state, output=output))

    async def _end_job(self, live: LiveJob, state: JobState, *, output: Mapping[str, JsonValue] | None) -> None:
        """End a job: on the disk first, however long that takes. No cancellation of a client comes between."""
        live.ending = True
        at = time.time()
        error = output.get("error") if output is not None else None
        text = None if output is None else await _dump_output(output)
        # Not every text of a job can be stored: a lone half of a surrogate pair is told by its number.
        told = None if error is None else str(error).encode(errors="backslashreplace").decode()
        await self._store.write_until_done(jobs.job_ended(live.row.id, state, at, output=text, error=told))
        live.row = replace(live.row, state=state, ended_at=at)
        self._live_jobs.pop(live.row.id, None)
        self._recently_ended[live.row.id] = live
        while len(self._recently_ended) > _KEPT_ENDED:
            self._recently_ended.popitem(last=False)
        self.metrics.count_end(state, output or {})
        live.wake_followers()
        log.info("job ended", extra={"action": "job_ended", "job_id": live.row.id, "state": state})
        if live.row.webhook is not None:
            self._start_background(self._tell_webhook(live.row))

    def _start_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background_tasks.add(task)
        task.add_done_callback(self._background_tasks.discard)

    async def _tell_webhook(self, row: JobRow) -> None:
        """Tell a job's end. What cannot be read or noted now is told by the next server: the disk says it is owed."""
        try:
            body = status_body(await self.read_record(row.id), self.worker_id)
        except (JobsUnusable, JobUnknown) as exc:
            facts = {"action": "webhook_failed", "job_id": row.id, "reason": exc.message}
            log.warning("webhook not told", extra=facts)
            return
        if not await self._webhooks.post_status(row.id, row.webhook or "", body):
            self.metrics.webhook_failures.inc()
        await self._store.write_until_done(jobs.webhook_told(row.id))

    async def _run_housekeeping(self) -> None:
        """End what waited too long, drop results that were kept long enough, look whether a full disk has room."""
        pruned_at_s = 0.0
        while True:
            if time.monotonic() - pruned_at_s > _PRUNE_EVERY_S:
                pruned_at_s = time.monotonic()
                with contextlib.suppress(JobsUnusable):
                    await self._store.prune_results(older_than_s=self._limits.keep_s, max_bytes=self._limits.keep_bytes)
            if self._store.trouble is not None:
                await self._store.probe_disk()
            await self._store.forget_secrets()
            now = time.time()
            for live in list(self._live_jobs.values()):
                if live.task is None and live.row.ttl_s and now > live.row.created_at + live.row.ttl_s:
                    late = JobTimedOut("The job waited longer than its policy's ttl.")
                    self._end_in_background(live, "TIMED_OUT", output=failure_to_json(late))
            await asyncio.sleep(1)

    def _require_room(self) -> None:
        waiting = self.waiting_count
        if waiting >= self._limits.max_waiting:
            self.metrics.refused.inc()
            raise QueueFull(waiting=waiting, retry_after_s=5)


def _time_left_s(row: JobRow, now: float) -> float | None:
    limits = [row.timeout_s, None if row.ttl_s is None else row.created_at + row.ttl_s - now]
    return min((max(0.0, limit) for limit in limits if limit is not None), default=None)


async def _dump_output(output: Mapping[str, JsonValue]) -> str:
    """A result may hold megabytes of base64: the loop must not wait for them."""
    if output.get("images") or output.get("videos") or output.get("files"):
        return await asyncio.to_thread(json.dumps, output)
    return json.dumps(output)

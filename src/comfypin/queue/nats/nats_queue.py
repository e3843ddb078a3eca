"""The queue of a fleet, as a server of it sees it: jobs are kept in NATS, and run by workers elsewhere.

Servers hold nothing that another one could not take over: any of them may be asked about any job.
"""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from nats.errors import Error

from comfypin.jobs.interface import RETRYABLE_STATES, Handle, JobState
from comfypin.jobs.metrics import Metrics
from comfypin.jobs.secret_fields import holds_secret, is_secret_address
from comfypin.queue.errors import JobUnknown, NotReordered, QueueFull, RetryRefused
from comfypin.queue.interface import ANY_ROUTE, ApiName, JobRecord, JobRoute, JobRow
from comfypin.queue.job_description import describe_job
from comfypin.queue.job_events import JobEvents
from comfypin.queue.job_notes import JobNotes
from comfypin.queue.job_runner import QueueLimits
from comfypin.queue.live_jobs import LiveJob
from comfypin.queue.nats import fleet_job
from comfypin.queue.nats.asset_bytes import with_asset_bytes
from comfypin.queue.nats.backlogs import count_waiting
from comfypin.queue.nats.chores import Chores
from comfypin.queue.nats.dead_jobs import answer_for_dead_jobs
from comfypin.queue.nats.failures import as_storage_failure
from comfypin.queue.nats.fleet_figures import FiguresReader
from comfypin.queue.nats.fleet_job import FleetJob
from comfypin.queue.nats.fleet_webhooks import FleetWebhooks
from comfypin.queue.nats.job_states import StoredJob
from comfypin.queue.nats.lane_choice import ChosenLane, KnownReleases, choose_lane
from comfypin.queue.nats.lease import CHORES, FleetLease
from comfypin.queue.nats.mirror import Mirror
from comfypin.queue.nats.names import cancel_subject
from comfypin.queue.nats.pauses import pause
from comfypin.queue.nats.peers import Peers
from comfypin.queue.nats.progress import ProgressReader
from comfypin.queue.nats.rolls import NO_ROLLS, read_rolls
from comfypin.queue.nats.tickets import withdraw_quietly
from comfypin.queue.queue_views import QueueViews
from comfypin.queue.run_estimates import ExpectedEnds, RunEstimates
from comfypin.queue.sqlite import JobStore
from comfypin.queue.webhook import Webhooks
from comfypin.queue.webhook_events import WebhookEvents
from comfypin.queue.webhook_records import EventName

if TYPE_CHECKING:
    from comfypin.queue.nats.fleet import Fleet
    from comfypin.queue.steady_clock import Clock

# A full queue has room again when a job ends, which takes seconds.
_RETRY_AFTER_S = 5
# Each is a round trip or two; one after the other a thousand would take a minute.
_CANCELS_AT_ONCE = 64
_LOOK_AGAIN_S = 0.05
# Each look is a round trip, and the server has much to read.
_LOOK_WHILE_READING_S = 0.25
_COUNT_EVERY_S = 0.5
# Records are kept in memory by every server.
_LARGEST_NOTE = 65_536
# A roll waits for a worker to start, which takes far longer.
_ROLLS_EVERY_S = 2.0


class NatsJobQueue(QueueViews):
    """Implements `ServedQueue` on NATS. `release` is the digest of the server's release, `release_name` its name."""

    runs_here = False
    can_reorder = False

    def __init__(
        self,
        fleet: "Fleet",
        store: JobStore,
        limits: QueueLimits,
        *,
        release: str,
        release_name: str | None,
        clock: "Clock",
        webhooks: Webhooks,
        events: JobEvents | None = None,
        read_before_answers_s: float = 5.0,
    ) -> None:
        """Make the queue; `read_before_answers_s` is as long as `recover_jobs` may read."""
        self._estimates = RunEstimates()
        self.events = events or JobEvents()
        self._mirror = Mirror(fleet, store, events=self.events, estimates=self._estimates, listener=self)
        # Workers come and go: as many as run jobs now are expected to go on.
        ends = ExpectedEnds(self._estimates, self._mirror.jobs, at_once=lambda: max(1, self.running_count), clock=clock)
        super().__init__(store, self._mirror.jobs, ends)
        self._fleet = fleet
        self._limits = limits
        self._release = release
        self._release_name = release_name
        self._clock = clock
        self._accepting = 0
        self._tickets_waiting = 0
        # Some ten thousand jobs: a server with fewer answers everything from its first answer on.
        self._read_before_answers_s = read_before_answers_s
        self.metrics = Metrics()
        self.webhooks = WebhookEvents(store, webhooks, self.metrics, clock=clock, events=self.events)
        self._telling = FleetWebhooks(fleet, store, self.webhooks, read_status=self.read_status)
        self._chores = Chores(fleet, self._mirror, store, limits, clock=clock)
        self._lease = FleetLease(fleet.leases, CHORES, uuid.uuid4().hex)
        self._progress = ProgressReader(fleet.client, self._jobs, self.events)
        self._stopped = asyncio.Event()
        self._rolls = NO_ROLLS
        self._peers = Peers(fleet)
        self._read_asset: Callable[[str], Iterator[bytes]] | None = None
        self.metrics.watch_fleet(FiguresReader(fleet, self._count_dead).read)

    @property
    def release(self) -> str:
        """Return the release that takes jobs which name none: the server's own, or what was rolled in its place."""
        return self._rolls.successor(self._release)

    def use_assets(self, read_asset: Callable[[str], Iterator[bytes]]) -> None:
        """Give workers what was uploaded to this server, read by its hash, together with the jobs that name it."""
        self._read_asset = read_asset

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
        """Take a job and return its id: its record, its input and its ticket are on the disks of the queue then."""
        self._require_room()
        row = JobRow(
            id=job_id or str(uuid.uuid4()),
            state="IN_QUEUE",
            webhook=webhook,
            timeout_s=timeout_s,
            ttl_s=ttl_s,
            created_at=self._clock(),
            priority=route.priority,
            rank=int(route.priority == "high"),  # a fleet has two lines
        )
        known = KnownReleases(own=self._release, own_name=self._release_name, rolls=self._rolls)
        chosen = await choose_lane(route, known, self._fleet.releases)
        # Jobs that are being written count as waiting: clients that send at the same moment must not overfill the
        # queue.
        self._accepting += 1
        try:
            make = partial(self._make_job, row, chosen, job_input, notes or JobNotes(), api=api)
            job, input_text = await asyncio.to_thread(make)
            job = replace(job, webhook_events=None if webhook_events is None else tuple(webhook_events))
            with as_storage_failure():
                await self._keep_job(job, input_text)
        finally:
            self._accepting -= 1
        return row.id

    def _make_job(
        self, row: JobRow, chosen: ChosenLane, job_input: object, notes: JobNotes, *, api: ApiName
    ) -> tuple[FleetJob, str]:
        """Return the record of a job, and its input as text. Slow for a large input: walks and dumps all of it."""
        is_secret = holds_secret(job_input) or is_secret_address(row.webhook or "")
        if is_secret and row.webhook is not None:
            row = replace(row, webhook=self._fleet.seal.close_text(row.webhook))
        job_input = with_asset_bytes(job_input, self._read_asset)
        if notes.comfy is not None and len(notes.comfy.workflow or "") > _LARGEST_NOTE:
            notes = replace(notes, comfy=replace(notes.comfy, workflow=None))  # the input has it, too
        job = FleetJob(
            row=row,
            lane=chosen.lane,
            description=describe_job(job_input, api=api, release=chosen.release_name),
            secret=is_secret,
            is_pinned=chosen.is_pinned,
            upload=self._fleet.bodies.upload_of(row.id),
            notes=notes,
        )
        return job, json.dumps(job_input)

    async def _keep_job(self, job: FleetJob, input_text: str) -> None:
        # The input first and the ticket last: no record points to a missing input, and no worker gets a ticket without
        # a record.
        stored_body = await self._fleet.bodies.put(job.row.id, input_text, secret=job.secret)
        job = replace(job, input=stored_body)
        revision = await self._fleet.states.create(job)
        job = replace(job, number=revision)
        try:
            await self._fleet.tickets.issue(job)
        except (Error, TimeoutError):
            # Refused for good, or unclear to the end: the client is told that it was not taken, so it must not run.
            with contextlib.suppress(Error, TimeoutError):
                await withdraw_quietly(self._fleet.tickets, job)
                await self._fleet.states.bucket.remove(job.row.id)
                await self._fleet.bodies.remove(stored_body)
            raise
        await self._mirror.note(StoredJob(job=job, revision=revision))

    async def read_record(self, job_id: str, *, wait_s: float = 0.0) -> JobRecord:
        """Return the job once it has ended, or as it is after `wait_s` seconds. Raises `JobUnknown`."""
        if wait_s > 0:
            await self._wait_for_end(job_id, wait_s)
        live = self._find_pending(job_id)
        if live is not None:
            progress = json.dumps(live.progress) if live.progress else None
            return JobRecord(row=live.row, output=progress)
        with as_storage_failure():
            stored_job = await self._fleet.states.read(job_id)
            if stored_job is None:
                raise JobUnknown(job_id=job_id)
            job = stored_job.job
            output = None if job.result is None else await self._fleet.bodies.get(job.result)
        return JobRecord(row=job.row, output=output, error=job.error, worker_id=job.worker_id)

    def _find_pending(self, job_id: str) -> LiveJob | None:
        """Return the job if it is known not to have ended: what is read of the history may be long past."""
        return self._jobs.find_pending(job_id) if self.has_all_jobs else None

    async def _wait_for_end(self, job_id: str, wait_s: float) -> None:
        deadline_s = time.monotonic() + wait_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            live = self._find_pending(job_id)
            if live is None:
                # Another server took it a moment ago, it has ended, or this server still reads its history.
                with as_storage_failure():
                    stored_job = await self._fleet.states.read(job_id)
                if stored_job is None or stored_job.job.has_ended:
                    return
                await asyncio.sleep(min(left_s, _LOOK_AGAIN_S if self.has_all_jobs else _LOOK_WHILE_READING_S))
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(live.changed.wait(), left_s)

    async def cancel_job(self, job_id: str) -> JobState:
        """Stop a job and return its state then. Raises `JobUnknown`, `JobsNotStored`."""
        end = partial(fleet_job.ended, state="CANCELLED", at=self._clock())
        with as_storage_failure():
            stored_job = await self._fleet.states.change(job_id, end)
            if stored_job is None:
                raise JobUnknown(job_id=job_id)
            # The record has decided. The rest makes it sooner: a worker looks at the record with each heartbeat.
            if stored_job.changed:
                await withdraw_quietly(self._fleet.tickets, stored_job.job)
                await self._fleet.client.publish(cancel_subject(job_id))
                await self._mirror.note(stored_job)
        return stored_job.job.row.state

    async def cancel_waiting(self) -> int:
        """Cancel all jobs that wait; return how many those were. Raises `JobsNotStored`."""
        await self._mirror.wait_until_loaded()
        waiting = [live.row.id for live in self._jobs.list_pending() if live.row.state == "IN_QUEUE"]
        limit = asyncio.Semaphore(_CANCELS_AT_ONCE)

        async def cancel(job_id: str) -> bool:
            async with limit:
                stored_job = await self._fleet.states.change(job_id, partial(_cancelled_if_waiting, at=self._clock()))
                if stored_job is None or not stored_job.changed:
                    return False
                await withdraw_quietly(self._fleet.tickets, stored_job.job)
                await self._mirror.note(stored_job)
                return True

        with as_storage_failure():
            return sum(await asyncio.gather(*map(cancel, waiting)))

    async def retry_job(self, job_id: str) -> None:
        """Run an ended job again. Raises `JobUnknown`, `RetryRefused`, `QueueFull`, `JobsNotStored`."""
        with as_storage_failure():
            stored_job = await self._fleet.states.read(job_id)
            if stored_job is None:
                raise JobUnknown(job_id=job_id)
            _require_retryable(stored_job.job)
            self._require_room()
            old_result = stored_job.job.result
            # The record before the ticket: a worker throws away the ticket of a job that has ended. The old result goes
            # last, when nothing points to it any more.
            stored_job = await self._fleet.states.change(job_id, self._queue_again)
            if stored_job is None:
                raise JobUnknown(job_id=job_id)
            if not stored_job.changed:
                _require_retryable(stored_job.job)
                raise RetryRefused(job_id=job_id, reason="it waits already")
            await self._mirror.note(stored_job)
            await self._fleet.tickets.issue(stored_job.job)
            await self._fleet.bodies.remove(old_result)

    def _queue_again(self, job: FleetJob) -> FleetJob | None:
        queued = fleet_job.queued_again(job, at=self._clock(), successor=self._rolls.successor)
        return None if queued is None else replace(queued, upload=self._fleet.bodies.upload_of(job.row.id))

    async def prioritize_job(self, job_id: str, priority: int) -> None:
        """Refuse: a ticket stays in its line. Raises `NotReordered`."""
        raise NotReordered(job_id=job_id)

    # -- What Comfy API v2 asks beside ------------------------------------------------------------------

    async def read_input(self, job_id: str) -> object:
        """Return what a job asked for, as far as it is kept."""
        with as_storage_failure():
            stored_job = await self._fleet.states.read(job_id)
            if stored_job is None:
                return None
            input_text = None if stored_job.job.input is None else await self._fleet.bodies.get(stored_job.job.input)
        return {} if input_text is None else await asyncio.to_thread(json.loads, input_text)

    # -- QueueHealth ----------------------------------------------------------------------------------------------

    @property
    def trouble(self) -> str | None:
        """Return why no jobs can be taken now, as a sentence, or None."""
        if self._store.trouble is not None:
            return self._store.trouble.message
        if not self._fleet.client.is_connected:
            return "The queue cannot be reached."
        return self._mirror.trouble

    @property
    def waiting_count(self) -> int:
        """Return how many jobs wait."""
        return self._mirror.waiting_count if self.has_all_jobs else self._tickets_waiting

    @property
    def has_all_jobs(self) -> bool:
        """Return whether all jobs of the fleet were read once since this server began."""
        return self._mirror.is_loaded

    async def wait_for_all_jobs(self) -> None:
        """Wait until all jobs of the fleet were read once."""
        await self._mirror.wait_until_loaded()

    @property
    def previews(self) -> ProgressReader:
        """Return where previews of jobs that run here would go: none do."""
        return self._progress

    # -- running --------------------------------------------------------------------------------------------------

    def note_start(self, start_s: Mapping[str, float]) -> None:
        """Note nothing: the engines of a fleet start elsewhere."""

    async def recover_jobs(self) -> None:
        """Read the jobs of the fleet; if they are very many, the rest of them while the server answers already."""
        with as_storage_failure():
            self._rolls = await read_rolls(self._fleet.control)
            self._tickets_waiting = await count_waiting(self._fleet.stream)
            await self._mirror.load(within_s=self._read_before_answers_s)

    async def run_jobs(self, handle: Handle) -> None:
        """Follow the jobs, which others run, until cancelled or until `stop_jobs`."""
        async with asyncio.TaskGroup() as group:
            following = group.create_task(self._mirror.follow())
            listening = group.create_task(self._progress.listen())
            leading = group.create_task(self._lead_when_loaded())
            counting = group.create_task(self._count_while_reading())
            rolling = group.create_task(self._follow_rolls())
            knowing = group.create_task(self._peers.run())
            answering = group.create_task(answer_for_dead_jobs(self._fleet.client, self._mirror.list_dead))
            await self._stopped.wait()
            for task in (following, listening, leading, rolling, knowing, answering, counting):
                task.cancel()

    async def stop_jobs(self, grace_s: float) -> None:
        """Stop following: nothing runs here. Clients that wait get what is known."""
        self._stopped.set()

    async def _follow_rolls(self) -> None:
        while True:
            with contextlib.suppress(Error, TimeoutError, OSError):
                self._rolls = await read_rolls(self._fleet.control)
            await pause(_ROLLS_EVERY_S)

    async def _count_while_reading(self) -> None:
        """Know how many jobs wait before all of them were read, since a queue takes so many and no more."""
        while not self.has_all_jobs:
            with contextlib.suppress(Error, TimeoutError, OSError):
                self._tickets_waiting = await count_waiting(self._fleet.stream)
            await pause(_COUNT_EVERY_S)

    async def _lead_when_loaded(self) -> None:
        await self._mirror.wait_until_loaded()
        await self._lease.hold(self._lead)

    async def _lead(self) -> None:
        """Do what one server does for all."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._chores.run())
            group.create_task(self._telling.run(self._list_with_webhook))

    def _list_with_webhook(self) -> list[str]:
        # Each is read once more from the queue: a hundred thousand without a webhook would take minutes.
        return [live.row.id for live in self._jobs.list_pending() if live.row.webhook is not None]

    def job_waits(self, job: FleetJob) -> None:
        """Hear from the mirror of a job that was taken, or is to run again."""
        self._telling.job_waits(job)

    def job_ended(self, job: FleetJob) -> None:
        """Hear from the mirror of a job that has ended."""
        self.metrics.count_end(job.row.state, None)
        self._telling.job_ended(job)

    def _count_dead(self) -> int | None:
        return self._mirror.dead_count if self.has_all_jobs else None

    def _require_room(self) -> None:
        waiting = self.waiting_count + self._accepting
        if waiting >= self._limits.max_waiting:
            self.metrics.refused.inc()
            raise QueueFull(waiting=waiting, retry_after_s=_RETRY_AFTER_S)


def _cancelled_if_waiting(job: FleetJob, *, at: float) -> FleetJob | None:
    return fleet_job.ended(job, "CANCELLED", at=at) if job.row.state == "IN_QUEUE" else None


def _require_retryable(job: FleetJob) -> None:
    if job.row.state not in RETRYABLE_STATES:
        reason = f"it is {job.row.state}; only jobs that are FAILED or TIMED_OUT can"
        raise RetryRefused(job_id=job.row.id, reason=reason)
    if job.secret:
        raise RetryRefused(job_id=job.row.id, reason="it came with secrets, which are not kept; send it anew")

"""Follows the records of all jobs: each server has them in sight, in memory and in a file, for lists, waits and events.

The file is a copy that is thrown away at each start; what counts is in NATS. Records come in the order in which they
were changed, each once or, after the connection was lost, perhaps again.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from nats.errors import Error
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from comfypin.jobs.interface import JobState
from comfypin.queue.errors import JobsNotStored
from comfypin.queue.interface import JobRow
from comfypin.queue.job_changes import JobChange
from comfypin.queue.job_events import JobEvents
from comfypin.queue.live_jobs import LiveJob, LiveJobs
from comfypin.queue.nats.dead_jobs import DeadJob, dead_job
from comfypin.queue.nats.fleet_job import FleetJob
from comfypin.queue.nats.job_states import StoredJob
from comfypin.queue.nats.pauses import pause
from comfypin.queue.nats.pulling import MessagePuller, open_puller
from comfypin.queue.nats.record_copies import ROWS, RecordCopier
from comfypin.queue.run_estimates import RunEstimates
from comfypin.queue.sqlite import JobStore
from comfypin.queue.status_bodies import is_pending

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from comfypin.queue.nats.fleet import Fleet

log = logging.getLogger(__name__)

# One write of the file for all of them.
_BATCH = 512
# A request that waits longer is not told from a server that is gone.
_WAIT_S = 4.0
# A connection that is lost for less finds its place again.
_CONSUMER_KEPT_S = 60.0
_TRY_AGAIN_S = 0.5
# Whoever asks reads the records instead, which takes longer than this.
_CATCH_UP_WITHIN_S = 10.0
_LOOK_AGAIN_S = 0.02
# Older news of a job that has ended comes within seconds, or never.
_KNOWN_ENDS = 4000


class MirrorListener(Protocol):
    """Hears of what changes, after all was read once."""

    def job_waits(self, job: FleetJob) -> None:
        """Hear of a job that was taken, or is to run again."""

    def job_ended(self, job: FleetJob) -> None:
        """Hear of a job that has ended."""


class Mirror:
    """The jobs of a fleet as this server sees them."""

    def __init__(
        self,
        fleet: "Fleet",
        store: JobStore,
        *,
        events: JobEvents,
        estimates: RunEstimates,
        listener: MirrorListener,
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._copier = RecordCopier(store)
        self._events = events
        self._estimates = estimates
        self._listener = listener
        self._stream_name = fleet.states.bucket.stream_name
        self._newest = 0
        # Of jobs that have not ended, and of the last that have: what was noted must not be undone by what is older.
        self._revisions: OrderedDict[str, int] = OrderedDict()
        self._waiting: set[str] = set()
        self._dead: dict[str, DeadJob] = {}
        self._bounded: set[str] = set()
        """Those that wait and may only wait for so long: few, if a hundred thousand wait."""
        self.jobs = LiveJobs()
        self._history_end = 0
        self._loaded = asyncio.Event()
        self.trouble: str | None = None
        """Why the jobs cannot be followed now, or None."""

    @property
    def waiting_count(self) -> int:
        """Return how many jobs wait."""
        return len(self._waiting)

    @property
    def dead_count(self) -> int:
        """Return how many jobs were given up since their workers died."""
        return len(self._dead)

    async def list_dead(self) -> list[DeadJob] | None:
        """Return the jobs that were given up, with all that had changed until now; None if the queue is far ahead.

        Raises what nats-py raises.
        """
        if not self.is_loaded:
            return None
        newest = (await self._fleet.stream.stream_info(self._stream_name)).state.last_seq
        deadline_s = time.monotonic() + _CATCH_UP_WITHIN_S
        while self._newest < newest:
            if time.monotonic() > deadline_s:
                return None
            await asyncio.sleep(_LOOK_AGAIN_S)
        return list(self._dead.values())

    def list_bounded(self) -> list[JobRow]:
        """Return the jobs that wait and have a limit for that."""
        pending = [self.jobs.find_pending(job_id) for job_id in self._bounded]
        return [live.row for live in pending if live is not None]

    async def load(self, *, within_s: float) -> None:
        """Read all records, or as many as can be read so soon; `follow` reads the rest.

        Raises what nats-py raises, `JobsNotStored`.
        """
        await self._store.write_changes(JobChange("DELETE FROM jobs", ()))
        self._history_end = (await self._fleet.stream.stream_info(self._stream_name)).state.last_seq
        deadline_s = time.monotonic() + within_s
        async with open_puller(self._fleet.client) as puller:
            consumer = await self._open_consumer()
            while not self.is_loaded and time.monotonic() < deadline_s:
                batch = await puller.take_batch(self._stream_name, consumer, most=_BATCH, wait_s=_WAIT_S)
                if not batch:
                    break
                await self._apply(batch)

    async def wait_until_loaded(self) -> None:
        """Wait until all records were read once."""
        await self._loaded.wait()

    @property
    def is_loaded(self) -> bool:
        """Return whether all records were read once."""
        return self._loaded.is_set()

    async def _note_loaded(self) -> None:
        await self._copier.finish()  # lists are whole from now on
        self._newest = max(self._newest, self._history_end)
        self._loaded.set()

    async def follow(self) -> None:
        """Note what changes, for ever."""
        while True:
            try:
                async with open_puller(self._fleet.client) as puller:
                    await self._follow_consumer(puller)
            except (Error, TimeoutError, OSError, JobsNotStored) as exc:
                if self.trouble is None:
                    log.warning("jobs are not followed", extra={"action": "mirror_lost", "reason": str(exc)})
                self.trouble = "The queue does not answer."
            await pause(_TRY_AGAIN_S)

    async def note(self, stored_job: StoredJob) -> None:
        """Note what this server has made of a job, at once; while it reads its history, in its turn."""
        if not self.is_loaded:
            return
        job = stored_job.job
        if self._take(job, stored_job.revision):
            self._copier.hold({job.row.id: job}, 0)
            with suppress(JobsNotStored):
                await self._copier.finish()

    async def _follow_consumer(self, puller: MessagePuller) -> None:
        """Follow with one consumer, until it is gone: with its server, or since we were away for long."""
        consumer = await self._open_consumer()
        while True:
            batch = await puller.take_batch(self._stream_name, consumer, most=_BATCH, wait_s=_WAIT_S)
            if batch:
                await self._apply(batch)
            else:
                # Silence is either a quiet queue, or a consumer that is gone.
                info = await self._fleet.stream.consumer_info(self._stream_name, consumer)
                if not info.num_pending:
                    await self._note_loaded()  # the last of it was removed meanwhile
            self.trouble = None

    async def _open_consumer(self) -> str:
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self._newest + 1,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=_CONSUMER_KEPT_S,
            mem_storage=True,
            num_replicas=1,
        )
        consumer = await self._fleet.stream.add_consumer(self._stream_name, config)
        if not consumer.num_pending:
            await self._note_loaded()
        return consumer.name

    async def _apply(self, batch: "list[Msg]") -> None:
        """Note a batch of records, some at a time: requests are answered in between."""
        for begin in range(0, len(batch), ROWS):
            self._apply_some(batch[begin : begin + ROWS])
            await asyncio.sleep(0)
        if self.is_loaded:
            await self._copier.finish()
            return
        await self._copier.keep_up()
        if self._newest >= self._history_end or not batch[-1].metadata.num_pending:
            await self._note_loaded()

    def _apply_some(self, messages: "Sequence[Msg]") -> None:
        # Of each job only what is newest goes to the file.
        changed: dict[str, FleetJob | None] = {}
        for message in messages:
            revision = message.metadata.sequence.stream
            job_id = message.subject.rpartition(".")[2]
            self._newest = max(self._newest, revision)
            # The marker of a record that was removed.
            if message.header and "KV-Operation" in message.header:
                self._forget(job_id)
                changed[job_id] = None
            elif (job := _loaded_record(message, job_id, revision)) is not None and self._take(job, revision):
                changed[job_id] = job
        if changed:
            self._copier.hold(changed, sum(len(message.data) for message in messages))

    def _take(self, job: FleetJob, revision: int) -> bool:
        """Note a record; return whether it is new."""
        job_id = job.row.id
        # Known already: this server's own change, or one that was delivered again.
        if revision <= self._revisions.get(job_id, 0):
            return False
        self._revisions[job_id] = revision
        self._revisions.move_to_end(job_id)
        self._count(job)
        self._take_live(job)
        return True

    def _count(self, job: FleetJob) -> None:
        job_id = job.row.id
        if job.row.state == "IN_QUEUE":
            self._waiting.add(job_id)
            if job.row.ttl_s:
                self._bounded.add(job_id)
        else:
            self._waiting.discard(job_id)
            self._bounded.discard(job_id)
        dead = dead_job(job)
        if dead is not None:
            self._dead[job_id] = dead
        else:
            self._dead.pop(job_id, None)

    def _take_live(self, job: FleetJob) -> None:
        job_id, row = job.row.id, job.row
        live = self.jobs.find_recent(job_id)
        before = None if live is None else live.row.state
        if not job.has_ended:
            if live is None or not is_pending(live.row.state):
                live = LiveJob(row, description=job.description)
                self.jobs.forget_ended(job_id)
                self.jobs.add_pending(live)
                self.jobs.take_place(live)
            self._change_live(live, row)
            self._publish_change(before, job)
            return
        if live is None:
            if not self.is_loaded:
                self._note_run(job)
                return
            live = LiveJob(row, description=job.description)
        live.end = job.end
        live.row = row
        self.jobs.move_to_ended(live)
        live.wake_followers()
        self._note_run(job)
        self._forget_old_ends()
        self._publish_change(before, job)

    def _change_live(self, live: LiveJob, row: JobRow) -> None:
        if live.row != row:
            live.row = row
            self.jobs.take_place(live)
            live.wake_followers()

    def _publish_change(self, before: JobState | None, job: FleetJob) -> None:
        """Tell followers what has become of a job."""
        if not self.is_loaded:
            return
        state, job_id = job.row.state, job.row.id
        if job.has_ended:
            if before is None or is_pending(before):
                self._listener.job_ended(job)
                self._events.publish("ended", job_id, {"state": state})
            return
        if before is None or not is_pending(before):
            self._listener.job_waits(job)
        if before is None:
            self._events.publish("accepted", job_id)
            if state == "IN_PROGRESS":
                self._events.publish("started", job_id)
        elif state != before:
            self._events.publish("started" if state == "IN_PROGRESS" else "retried", job_id)

    def _note_run(self, job: FleetJob) -> None:
        row = job.row
        if row.state == "COMPLETED" and row.started_at is not None and row.ended_at is not None:
            self._estimates.note_run(job.description.shape, max(0.0, row.ended_at - row.started_at))

    def _forget(self, job_id: str) -> None:
        self._revisions.pop(job_id, None)
        self._waiting.discard(job_id)
        self._dead.pop(job_id, None)
        self._bounded.discard(job_id)
        live = self.jobs.find_pending(job_id)
        if live is not None:
            self.jobs.drop_pending(live)
            live.wake_followers()
        self.jobs.forget_ended(job_id)
        if self.is_loaded:
            self._events.publish("removed", job_id)

    def _forget_old_ends(self) -> None:
        while len(self._revisions) > _KNOWN_ENDS + self.jobs.pending_count:
            oldest = next(iter(self._revisions))
            if self.jobs.find_pending(oldest) is not None:
                self._revisions.move_to_end(oldest)
            else:
                del self._revisions[oldest]


def _loaded_record(message: "Msg", job_id: str, revision: int) -> FleetJob | None:
    """Return the job that a message tells of, None if this version cannot read it."""
    try:
        return FleetJob.load(message.data, revision=revision)
    except (ValueError, TypeError, KeyError) as exc:
        facts = {"action": "record_unreadable", "job_id": job_id, "reason": str(exc)[:200]}
        log.error("a job of another version", extra=facts)
        return None

"""What one server of a fleet does for all: ends what waited too long, removes old results, mends what a kill left."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from nats.errors import Error
from nats.js.errors import NotFoundError

from comfypin.jobs.interface import JobOutcome, JobState
from comfypin.jobs.result_json import failed_outcome
from comfypin.queue.errors import JobsNotStored, JobTimedOut
from comfypin.queue.job_description import describe_end
from comfypin.queue.job_runner import QueueLimits
from comfypin.queue.nats import fleet_job, names
from comfypin.queue.nats.fleet_job import FleetJob
from comfypin.queue.nats.mirror import Mirror
from comfypin.queue.nats.pauses import pause
from comfypin.queue.nats.pulling import open_puller
from comfypin.queue.nats.rolls import Rolls, change_rolls, read_rolls
from comfypin.queue.nats.tickets import withdraw_quietly
from comfypin.queue.nats.worker_records import list_workers
from comfypin.queue.sqlite import JobStore

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from comfypin.queue.nats.fleet import Fleet
    from comfypin.queue.steady_clock import Clock

log = logging.getLogger(__name__)

# Limits of age are seconds.
_OVERDUE_EVERY_S = 1.0
# Results are kept for hours, so a half minute more is noticed by nobody.
_PRUNE_EVERY_S = 30.0
_PRUNABLE = "ended_at IS NOT NULL AND NOT webhook_owed"
# Only what a kill between two writes left behind, which is rare.
_MEND_EVERY_S = 30.0
# A worker tells within ten seconds that it has a release warm.
_ROLLS_EVERY_S = 2.0
_MOVE_EVERY_S = 5.0
# A client waits for the end of a job whose workers died.
_DEAD_EVERY_S = 1.0
_SWEEP_EVERY_S = 300.0
# A body is kept before the job that it is of; and a result while NATS does not take the end.
_SWEPT_AFTER_S = 3600.0
_MOST_BODIES = 2
_TICKET_DUE_AFTER_S = 30.0
"""A job so old without a ticket was left by a server that was killed between its record and its ticket."""


class Chores:
    """The chores of a fleet. Each is safe if two servers do it at once: records are changed by revision."""

    def __init__(self, fleet: "Fleet", mirror: Mirror, store: JobStore, limits: QueueLimits, *, clock: "Clock") -> None:
        self._fleet = fleet
        self._mirror = mirror
        self._store = store
        self._limits = limits
        self._clock = clock

    async def run(self) -> None:
        """Do all of them, for ever."""
        async with asyncio.TaskGroup() as group:
            for chore, every_s in (
                (self.end_overdue, _OVERDUE_EVERY_S),
                (self.prune, _PRUNE_EVERY_S),
                (self.mend_tickets, _MEND_EVERY_S),
                (self.bury_dead, _DEAD_EVERY_S),
                (self.hold_rolls, _ROLLS_EVERY_S),
                (self.sweep_bodies, _SWEEP_EVERY_S),
                (self.move_stranded, _MOVE_EVERY_S),
            ):
                group.create_task(_repeat(chore, every_s))

    async def end_overdue(self) -> None:
        """End the jobs that wait longer than their ttl allows."""
        now_s = self._clock()
        for row in self._mirror.list_bounded():
            if now_s > row.created_at + (row.ttl_s or 0.0):
                failure = JobTimedOut(reason="was given up: it waited longer than its policy's ttl allows")
                await self._end(row.id, "TIMED_OUT", failed_outcome(failure), only_waiting=True)

    async def prune(self) -> None:
        """Remove the results that are too old, and the oldest of those that take too much."""
        query = f"SELECT id, size, ended_at FROM jobs WHERE {_PRUNABLE} ORDER BY ended_at DESC"  # noqa: S608
        kept_bytes, ended_before = 0, self._clock() - self._limits.keep_s
        for job_id, size, ended_at in await self._store.query_rows(query):
            kept_bytes += size
            if kept_bytes > self._limits.keep_bytes or ended_at < ended_before:
                await self._remove(job_id)

    async def _remove(self, job_id: str) -> None:
        stored_job = await self._fleet.states.read(job_id)
        if stored_job is not None and stored_job.job.has_ended:
            # Only as it was read: a job that is run again at this moment keeps its record.
            await self._fleet.states.bucket.remove(job_id, revision=stored_job.revision)
            await self._fleet.bodies.remove(stored_job.job.input, stored_job.job.result)

    async def mend_tickets(self) -> None:
        """Issue the tickets of jobs that have lost theirs, or never got one."""
        due = [
            live.row.id
            for live in self._mirror.jobs.list_pending()
            if live.row.created_at < self._clock() - _TICKET_DUE_AFTER_S
        ]
        if not due:
            return
        with_ticket = {names.job_of_ticket(subject) for subject in await self._fleet.tickets.subjects()}
        jobs_with_ticket = {job_id for job_id, _ in with_ticket}
        for job_id in due:
            if job_id in jobs_with_ticket:
                continue
            # Read anew: it may have ended meanwhile, and its ticket with it.
            stored_job = await self._fleet.states.read(job_id)
            if stored_job is not None and not stored_job.job.has_ended:
                log.warning("a job had no ticket", extra={"action": "ticket_mended", "job_id": job_id})
                await self._fleet.tickets.issue(stored_job.job)

    async def sweep_bodies(self) -> None:
        """Remove inputs and results that no job points to: a kill left them, or a depot did not remove them then."""
        known = {row[0] for row in await self._store.query_rows("SELECT id FROM jobs")}
        before = time.time() - _SWEPT_AFTER_S
        for job_id, keys in (await self._fleet.bodies.keys_by_job()).items():
            # An input and a result are what a job may have.
            if job_id in known and len(keys) <= _MOST_BODIES:
                continue
            stored_job = await self._fleet.states.read(job_id)
            bodies = () if stored_job is None else (stored_job.job.input, stored_job.job.result)
            for key in keys - {stored_body.key for stored_body in bodies if stored_body is not None}:
                if await self._fleet.bodies.remove_if_old(key, before=before):
                    log.info("body swept", extra={"action": "body_swept", "key": key})

    async def hold_rolls(self) -> None:
        """Let rolls hold whose new release a worker has warm: before that, jobs would wait for it to start."""
        rolls = await read_rolls(self._fleet.control)
        if all(roll.is_held for roll in rolls.current.values()):
            return
        warm = {worker.warm for worker in await list_workers(self._fleet.workers) if not worker.is_stopping}
        for roll in rolls.current.values():
            if not roll.is_held and roll.new in warm:
                await change_rolls(self._fleet.control, partial(_hold, release=roll.old, new=roll.new))
                facts = {"action": "roll_held", "from": roll.old_name, "to": roll.new_name}
                log.info("jobs go to the new release", extra=facts)

    async def move_stranded(self) -> None:
        """Give jobs of a rolled release to its successor if the last old worker died before it had done them."""
        rolls = await read_rolls(self._fleet.control)
        if not rolls.current:
            return
        served = {release for worker in await list_workers(self._fleet.workers) for release, _ in worker.releases}
        for old in rolls.current:
            new = rolls.successor(old)
            if new == old or old in served:
                continue
            for subject in await self._fleet.tickets.subjects(old):
                await self._move(subject, new)

    async def _move(self, ticket: str, release: str) -> None:
        job_id, _ = names.job_of_ticket(ticket)
        stored_job = await self._fleet.states.change(job_id, partial(fleet_job.moved, release=release))
        # Also if an earlier move was cut off after the record was changed.
        if stored_job is None or stored_job.job.has_ended or stored_job.job.ticket == ticket:
            return
        await self._fleet.tickets.issue(stored_job.job)
        await self._fleet.stream.purge_stream(names.JOBS_STREAM, subject=ticket)
        log.warning("job moved", extra={"action": "job_moved", "job_id": job_id, "to": release})

    async def bury_dead(self) -> None:
        """End the jobs whose tickets were delivered as often as they may be, and take these away."""
        async with open_puller(self._fleet.client) as puller:
            while (advisory := await puller.take_one(names.DEAD_STREAM, "servers")) is not None:
                await self._bury(advisory)
                # Only now: if this server is killed before, another one finds the advisory again.
                await advisory.ack()

    async def _bury(self, advisory: "Msg") -> None:
        advisory_facts = json.loads(advisory.data)
        try:
            ticket = await self._fleet.stream.get_msg(names.JOBS_STREAM, seq=advisory_facts["stream_seq"])
        except NotFoundError:
            return
        job_id, run = names.job_of_ticket(ticket.subject or "")
        reason = f"its ticket was delivered {advisory_facts['deliveries']} times, and no worker ended it"
        failure = failed_outcome(JobTimedOut(reason=f"was given up: {reason}"))
        await self._end(job_id, "FAILED", failure, run=run, dead=reason)
        await self._fleet.stream.delete_msg(names.JOBS_STREAM, advisory_facts["stream_seq"])

    async def _end(
        self,
        job_id: str,
        state: JobState,
        outcome: JobOutcome,
        *,
        only_waiting: bool = False,
        run: int | None = None,
        dead: str | None = None,
    ) -> None:
        stored_job = await self._fleet.states.read(job_id)
        if stored_job is None or stored_job.job.has_ended:
            return
        stored_body = await self._fleet.bodies.put(
            job_id, json.dumps(dict(outcome.output)), secret=stored_job.job.secret
        )

        def change(job: FleetJob) -> FleetJob | None:
            if only_waiting and job.row.state != "IN_QUEUE":
                return None
            end = describe_end(outcome.output)
            return fleet_job.ended(job, state, at=self._clock(), result=stored_body, end=end, run=run, dead=dead)

        changed = await self._fleet.states.change(job_id, change)
        if changed is None or not changed.changed:
            await self._fleet.bodies.remove(stored_body)
            return
        await withdraw_quietly(self._fleet.tickets, changed.job)
        await self._fleet.client.publish(names.cancel_subject(job_id))
        await self._mirror.note(changed)


def _hold(rolls: Rolls, *, release: str, new: str) -> Rolls | None:
    roll = rolls.current.get(release)
    return rolls.held(release) if roll is not None and roll.new == new else None


async def _repeat(chore: Callable[[], Awaitable[None]], every_s: float) -> None:
    while True:
        began_s = time.monotonic()
        try:
            await chore()
        except (Error, TimeoutError, OSError, JobsNotStored) as exc:
            log.info("a chore waits", extra={"action": "chore_waits", "reason": str(exc)[:200]})
        # A chore that takes long rests as long: it never takes more than half of the time.
        await pause(max(every_s, time.monotonic() - began_s))

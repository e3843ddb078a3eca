"""Runs the job of one ticket: begins it, keeps the ticket while it runs, ends it once, or hands it back."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

from nats.errors import Error

from comfypin.digest import JsonValue
from comfypin.errors import ComfypinError
from comfypin.jobs.errors import JobBroken
from comfypin.jobs.interface import Handle, JobOutcome, JobState
from comfypin.jobs.result_json import failed_outcome
from comfypin.queue.errors import JobTimedOut
from comfypin.queue.job_description import describe_end
from comfypin.queue.nats import fleet_job
from comfypin.queue.nats.fleet_job import MOST_ATTEMPTS, Body, FleetJob
from comfypin.queue.nats.layout import HEARTBEAT_S
from comfypin.queue.nats.names import cancel_subject, job_of_ticket
from comfypin.queue.nats.progress import ProgressPublisher

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from comfypin.queue.nats.fleet import Fleet
    from comfypin.queue.steady_clock import Clock

log = logging.getLogger(__name__)

Result = TypeVar("Result")
RunEnd = Literal["ended", "given back", "worn out"]
_TRY_AGAIN_S = 1.0


class _EndedElsewhere(Exception):
    """The job was cancelled, or another worker has ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketRunner:
    """What all jobs of a worker share. `is_stopping` says that a job which is cut off goes back to the queue."""

    fleet: "Fleet"
    publisher: ProgressPublisher
    worker_id: str
    clock: "Clock"
    is_stopping: Callable[[], bool]

    async def run(self, ticket: "Msg", open_handle: Callable[[], Awaitable[Handle]]) -> RunEnd:
        """Run the job of a ticket to its end. `open_handle` may take as long as a swap of releases does."""
        job_id, run = job_of_ticket(ticket.subject)
        async with self._keeping(ticket, job_id, run):
            try:
                return await self._run_job(ticket, job_id, run, open_handle)
            except _EndedElsewhere:
                await self._settle(ticket)
                return "ended"
            except asyncio.CancelledError:
                if not self.is_stopping():
                    # `_keeping` has heard that somebody else has ended it.
                    await self._settle(ticket)
                    return "ended"
                await self._give_back(ticket, job_id, run)
                return "given back"
            finally:
                self.publisher.forget(job_id)

    async def _run_job(
        self, ticket: "Msg", job_id: str, run: int, open_handle: Callable[[], Awaitable[Handle]]
    ) -> RunEnd:
        try:
            handle = await open_handle()
        except ComfypinError as exc:
            # The job has not begun: a worker on which its release starts may run it.
            log.error(exc.message, extra={"action": "release_not_opened", "job_id": job_id})
            await _until_done(ticket.nak)
            return "given back"
        job = await self._begin(job_id, run)
        try:
            async with asyncio.timeout(_time_left_s(job, self.clock())):
                outcome = await self._handle(job, handle)
        except TimeoutError:
            failure = JobTimedOut(reason="was stopped: it took longer than its policy (executionTimeout, ttl) allows")
            await self._end(job, "TIMED_OUT", failed_outcome(failure))
        else:
            if outcome.replace_worker:
                # Another worker may do better; one that ends five of them is given up.
                await _until_done(ticket.nak)
                return "worn out"
            await self._end(job, "COMPLETED" if outcome.failure is None else "FAILED", outcome)
        await self._settle(ticket)
        return "ended"

    async def _begin(self, job_id: str, run: int) -> FleetJob:
        """Note that the job begins. Raises `_EndedElsewhere` if it is not to be run."""
        change = partial(fleet_job.started, run=run, at=self.clock(), worker_id=self.worker_id)
        stored_job = await _until_done(lambda: self.fleet.states.change(job_id, change))
        if stored_job is not None and stored_job.changed:
            row = stored_job.job.row
            waited_s = round((row.started_at or 0.0) - row.created_at, 3)
            facts = {"action": "job_started", "job_id": job_id, "attempt": row.attempts, "waited_s": waited_s}
            log.info("job started", extra=facts)
            return stored_job.job
        if stored_job is not None and not stored_job.job.has_ended and stored_job.job.run == run:
            await self._bury(stored_job.job)
        raise _EndedElsewhere

    async def _bury(self, job: FleetJob) -> None:
        """Give up a job that takes its workers down with it (memory, a driver): it would do so for ever."""
        reason = f"its workers ended {MOST_ATTEMPTS} times while they ran it"
        await self._end(job, "FAILED", failed_outcome(JobTimedOut(reason=f"was given up: {reason}")), dead=reason)

    async def _handle(self, job: FleetJob, handle: Handle) -> JobOutcome:
        try:
            input_text = None if job.input is None else await _until_done(lambda: self.fleet.bodies.get(job.input))  # type: ignore[arg-type]
            document = {} if input_text is None else await asyncio.to_thread(json.loads, input_text)
            return await handle(job.row.id, document, progress=partial(self.publisher.publish_progress, job.row.id))
        except ComfypinError as exc:
            return failed_outcome(exc)
        except Exception as exc:  # a mistake of ours ends one job, not the worker
            log.exception("job failed unexpectedly", extra={"action": "job_broken", "job_id": job.row.id})
            return failed_outcome(JobBroken(kind=type(exc).__name__))

    async def _end(self, job: FleetJob, state: JobState, outcome: JobOutcome, *, dead: str | None = None) -> None:
        """End a job, however long the queue does not answer; whoever was first has ended it."""
        ended_at = self.clock()
        output: Mapping[str, JsonValue] = outcome.output
        try:
            stored_body = await self._put_result(job, output)
        except ComfypinError as exc:
            # The result cannot be kept (too large, a store that refuses it): that is why the job fails.
            state, output = "FAILED", failed_outcome(exc).output
            stored_body = await self._put_result(job, output)
        change = partial(
            fleet_job.ended,
            state=state,
            at=ended_at,
            result=stored_body,
            end=describe_end(output),
            dead=dead,
            run=job.run,
        )
        stored_job = await _until_done(lambda: self.fleet.states.change(job.row.id, change))
        # Somebody else ended the job: nothing will ever point to this result.
        if stored_job is None or not stored_job.changed:
            await _until_done(lambda: self.fleet.bodies.remove(stored_body))
        elif stored_job.job.input is None:
            await _until_done(lambda: self.fleet.bodies.remove(job.input))
        facts = {"action": "job_ended", "job_id": job.row.id, "state": state}
        log.info("job ended" if stored_job is not None and stored_job.changed else "job had ended already", extra=facts)

    async def _put_result(self, job: FleetJob, output: Mapping[str, JsonValue]) -> Body:
        output_text = await asyncio.to_thread(json.dumps, output)
        put = partial(self.fleet.bodies.put, job.row.id, output_text, secret=job.secret, upload=job.upload)
        return await _until_done(put)

    async def _settle(self, ticket: "Msg") -> None:
        """Take the ticket away. If that does not arrive, whoever gets it next finds that its job has ended."""
        with contextlib.suppress(Error, TimeoutError):
            await ticket.ack_sync(timeout=5)

    async def _give_back(self, ticket: "Msg", job_id: str, run: int) -> None:
        """Let another worker run the job, at once. If the queue is away, it does after half a minute of silence."""
        change = partial(fleet_job.given_back, run=run, worker_id=self.worker_id)
        with contextlib.suppress(Error, TimeoutError):
            async with asyncio.timeout(5):
                stored_job = await self.fleet.states.change(job_id, change)
                await ticket.nak()
                if stored_job is not None:
                    await self.fleet.tickets.wake(stored_job.job.lane)
                await self.fleet.client.flush(2)

    @contextlib.asynccontextmanager
    async def _keeping(self, ticket: "Msg", job_id: str, run: int) -> AsyncIterator[None]:
        """Tell the queue while the block runs that its worker lives; cancel the block if the job is not to go on."""
        task = asyncio.current_task()
        assert task is not None

        async def hear(_message: object) -> None:
            task.cancel()

        subscription = await self.fleet.client.subscribe(cancel_subject(job_id), cb=hear)
        beating = asyncio.create_task(self._beat(ticket, job_id, run, task))
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            with contextlib.suppress(Error):
                await subscription.unsubscribe()

    async def _beat(self, ticket: "Msg", job_id: str, run: int, task: "asyncio.Task[object]") -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            with contextlib.suppress(Error, TimeoutError):
                await ticket.in_progress()
                # The word of a cancellation may have been lost.
                stored_job = await self.fleet.states.read(job_id)
                if stored_job is None or stored_job.job.has_ended or stored_job.job.run != run:
                    task.cancel()
                    return


async def _until_done(work: Callable[[], Awaitable[Result]]) -> Result:
    """Do something with the queue, however long it does not answer."""
    while True:
        try:
            return await work()
        except (Error, TimeoutError, OSError) as exc:
            log.warning("the queue does not answer", extra={"action": "queue_waited_for", "reason": str(exc)})
            await asyncio.sleep(_TRY_AGAIN_S)


def _time_left_s(job: FleetJob, now_s: float) -> float | None:
    row = job.row
    limits = [row.timeout_s, None if row.ttl_s is None else row.created_at + row.ttl_s - now_s]
    return min((max(0.0, limit) for limit in limits if limit is not None), default=None)

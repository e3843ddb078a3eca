"""A worker of a fleet: takes tickets, its warm release's first and urgent ones before others, and runs their jobs."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nats.errors import Error, NoRespondersError

from comfypin.errors import ComfypinError
from comfypin.jobs.interface import Handle
from comfypin.queue.nats import names
from comfypin.queue.nats.backlogs import read_backlog
from comfypin.queue.nats.floors import is_kept, read_floor
from comfypin.queue.nats.layout import HEARTBEAT_S, ensure_lane
from comfypin.queue.nats.names import ANY_CLASS, lanes_of_worker, wake_subject
from comfypin.queue.nats.pauses import pause
from comfypin.queue.nats.progress import ProgressPublisher
from comfypin.queue.nats.pulling import MessagePuller, open_puller
from comfypin.queue.nats.rolls import read_rolls
from comfypin.queue.nats.ticket_run import RunEnd, TicketRunner
from comfypin.queue.nats.warm_first import Backlog, choose_release
from comfypin.queue.nats.worker_records import WorkerRecord, list_workers

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from comfypin.queue.nats.fleet import Fleet
    from comfypin.queue.steady_clock import Clock

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 5.0
"""How often an idle worker looks for tickets that nobody woke it for: those of workers that died."""
# Looking costs a round trip for each line of each release; a swap takes far longer.
_OTHERS_EVERY_S = 2.0
_TRY_AGAIN_S = 1.0
# The group of workers of which NATS chooses one. Waking all of ten thousand for each job would be most of its work.
_IDLE = "idle"
# A roll takes minutes, as its new workers have to start.
_ROLLS_EVERY_S = 5.0

WorkerEnd = Literal["stopped", "idle", "replaced"]
"""Why a worker ended: it was asked to, it idled for as long as it should, or another release has its place."""

OpenRelease = Callable[[str], AbstractAsyncContextManager[Handle]]
"""Opens the engine of a release, by its digest, and yields what runs its jobs."""


class WorkerWornOut(ComfypinError):
    """The engine died several times in a row: whoever started the worker should start another one."""

    def __init__(self) -> None:
        super().__init__("The engine died several times in a row; the worker has handed its job back and ends.")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """What a worker is: its own release and others that it may swap to (digest: name), its class, and its limits."""

    own: str
    releases: Mapping[str, str]
    gpu_class: str = ANY_CLASS
    gpu: str | None = None
    concurrency: int = 1
    grace_s: float = 20.0
    idle_exit_s: float | None = None


class FleetWorker:
    """Serves a fleet until it is stopped, has idled for long, was replaced by a roll, or its engine is worn out."""

    def __init__(
        self,
        fleet: "Fleet",
        options: WorkerOptions,
        open_release: OpenRelease,
        *,
        worker_id: str,
        clock: "Clock",
        publisher: ProgressPublisher,
    ) -> None:
        self._fleet = fleet
        self._options = options
        self._open_release = open_release
        self._worker_id = worker_id
        self._clock = clock
        self._publisher = publisher
        self._started_at = clock()
        self._stopping = asyncio.Event()
        self._woken = asyncio.Event()
        self._wakes = 0
        self._ears: list[Subscription] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self._swapped = asyncio.Event()
        self._running: dict[asyncio.Task[RunEnd], str] = {}
        self._warm: str | None = None
        self._handle: Handle | None = None
        self._swap_s = 0.0
        self._looked_at_s = float("-inf")
        self._unopened: set[str] = set()
        self._is_replaced = False
        self._is_cut_off = False
        self._failure: ComfypinError | None = None
        self._runner = TicketRunner(
            fleet=fleet,
            publisher=publisher,
            worker_id=worker_id,
            clock=clock,
            is_stopping=self._stopping.is_set,
        )

    def stop(self) -> None:
        """Take no more tickets; give the jobs that run the grace, and hand back what is not done then."""
        self._stopping.set()
        self._woken.set()

    async def serve(self) -> WorkerEnd:
        """Work; return why it ended. Raises `WorkerWornOut`, and what the engine raises if it does not start."""
        await self._open_lanes()
        await self._publisher.listen()
        await self._look_at_rolls()
        if self._is_replaced and not (await self._read_own_backlog()).waiting:
            return "replaced"  # started again by somebody who has not heard of the roll
        end: WorkerEnd = "stopped"
        async with (
            AsyncExitStack() as engines,
            self._known(),
            open_puller(self._fleet.client) as puller,
        ):
            await self._make_warm(self._options.own, engines)
            log.info("worker ready", extra={"action": "worker_ready", "worker": self._worker_id})
            try:
                end = await self._take_tickets(puller, engines)
            finally:
                self._stop_listening()
                await self._finish_jobs()
                await asyncio.gather(*self._leaving)
                for ticket in await puller.rest():
                    await ticket.nak()
        if self._failure is not None:
            raise self._failure
        return end

    async def _open_lanes(self) -> None:
        for release in self._options.releases:
            for lane in lanes_of_worker(release, self._options.gpu_class):
                await ensure_lane(self._fleet.stream, lane)

    # -- taking -------------------------------------------------------------------------------------------------------

    async def _take_tickets(self, puller: MessagePuller, engines: AsyncExitStack) -> WorkerEnd:
        idle_since_s = time.monotonic()
        while not self._stopping.is_set():
            self._reap()
            if len(self._running) >= self._options.concurrency:
                await self._wait_for_a_place()
                idle_since_s = time.monotonic()
                continue
            self._woken.clear()
            ticket = await self._take_ticket(puller)
            if ticket is not None:
                await self._wake_another(ticket)
                await self._begin(ticket, engines)
                idle_since_s = time.monotonic()
                continue
            if self._running:
                idle_since_s = time.monotonic()
            idle_s = time.monotonic() - idle_since_s
            if not self._running and (end := await self._end_of_idling(idle_s)) is not None:
                return end
            if self._ears:
                await self._wait_to_be_woken(idle_s)
            else:
                # And look once more: a ticket may have come before this worker could hear of it.
                await self._listen()
        return "stopped"

    async def _end_of_idling(self, idle_s: float) -> WorkerEnd | None:
        """Return why an idle worker should end now, if it should."""
        if self._is_replaced:
            with contextlib.suppress(Error, TimeoutError, OSError):
                if not (await self._read_own_backlog()).waiting:
                    log.info("replaced", extra={"action": "worker_replaced"})
                    return "replaced"
        if self._options.idle_exit_s is None or idle_s < self._options.idle_exit_s:
            return None
        # While the queue does not answer nobody knows; a machine that is paid for does not wait for that.
        with contextlib.suppress(Error, TimeoutError, OSError):
            if await self._is_kept():
                return None
        log.info("idle", extra={"action": "worker_idle", "seconds": round(idle_s, 1)})
        return "idle"

    async def _read_own_backlog(self) -> Backlog:
        options = self._options
        return await read_backlog(self._fleet.stream, options.own, options.gpu_class, now=self._clock())

    async def _is_kept(self) -> bool:
        """Return whether the worker stays because the scaler wants so many."""
        options = self._options
        floor = await read_floor(self._fleet.control, options.own, options.gpu_class)
        if not floor:
            return False
        workers = await list_workers(self._fleet.workers)
        return is_kept(self._worker_id, workers, options.own, options.gpu_class, floor)

    async def _look_at_rolls(self) -> None:
        with contextlib.suppress(Error, TimeoutError, OSError):
            rolls = await read_rolls(self._fleet.control)
            self._is_replaced = rolls.successor(self._options.own) != self._options.own

    async def _wait_to_be_woken(self, idle_s: float) -> None:
        wait_s = _LOOK_EVERY_S
        if self._options.idle_exit_s is not None:
            # One that stays although it has idled long enough looks again later.
            left_s = self._options.idle_exit_s - idle_s
            wait_s = min(wait_s, left_s if left_s > 0 else _LOOK_EVERY_S)
        if len(self._options.releases) > 1:
            wait_s = min(wait_s, _OTHERS_EVERY_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), wait_s)

    async def _take_ticket(self, puller: MessagePuller) -> "Msg | None":
        try:
            release = await self._choose_release()
            for lane in lanes_of_worker(release, self._options.gpu_class):
                ticket = await puller.take_one(names.JOBS_STREAM, lane.consumer)
                if ticket is not None:
                    return ticket
            self._is_cut_off = False
        except (Error, TimeoutError, OSError) as exc:
            if not self._is_cut_off:
                log.warning("no tickets", extra={"action": "queue_waited_for", "reason": str(exc)})
            self._is_cut_off = True
            await asyncio.sleep(_TRY_AGAIN_S)
            self._woken.set()  # nobody was heard meanwhile, so it does not wait to be woken
            if isinstance(exc, NoRespondersError):
                # Either its leader is being chosen, or somebody has removed the line: then it is made again.
                with contextlib.suppress(Error, TimeoutError, OSError):
                    await self._open_lanes()
        return None

    async def _choose_release(self) -> str:
        warm = self._warm or self._options.own
        now_s = time.monotonic()
        if len(self._options.releases) == 1 or now_s - self._looked_at_s < _OTHERS_EVERY_S:
            return warm
        self._looked_at_s = now_s
        now = self._clock()
        backlogs = {
            release: await read_backlog(self._fleet.stream, release, self._options.gpu_class, now=now)
            for release in self._options.releases
            if release not in self._unopened
        }
        return choose_release(
            backlogs[warm], [backlog for backlog in backlogs.values() if backlog.release != warm], swap_s=self._swap_s
        )

    # -- being woken --------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Hear of new tickets while there is a place. Of all workers that listen, one is woken for each.

        Those of other releases are looked for every two seconds: who has them warm is to hear of them.
        """
        classes = {ANY_CLASS, self._options.gpu_class}
        release = self._warm or self._options.own
        try:
            for gpu_class in classes:
                subject = wake_subject(gpu_class, release)
                self._ears.append(await self._fleet.client.subscribe(subject, queue=_IDLE, cb=self._hear_wake))
        except Error as exc:
            log.warning("not woken", extra={"action": "queue_waited_for", "reason": str(exc)})
            await asyncio.sleep(_TRY_AGAIN_S)

    async def _hear_wake(self, wake: "Msg") -> None:
        self._wakes += 1
        self._woken.set()
        if not self._ears and not wake.data:
            # It was on its way when this worker had taken another ticket. Once: all may have.
            await self._fleet.client.publish(wake.subject, b"passed on")

    def _stop_listening(self) -> None:
        ears, self._ears = self._ears, []
        for ear in ears:
            leaving = asyncio.create_task(self._drain(ear))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def _drain(self, ear: "Subscription") -> None:
        """Stop hearing, after what is on its way was heard."""
        try:
            await ear.drain()  # type: ignore[no-untyped-call]
        except (Error, OSError):
            # By itself nats-py would subscribe again when the connection is back.
            self._fleet.client._remove_sub(ear._id)

    async def _wake_another(self, ticket: "Msg") -> None:
        """Wake one more worker if there is more to take than this ticket; that one does the same."""
        is_more = self._wakes > 1 or bool(ticket.metadata.num_pending)
        self._wakes = 0
        if len(self._running) + 1 >= self._options.concurrency:
            self._stop_listening()
        if is_more:
            with contextlib.suppress(Error):
                gpu_class = names.class_of_ticket(ticket.subject)
                release = names.release_of_ticket(ticket.subject)
                await self._fleet.client.publish(wake_subject(gpu_class, release))

    # -- running ------------------------------------------------------------------------------------------------------

    async def _begin(self, ticket: "Msg", engines: AsyncExitStack) -> None:
        release = names.release_of_ticket(ticket.subject)
        job_id, _ = names.job_of_ticket(ticket.subject)
        before = list(self._running)
        if release != self._warm:
            self._swapped.clear()
            self._stop_listening()

        async def open_handle() -> Handle:
            if release != self._warm and before:
                await asyncio.wait(before)  # they are in the engine that is to go
            try:
                return await self._make_warm(release, engines)
            except ComfypinError as exc:
                self._note_unopened(release, exc)
                raise

        task = asyncio.create_task(self._runner.run(ticket, open_handle))
        self._running[task] = job_id
        if release != self._warm:
            # No ticket is taken during a swap: nobody knows how long it will last.
            swapped = asyncio.create_task(self._swapped.wait())
            await asyncio.wait([task, swapped], return_when=asyncio.FIRST_COMPLETED)
            swapped.cancel()

    def _note_unopened(self, release: str, failure: ComfypinError) -> None:
        """Help a release no more that does not start here; without its own a worker is worth nothing."""
        self._unopened.add(release)
        if release == self._options.own:
            self._failure = failure
            self.stop()

    async def _make_warm(self, release: str, engines: AsyncExitStack) -> Handle:
        if self._warm == release and self._handle is not None:
            return self._handle
        began_s = time.monotonic()
        self._warm, self._handle = None, None
        self._swapped.clear()
        # The old engine ends first: two would not fit into a GPU's memory.
        await engines.aclose()
        self._handle = await engines.enter_async_context(self._open_release(release))
        self._warm = release
        self._swapped.set()
        self._swap_s = time.monotonic() - began_s
        release_name = self._options.releases[release]
        facts = {"action": "release_warm", "release": release_name, "seconds": round(self._swap_s, 2)}
        log.info("release warm", extra=facts)
        return self._handle

    async def _wait_for_a_place(self) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([*self._running, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        self._reap()

    def _reap(self) -> None:
        for task in [task for task in self._running if task.done()]:
            del self._running[task]
            # A worker that was cut off in its last steps leaves its ticket to whoever gets it next.
            if not task.cancelled() and task.result() == "worn out":
                self._failure = WorkerWornOut()
                self.stop()

    async def _finish_jobs(self) -> None:
        """Give what runs the grace; what is not done then goes back to the queue."""
        if self._running:
            await asyncio.wait(list(self._running), timeout=self._options.grace_s)
        # Before the cancels: it is how a runner knows that its job goes back to the queue, and has not ended.
        self._stopping.set()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._reap()

    # -- being known --------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _known(self) -> AsyncIterator[None]:
        """Keep the worker's record while the block runs."""
        telling = asyncio.create_task(self._publish_record_forever())
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            with contextlib.suppress(Error, TimeoutError):
                await self._fleet.workers.drop([self._worker_id])

    async def _publish_record_forever(self) -> None:
        last_record: bytes = b""
        told_at_s = float("-inf")
        looked_at_s = time.monotonic()
        while True:
            if time.monotonic() - looked_at_s > _ROLLS_EVERY_S:
                looked_at_s = time.monotonic()
                await self._look_at_rolls()
            # Without the time, so that a worker of which nothing has changed tells it only with its heartbeat.
            record = self._record()
            if record != last_record or time.monotonic() - told_at_s > HEARTBEAT_S:
                with contextlib.suppress(Error, TimeoutError):
                    await self._fleet.workers.put(self._worker_id, self._record(seen_at=self._clock()))
                    last_record, told_at_s = record, time.monotonic()
            await pause(1)

    def _record(self, *, seen_at: float = 0.0) -> bytes:
        options = self._options
        return WorkerRecord(
            id=self._worker_id,
            warm=self._warm,
            releases=tuple(options.releases.items()),
            gpu_class=options.gpu_class,
            gpu=options.gpu,
            concurrency=options.concurrency,
            jobs=tuple(self._running.values()),
            started_at=self._started_at,
            seen_at=seen_at,
            is_stopping=self._stopping.is_set(),
        ).dump()

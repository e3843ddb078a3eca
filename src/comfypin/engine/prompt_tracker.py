"""One life of an engine, watched: a websocket for progress, queue and history polled beside it for the truth."""

import asyncio
import contextlib
import functools
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable
from typing import TypeAlias

import aiohttp

from comfypin.digest import JsonValue
from comfypin.engine.errors import EngineAnswerInvalid, EngineUnreachable, PromptLost
from comfypin.engine.host import Address, EngineHost
from comfypin.engine.http_transport import Patience, Transport
from comfypin.engine.interface import EngineEvent, Prompt, Warned
from comfypin.engine.messages import (
    Addressed,
    PromptDone,
    PromptEnding,
    PromptMessage,
    Queue,
    parse_jobs,
    parse_message,
    parse_queue,
)
from comfypin.engine.normalize_events import Narrator
from comfypin.engine.prompt_history import HistoryEntry, parse_history
from comfypin.errors import ComfypinError, EngineError
from comfypin.retry import RetryPolicy

log = logging.getLogger(__name__)

# After the first reconnection, which is not waited for.
_RECONNECTS = RetryPolicy(retries=None, base_s=0.5, longest_s=10.0)
_HISTORY_LATE_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_UNCLAIMED = 2000
_KEPT_IN_HISTORY = 50
_QUIETEST = 5
_STEADY_S = 5.0
_OVERTAKEN_S = 0.05

Clock: TypeAlias = float


class Ticket:
    """A prompt that we queued, and what we have heard of it."""

    def __init__(self, prompt: Prompt, client_id: str, *, look_at: Clock) -> None:
        self.prompt = prompt
        self.prompt_id = prompt.prompt_id
        self.server_id = prompt.prompt_id
        self.client_id = client_id
        self.narrator = Narrator()
        self.inbox: asyncio.Queue[EngineEvent | None] = asyncio.Queue()
        self.entry: HistoryEntry | None = None
        self.failure: ComfypinError | None = None
        self.cancelled = False
        self.look_at = look_at
        self.ending = False
        self.heard = False
        self.cut = False
        self.missing_since: Clock | None = None
        self.looks = 0
        self.quiet = 0

    @property
    def settled(self) -> bool:
        """It has ended, well or badly."""
        return self.entry is not None or self.failure is not None

    def tell(self, events: Iterable[EngineEvent]) -> None:
        """Pass events on to whoever iterates over them."""
        for event in events:
            self.inbox.put_nowait(event)

    def settle(self, entry: HistoryEntry) -> None:
        """The history was read."""
        if not self.settled:
            self.entry = entry
            self.inbox.put_nowait(None)

    def fail(self, failure: ComfypinError) -> None:
        """There will be no history."""
        if not self.settled:
            self.failure = failure
            self.inbox.put_nowait(None)


class Link:
    """Follows all our prompts in one life of an engine."""

    def __init__(self, address: Address, transport: Transport, host: EngineHost, patience: Patience) -> None:
        self.address = address
        self.transport = transport
        self._host = host
        self._patience = patience
        self.broken: EngineError | None = None
        self.client_id = uuid.uuid4().hex
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._attempted = asyncio.Event()
        self._wake = asyncio.Event()
        self._open: dict[str, Ticket] = {}
        self._reading: set[str] = set()
        self._posting = 0
        self._unclaimed: list[Addressed] = []
        self._deaf_since: Clock | None = None
        self._lists_jobs: bool | None = None
        self._ended: str | None = None
        self._in_history: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to listen; returns when the websocket is there, or has failed once (then polls alone must do)."""
        for work in (self._listen, self._watch, self._mourn):
            self._spawn(work)
        await self.listening()

    async def listening(self) -> None:
        """Wait for the attempt to connect that is under way, if any: its outcome, not its success."""
        await self._attempted.wait()

    async def close(self) -> None:
        """Stop listening; prompts that are still open fail."""
        self.fail_all(EngineUnreachable(url=self.transport.shown_url, reason="the connection was closed by us"))
        await asyncio.gather(*self._cancel(), return_exceptions=True)

    # -- Tickets --------------------------------------------------------------------------------------------------

    def track(self, prompt: Prompt) -> Ticket:
        """A ticket for a prompt that is about to be posted; what is heard of unknown prompts is kept meanwhile."""
        ticket = Ticket(prompt, self.client_id, look_at=time.monotonic() + self._patience.poll_s)
        ticket.tell(ticket.narrator.wait(len(self._open)) if self._open else ())
        self._open[prompt.prompt_id] = ticket
        self._posting += 1
        return ticket

    def posted(self, ticket: Ticket, server_id: str | None) -> None:
        """The prompt is queued, under this id (old servers choose their own); None: it is not."""
        self._posting -= 1
        self._open.pop(ticket.prompt_id, None)
        if server_id is not None:
            ticket.server_id = server_id
            if self.broken is not None:
                ticket.fail(self.broken)
            if not ticket.settled:
                self._open[server_id] = ticket
        unclaimed, self._unclaimed = self._unclaimed, []
        for addressed in unclaimed:
            self._dispatch(addressed)
        self._wake.set()

    def fail_all(self, failure: EngineError) -> None:
        """The engine is gone, and every prompt with it."""
        for ticket in list(self._open.values()):
            ticket.fail(failure)
        self._open.clear()

    # -- The websocket --------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        attempt = 0
        while True:
            client_id = uuid.uuid4().hex
            try:
                async with self.transport.websocket(client_id) as socket:
                    self.client_id, self._socket = client_id, socket
                    began_at = time.monotonic()
                    self._attempted.set()
                    async for message in socket:
                        if message.type is aiohttp.WSMsgType.TEXT:
                            self._hear(message.data)
                # Something that takes every connection and drops it at once is not asked without end.
                attempt = 0 if time.monotonic() - began_at > _STEADY_S else attempt
            except EngineUnreachable as exc:
                log.debug("websocket failed", extra={"action": "websocket_failed", "reason": exc.message})
            self._socket = None
            self._attempted.set()
            self._orphan(client_id)
            await asyncio.sleep((_RECONNECTS.delay_s(attempt) or 0.0) if attempt else 0.0)
            if attempt == 0:
                self._attempted.clear()
            attempt += 1

    def _orphan(self, client_id: str) -> None:
        """Events are never replayed, nor sent to another client: these prompts are followed by polls from now on."""
        for ticket in self._open.values():
            if ticket.client_id == client_id and not ticket.ending:
                message = "The engine's progress connection was cut: steps are no longer shown, the outputs will be."
                ticket.tell([Warned(message=message)])
            ticket.cut = ticket.cut or ticket.client_id == client_id
            ticket.look_at = 0.0
        self._wake.set()

    def _hear(self, text: str) -> None:
        message = parse_message(text)
        if isinstance(message, Addressed):
            self._dispatch(message)
        elif message is not None:
            self._hasten_orphans()

    def _hasten_orphans(self) -> None:
        """The queue changed: prompts of an earlier connection hear of it in no other way."""
        orphans = [ticket for ticket in self._open.values() if ticket.client_id != self.client_id]
        for ticket in orphans:
            ticket.look_at = 0.0
        if orphans:
            self._wake.set()

    def _dispatch(self, addressed: Addressed) -> None:
        ticket = self._open.get(addressed.prompt_id or "")
        if ticket is None:
            if self._posting and len(self._unclaimed) < _UNCLAIMED:
                self._unclaimed.append(addressed)
            return
        now = time.monotonic()
        ticket.heard = True
        ticket.quiet = 0
        ticket.look_at = now + self._patience.poll_s
        ticket.tell(ticket.narrator.hear(addressed.message, now))
        self._hurry(ticket, addressed.message, now)

    def _hurry(self, ticket: Ticket, message: PromptMessage, now: Clock) -> None:
        if isinstance(message, PromptDone):
            ticket.ending = True
            self._spawn(functools.partial(self._read_history, ticket))
        elif isinstance(message, PromptEnding):
            ticket.ending = True
            ticket.look_at = now + _HISTORY_LATE_S[0]
            self._wake.set()

    # -- The polls ------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await self._until_due()
            now = time.monotonic()
            due = [ticket for ticket in self._open.values() if ticket.look_at <= now]
            if not due:
                continue
            try:
                await self._look(due)
                self._deaf_since = None
            except EngineError as exc:
                await self._endure(exc, due)

    async def _until_due(self) -> None:
        self._wake.clear()
        soonest = min((ticket.look_at for ticket in self._open.values()), default=None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if soonest is None else max(0.0, soonest - time.monotonic())):
                await self._wake.wait()

    async def _endure(self, failure: EngineError, due: list[Ticket]) -> None:
        """An engine that loads a model is deaf for a while; one that stays deaf has failed its prompts."""
        now = time.monotonic()
        self._deaf_since = self._deaf_since or now
        for ticket in due:
            ticket.cut = ticket.cut or isinstance(failure, EngineUnreachable)
            ticket.look_at = now + self._patience.poll_s
        if now - self._deaf_since > self._patience.unreachable_s:
            if isinstance(failure, EngineUnreachable):
                failure = await self._host.explain(self.address, failure)
            self.fail_all(failure)
            self._deaf_since = None

    async def _look(self, due: list[Ticket]) -> None:
        queue = await self.queue() if any(not ticket.ending for ticket in due) else Queue()
        now = time.monotonic()
        for ticket in due:
            # The queue's answer holds every graph in it: a node that takes minutes need not be asked for each second.
            ticket.quiet = min(ticket.quiet + 1, _QUIETEST)
            ticket.look_at = now + self._patience.poll_s * ticket.quiet
            ahead = queue.ahead_of(ticket.server_id)
            if ahead is not None:
                ticket.missing_since = None
                ticket.tell(ticket.narrator.wait(ahead))
            elif ticket.server_id in queue.running:
                ticket.missing_since = None
                ticket.tell(ticket.narrator.start())
            else:
                await self._read_history(ticket)

    async def queue(self) -> Queue:
        """The engine's queue, by /api/jobs if it has that: /queue repeats every graph. Raises `EngineError`."""
        if self._lists_jobs is not False:
            answer = await self.transport.get("/api/jobs", {"status": "pending,in_progress"})
            jobs = parse_jobs(answer.body) if answer.status == 200 else None
            if jobs is not None:
                self._lists_jobs = True
                return jobs
            if self._lists_jobs is None and 400 <= answer.status < 500:
                self._lists_jobs = False
        answer = await self.transport.get("/queue")
        queue = parse_queue(answer.body) if answer.status == 200 else None
        if queue is None:
            raise EngineAnswerInvalid(request="GET /queue", status=answer.status, body=answer.text)
        return queue

    async def _read_history(self, ticket: Ticket) -> None:
        """Settle the ticket, if the history is there; else look again soon, and in the end give the prompt up."""
        if ticket.settled or ticket.server_id in self._reading:
            return
        self._reading.add(ticket.server_id)
        try:
            entry = await self.history(ticket.server_id)
        except EngineError:
            ticket.look_at = time.monotonic() + _HISTORY_LATE_S[-1]
            raise
        finally:
            self._reading.discard(ticket.server_id)
        if entry is None:
            await self._miss(ticket)
        else:
            if not ticket.heard:
                # The history may have overtaken what the websocket brings: let it arrive before we call it silent.
                await asyncio.sleep(_OVERTAKEN_S)
            self._settle(ticket, entry)

    async def history(self, server_id: str) -> HistoryEntry | None:
        """What the engine remembers of a prompt; None where it has not ended, or is unknown. Raises `EngineError`."""
        answer = await self.transport.get(f"/history/{server_id}")
        entry = parse_history(answer.body, server_id) if answer.status == 200 else None
        if entry is None:
            raise EngineAnswerInvalid(request="GET /history", status=answer.status, body=answer.text)
        return None if entry == "unknown" else entry

    def _settle(self, ticket: Ticket, entry: HistoryEntry) -> None:
        self._open.pop(ticket.server_id, None)
        self._ended = ticket.server_id
        self._forget_older(ticket.server_id)
        if not ticket.heard and self._socket is not None and ticket.client_id == self.client_id:
            ticket.tell(
                [Warned(message="The engine's progress connection was silent: the result was read without it.")]
            )
            self._spawn(self._socket.close)
        ticket.settle(entry)

    def _forget_older(self, server_id: str) -> None:
        """Take what was read long ago out of our own engine's history, which keeps the graphs of 10,000 prompts."""
        if self.address.folders is None:
            return  # somebody else's engine, and history
        self._in_history.append(server_id)
        if len(self._in_history) > 2 * _KEPT_IN_HISTORY:
            older: list[JsonValue] = [*self._in_history[:_KEPT_IN_HISTORY]]
            del self._in_history[:_KEPT_IN_HISTORY]

            async def forget() -> None:
                await self.transport.post("/history", {"delete": older})

            self._spawn(forget)

    async def _miss(self, ticket: Ticket) -> None:
        now = time.monotonic()
        if ticket.missing_since is None:
            ticket.missing_since, ticket.looks = now, 0
        if now - ticket.missing_since > (self._patience.history_s if ticket.ending else self._patience.lost_s):
            restarted = ticket.cut and not await self._remembers()
            self._open.pop(ticket.server_id, None)
            ticket.fail(PromptLost(prompt_id=ticket.prompt_id, restarted=restarted))
            return
        ticket.look_at = now + _HISTORY_LATE_S[min(ticket.looks, len(_HISTORY_LATE_S) - 1)]
        ticket.looks += 1
        self._wake.set()

    async def _remembers(self) -> bool:
        """Whether the engine still knows the last prompt that ended: then a lost one was taken out, not forgotten."""
        return self._ended is not None and await self.history(self._ended) is not None

    # -- Death ----------------------------------------------------------------------------------------------------

    async def _mourn(self) -> None:
        self.broken = await self._host.died(self.address)
        self.fail_all(self.broken)
        self._cancel()

    def _cancel(self) -> list[asyncio.Task[None]]:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        return tasks

    def _spawn(self, work: Callable[[], Coroutine[object, object, object]]) -> None:
        task = asyncio.get_running_loop().create_task(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(work: Callable[[], Coroutine[object, object, object]]) -> None:
    """Run to the end; an engine that does not answer here is noticed by the polls, which have the deadlines."""
    try:
        await work()
    except EngineError as exc:
        log.debug("engine did not answer", extra={"action": "engine_silent", "reason": exc.message})

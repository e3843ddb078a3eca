"""Follows prompts from one start of an engine to its end: by websocket for progress, by polls for the truth."""

import asyncio
import contextlib
import functools
import logging
import time
import uuid
from collections.abc import Callable, Coroutine

import aiohttp

from comfypin.digest import JsonValue
from comfypin.engine.errors import EngineAnswerInvalid, EngineUnreachable, PromptLost
from comfypin.engine.host import EngineAddress, EngineHost
from comfypin.engine.http_transport import EngineTimeouts, EngineTransport
from comfypin.engine.interface import Prompt, Warned
from comfypin.engine.messages import (
    CLIENT_FEATURES,
    AddressedMessage,
    EngineQueue,
    PromptDone,
    PromptEnding,
    PromptMessage,
    parse_binary,
    parse_jobs,
    parse_message,
    parse_queue,
)
from comfypin.engine.prompt_history import HistoryEntry, parse_history
from comfypin.engine.tracked_prompt import Clock, TrackedPrompt
from comfypin.errors import EngineError
from comfypin.retry import RetryPolicy

log = logging.getLogger(__name__)

# After the first reconnection, which is not waited for.
_RECONNECTS = RetryPolicy(retries=None, base_s=0.5, longest_s=10.0)
# ComfyUI writes the history a moment after the message that ends a prompt: look again soon, then less often.
_HISTORY_LATE_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
# Messages may overtake the answer to POST /prompt, which tells us the id; a flood is not kept.
_UNCLAIMED = 2000
# So many of our last prompts stay in the history of our own engine, for whoever looks at it.
_KEPT_IN_HISTORY = 50
# Without any message polls become up to five times rarer, because /queue repeats every graph that waits.
_QUIETEST = 5
# A connection that lived this long was a good one: reconnect without a pause.
_STEADY_S = 5.0
# Long enough for a message that is already in the socket, too short for a user to feel.
_OVERTAKEN_S = 0.05


class PromptTracker:
    """Follows all our prompts from one start of an engine to its end."""

    def __init__(
        self, address: EngineAddress, transport: EngineTransport, host: EngineHost, timeouts: EngineTimeouts
    ) -> None:
        self.address = address
        self.transport = transport
        self._host = host
        self._timeouts = timeouts
        self.broken: EngineError | None = None
        self.client_id = uuid.uuid4().hex
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        # Set once an attempt to connect has ended, well or badly; polls work without a websocket.
        self._attempted = asyncio.Event()
        # Set when a prompt must be looked at sooner than its poll is due.
        self._wake = asyncio.Event()
        self._open_prompts: dict[str, TrackedPrompt] = {}
        # A message and a poll may both want the history of a prompt: one request is enough.
        self._reading: set[str] = set()
        # While a POST is under way, messages about unknown ids may be about its prompt.
        self._posting = 0
        # Messages that came before the answer to POST told us which prompt they are about.
        self._unclaimed: list[AddressedMessage] = []
        # When the polls began to fail; None while they succeed.
        self._deaf_since: Clock | None = None
        # None until the engine was asked for /api/jobs, which older ones do not have.
        self._lists_jobs: bool | None = None
        # A prompt the engine must still know unless it restarted.
        self._ended: str | None = None
        # What we have read, and the engine still keeps; oldest first.
        self._in_history: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Start to listen; return when the websocket is open, or has failed once (then polls must suffice)."""
        for work in (self._listen_websocket, self._poll_prompts, self._fail_on_crash):
            self._spawn_task(work)
        await self.wait_until_listening()

    async def wait_until_listening(self) -> None:
        """Wait until the current attempt to connect has ended, well or badly."""
        await self._attempted.wait()

    async def close(self) -> None:
        """Stop listening; prompts that are still open fail."""
        self.fail_all(EngineUnreachable(url=self.transport.shown_url, reason="comfypin closed the connection"))
        await asyncio.gather(*self._cancel_tasks(), return_exceptions=True)

    # -- Tracked prompts ------------------------------------------------------------------------------------------

    def track_prompt(self, prompt: Prompt) -> TrackedPrompt:
        """Track a prompt that is about to be posted; messages about unknown prompts are kept meanwhile."""
        tracked_prompt = TrackedPrompt(prompt, self.client_id, look_at=time.monotonic() + self._timeouts.poll_s)
        tracked_prompt.publish_events(
            tracked_prompt.normalizer.see_waiting(len(self._open_prompts)) if self._open_prompts else ()
        )
        self._open_prompts[prompt.prompt_id] = tracked_prompt
        self._posting += 1
        return tracked_prompt

    def confirm_posted(self, tracked_prompt: TrackedPrompt, server_id: str | None) -> None:
        """Note that the prompt is queued under this id (old servers choose their own), or None: that it is not."""
        self._posting -= 1
        self._open_prompts.pop(tracked_prompt.prompt_id, None)
        if server_id is not None:
            tracked_prompt.server_id = server_id
            if self.broken is not None:
                tracked_prompt.fail(self.broken)
            if not tracked_prompt.settled:
                self._open_prompts[server_id] = tracked_prompt
        unclaimed, self._unclaimed = self._unclaimed, []
        # Messages for other prompts that are still being posted go back onto the list.
        for addressed in unclaimed:
            self._dispatch_message(addressed)
        self._wake.set()

    def fail_all(self, failure: EngineError) -> None:
        """Fail every prompt, because the engine is gone."""
        for tracked_prompt in list(self._open_prompts.values()):
            tracked_prompt.fail(failure)
        self._open_prompts.clear()

    # -- The websocket --------------------------------------------------------------------------------------------

    async def _listen_websocket(self) -> None:
        """Read the websocket for ever, reconnecting when it is cut."""
        attempt = 0
        while True:
            client_id = uuid.uuid4().hex
            try:
                async with self.transport.open_websocket(client_id) as socket:
                    # Only now: a prompt posted with the new id before it was connected would get no events.
                    self.client_id, self._socket = client_id, socket
                    began_at = time.monotonic()
                    self._attempted.set()
                    await socket.send_str(CLIENT_FEATURES)
                    async for message in socket:
                        if message.type is aiohttp.WSMsgType.TEXT:
                            self._handle_text(message.data)
                        elif message.type is aiohttp.WSMsgType.BINARY:
                            self._handle_binary(message.data)
                # Something that takes every connection and drops it at once is not asked without end.
                attempt = 0 if time.monotonic() - began_at > _STEADY_S else attempt
            except EngineUnreachable as exc:
                log.debug("websocket failed", extra={"action": "websocket_failed", "reason": exc.message})
            self._socket = None
            self._attempted.set()
            self._orphan_prompts(client_id)
            await asyncio.sleep((_RECONNECTS.delay_s(attempt) or 0.0) if attempt else 0.0)
            # Prompts that are posted from now on wait for the next attempt; later attempts hold nobody up.
            if attempt == 0:
                self._attempted.clear()
            attempt += 1

    def _orphan_prompts(self, client_id: str) -> None:
        """Follow these prompts by polls from now on: events are never replayed, nor sent to another client."""
        for tracked_prompt in self._open_prompts.values():
            if tracked_prompt.client_id == client_id and not tracked_prompt.ending:
                message = "The engine's progress connection was cut: the outputs follow, but no more progress is shown."
                tracked_prompt.publish_events([Warned(message=message)])
            tracked_prompt.connection_cut = tracked_prompt.connection_cut or tracked_prompt.client_id == client_id
            tracked_prompt.next_look_at = 0.0
        self._wake.set()

    def _handle_text(self, message_text: str) -> None:
        message = parse_message(message_text)
        if isinstance(message, AddressedMessage):
            self._dispatch_message(message)
        # Only the length of the queue changed.
        elif message is not None:
            self._hasten_orphans()

    def _handle_binary(self, message_bytes: bytes) -> None:
        """Pass a preview on to the prompt that it is of, if that wants any; others are not worth keeping."""
        if not any(tracked_prompt.prompt.with_previews for tracked_prompt in self._open_prompts.values()):
            return
        addressed = parse_binary(message_bytes)
        if addressed is None:
            return
        # An older engine does not say whose preview it is: it is that of the prompt that runs.
        prompt_id = addressed.prompt_id or self._running_prompt_id()
        tracked_prompt = self._open_prompts.get(prompt_id or "")
        if tracked_prompt is not None and tracked_prompt.prompt.with_previews:
            self._dispatch_message(AddressedMessage(prompt_id, addressed.message))

    def _running_prompt_id(self) -> str | None:
        running_ids = [
            prompt_id
            for prompt_id, tracked_prompt in self._open_prompts.items()
            if tracked_prompt.normalizer.started and not tracked_prompt.ending
        ]
        return running_ids[0] if len(running_ids) == 1 else None

    def _hasten_orphans(self) -> None:
        """Poll prompts of an earlier connection now: they learn of a queue change in no other way."""
        orphans = [
            tracked_prompt
            for tracked_prompt in self._open_prompts.values()
            if tracked_prompt.client_id != self.client_id
        ]
        for tracked_prompt in orphans:
            tracked_prompt.next_look_at = 0.0
        if orphans:
            self._wake.set()

    def _dispatch_message(self, addressed: AddressedMessage) -> None:
        tracked_prompt = self._open_prompts.get(addressed.prompt_id or "")
        if tracked_prompt is None:
            if self._posting and len(self._unclaimed) < _UNCLAIMED:
                self._unclaimed.append(addressed)
            return
        now = time.monotonic()
        tracked_prompt.was_heard = True
        tracked_prompt.quiet_polls = 0
        tracked_prompt.next_look_at = now + self._timeouts.poll_s
        tracked_prompt.publish_events(tracked_prompt.normalizer.see_message(addressed.message, now))
        self._hasten_look(tracked_prompt, addressed.message, now)

    def _hasten_look(self, tracked_prompt: TrackedPrompt, message: PromptMessage, now: Clock) -> None:
        if isinstance(message, PromptDone):
            tracked_prompt.ending = True
            self._spawn_task(functools.partial(self._read_history, tracked_prompt))
        elif isinstance(message, PromptEnding):
            tracked_prompt.ending = True
            tracked_prompt.next_look_at = now + _HISTORY_LATE_S[0]
            self._wake.set()

    # -- The polls ------------------------------------------------------------------------------------------------

    async def _poll_prompts(self) -> None:
        """Look at prompts whose poll is due, for ever."""
        while True:
            await self._wait_until_due()
            now = time.monotonic()
            due = [
                tracked_prompt for tracked_prompt in self._open_prompts.values() if tracked_prompt.next_look_at <= now
            ]
            if not due:
                continue
            try:
                await self._poll_queue(due)
                self._deaf_since = None
            except EngineError as exc:
                await self._handle_unreachable(exc, due)

    async def _wait_until_due(self) -> None:
        self._wake.clear()
        soonest = min((tracked_prompt.next_look_at for tracked_prompt in self._open_prompts.values()), default=None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if soonest is None else max(0.0, soonest - time.monotonic())):
                await self._wake.wait()

    async def _handle_unreachable(self, failure: EngineError, due: list[TrackedPrompt]) -> None:
        """Fail the prompts if the engine stays deaf; one that loads a model is deaf for a while."""
        now = time.monotonic()
        self._deaf_since = self._deaf_since or now
        for tracked_prompt in due:
            tracked_prompt.connection_cut = tracked_prompt.connection_cut or isinstance(failure, EngineUnreachable)
            tracked_prompt.next_look_at = now + self._timeouts.poll_s
        if now - self._deaf_since > self._timeouts.unreachable_s:
            if isinstance(failure, EngineUnreachable):
                failure = await self._host.explain_failure(self.address, failure)
            self.fail_all(failure)
            self._deaf_since = None

    async def _poll_queue(self, due: list[TrackedPrompt]) -> None:
        """Find out where each prompt is: waiting, running, or in the history."""
        engine_queue = (
            await self.fetch_queue() if any(not tracked_prompt.ending for tracked_prompt in due) else EngineQueue()
        )
        now = time.monotonic()
        for tracked_prompt in due:
            # The queue's answer holds every graph in it: a node that takes minutes need not be asked for each second.
            tracked_prompt.quiet_polls = min(tracked_prompt.quiet_polls + 1, _QUIETEST)
            tracked_prompt.next_look_at = now + self._timeouts.poll_s * tracked_prompt.quiet_polls
            ahead = engine_queue.ahead_of(tracked_prompt.server_id)
            if ahead is not None:
                tracked_prompt.missing_since = None
                tracked_prompt.publish_events(tracked_prompt.normalizer.see_waiting(ahead))
            elif tracked_prompt.server_id in engine_queue.running:
                tracked_prompt.missing_since = None
                tracked_prompt.publish_events(tracked_prompt.normalizer.see_running())
            else:
                await self._read_history(tracked_prompt)

    async def fetch_queue(self) -> EngineQueue:
        """Return the engine's queue, by /api/jobs if it has that: /queue repeats every graph. Raises `EngineError`."""
        if self._lists_jobs is not False:
            response = await self.transport.get_json("/api/jobs", {"status": "pending,in_progress"})
            jobs = parse_jobs(response.body) if response.status == 200 else None
            if jobs is not None:
                self._lists_jobs = True
                return jobs
            if self._lists_jobs is None and 400 <= response.status < 500:
                self._lists_jobs = False
        response = await self.transport.get_json("/queue")
        engine_queue = parse_queue(response.body) if response.status == 200 else None
        if engine_queue is None:
            raise EngineAnswerInvalid(request="GET /queue", status=response.status, _body=response.text)
        return engine_queue

    async def _read_history(self, tracked_prompt: TrackedPrompt) -> None:
        """Settle the prompt if its history exists; else look again soon, and finally give the prompt up."""
        if tracked_prompt.settled or tracked_prompt.server_id in self._reading:
            return
        self._reading.add(tracked_prompt.server_id)
        try:
            history_entry = await self.fetch_history(tracked_prompt.server_id)
        except EngineError:
            # The caller counts how long the engine stays deaf; just look again.
            tracked_prompt.next_look_at = time.monotonic() + _HISTORY_LATE_S[-1]
            raise
        finally:
            self._reading.discard(tracked_prompt.server_id)
        if history_entry is None:
            await self._handle_missing(tracked_prompt)
        else:
            if not tracked_prompt.was_heard:
                # The history may have overtaken what the websocket brings: let it arrive before we call it silent.
                await asyncio.sleep(_OVERTAKEN_S)
            self._settle_prompt(tracked_prompt, history_entry)

    async def fetch_history(self, server_id: str) -> HistoryEntry | None:
        """Return the history of a prompt; None if it is unknown or has not ended. Raises `EngineError`."""
        response = await self.transport.get_json(f"/history/{server_id}")
        history_entry = parse_history(response.body, server_id) if response.status == 200 else None
        if history_entry is None:
            raise EngineAnswerInvalid(request="GET /history", status=response.status, _body=response.text)
        return None if history_entry == "unknown" else history_entry

    def _settle_prompt(self, tracked_prompt: TrackedPrompt, history_entry: HistoryEntry) -> None:
        self._open_prompts.pop(tracked_prompt.server_id, None)
        self._ended = tracked_prompt.server_id
        self._forget_older_prompts(tracked_prompt.server_id)
        if not tracked_prompt.was_heard and self._socket is not None and tracked_prompt.client_id == self.client_id:
            tracked_prompt.publish_events(
                [Warned(message="The engine's progress connection was silent: the result was read from its history.")]
            )
            # A websocket that says nothing is worth nothing: the next one may be better.
            self._spawn_task(self._socket.close)
        tracked_prompt.settle(history_entry)

    def _forget_older_prompts(self, server_id: str) -> None:
        """Delete what was read long ago from the history of our engine, which keeps the graphs of 10,000 prompts."""
        if self.address.folders is None:
            # It is somebody else's engine, and history.
            return
        self._in_history.append(server_id)
        # In batches, so that not every prompt costs a request.
        if len(self._in_history) > 2 * _KEPT_IN_HISTORY:
            older_ids: list[JsonValue] = [*self._in_history[:_KEPT_IN_HISTORY]]
            del self._in_history[:_KEPT_IN_HISTORY]

            async def delete_from_history() -> None:
                await self.transport.post_json("/history", {"delete": older_ids})

            self._spawn_task(delete_from_history)

    async def _handle_missing(self, tracked_prompt: TrackedPrompt) -> None:
        """Look again for a prompt that neither queue nor history knows, and in the end give it up."""
        now = time.monotonic()
        if tracked_prompt.missing_since is None:
            tracked_prompt.missing_since, tracked_prompt.history_looks = now, 0
        if now - tracked_prompt.missing_since > (
            self._timeouts.history_s if tracked_prompt.ending else self._timeouts.lost_s
        ):
            # Only an engine that was away can have restarted; one that was not has lost the prompt otherwise.
            restarted = tracked_prompt.connection_cut and not await self._engine_remembers()
            self._open_prompts.pop(tracked_prompt.server_id, None)
            tracked_prompt.fail(PromptLost(prompt_id=tracked_prompt.prompt_id, restarted=restarted))
            return
        tracked_prompt.next_look_at = now + _HISTORY_LATE_S[min(tracked_prompt.history_looks, len(_HISTORY_LATE_S) - 1)]
        tracked_prompt.history_looks += 1
        self._wake.set()

    async def _engine_remembers(self) -> bool:
        """Return whether the engine knows the last prompt that ended: if not, it restarted and forgot ours too."""
        return self._ended is not None and await self.fetch_history(self._ended) is not None

    # -- Death ----------------------------------------------------------------------------------------------------

    async def _fail_on_crash(self) -> None:
        # Before anything else, so that a prompt that is being posted fails too.
        self.broken = await self._host.wait_for_crash(self.address)
        self.fail_all(self.broken)
        self._cancel_tasks()

    def _cancel_tasks(self) -> list[asyncio.Task[None]]:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        return tasks

    def _spawn_task(self, work: Callable[[], Coroutine[object, object, object]]) -> None:
        task = asyncio.get_running_loop().create_task(_ignore_silence(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _ignore_silence(work: Callable[[], Coroutine[object, object, object]]) -> None:
    """Run to the end; ignore an engine that does not answer, because the polls notice it and have the deadlines."""
    try:
        await work()
    except EngineError as exc:
        log.debug("engine did not answer", extra={"action": "engine_silent", "reason": exc.message})

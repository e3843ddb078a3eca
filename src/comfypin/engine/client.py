"""The engine behind an HTTP address: prompts in, events and outputs out, whatever becomes of the connection."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace

import aiohttp

from comfypin.digest import JsonValue
from comfypin.engine.cleanup import Leftovers
from comfypin.engine.errors import EngineAnswerInvalid, EngineUnreachable, NodeFailed, PromptInterrupted, PromptLost
from comfypin.engine.host import Address, EngineHost, Folders
from comfypin.engine.http_transport import Answer, Patience, Transport
from comfypin.engine.input_files import Feeder
from comfypin.engine.interface import Catalogue, EngineEvent, Prompt, PromptOutputs, Warned
from comfypin.engine.messages import parse_cancelled
from comfypin.engine.prompt_history import HistoryEntry, Interrupted, Raised, Succeeded
from comfypin.engine.prompt_results import collect_outputs
from comfypin.engine.prompt_tracker import Link, Ticket
from comfypin.engine.rejection import Refusal, parse_refusal
from comfypin.errors import ComfypinError, EngineError
from comfypin.retry import Failures, RetryPolicy
from comfypin.workflow.errors import WorkflowRejected
from comfypin.workflow.object_info import EngineCatalogue, to_catalogue

_KEPT_TICKETS = 1000
_CATALOGUE_S = 30.0
_FIRST_LOOK_S = 0.05
_POSTS = RetryPolicy(retries=3, base_s=0.2, longest_s=1.0)
_FULL_DISK = ("No space left on device", "Disk quota exceeded")
# Before this version /interrupt stops whatever runs: https://github.com/Comfy-Org/ComfyUI/pull/9607
_TARGETED_INTERRUPT = (0, 3, 57)


class HttpEngine:
    """Implements `Engine` against a ComfyUI's HTTP API.

    What a caller may rely on:
    - Each prompt needs an id of its own; submitting a job again after `EngineCrashed` or `PromptLost` needs a new one.
    - When the engine's process dies, `events` of every prompt in it raises `EngineCrashed` at once. Where the process
      is ours, the next `submit` starts it again (with back-off), so a job is requeued by submitting it once more.
    - `cancel` may be called at any time and from `finally`; afterwards `events` raises `PromptInterrupted`.
    """

    def __init__(
        self,
        host: EngineHost,
        session: aiohttp.ClientSession,
        patience: Patience | None = None,
        *,
        leftovers: Leftovers | None = None,
    ) -> None:
        self._host = host
        self._session = session
        self._patience = patience or Patience()
        self._link: Link | None = None
        self._linking = asyncio.Lock()
        self._tickets: dict[str, tuple[Ticket, Link]] = {}
        self._leftovers = leftovers or Leftovers()
        self._catalogue: tuple[Link, float, Catalogue] | None = None

    async def close(self) -> None:
        """End the connection; open prompts fail, what runs in the engine goes on there."""
        if self._link is not None:
            await self._link.close()

    async def address(self) -> Address:
        """Where the engine is, started where that is ours to do. Raises `EngineStartFailed`."""
        return await self._host.address()

    async def catalogue(self) -> Catalogue:
        """The node classes, asked for again when the last answer is half a minute old."""
        link = await self._linked()
        if self._catalogue is not None:
            known_link, at_s, catalogue = self._catalogue
            if known_link is link and time.monotonic() - at_s < _CATALOGUE_S:
                return catalogue
        try:
            answer = await link.transport.get("/object_info")
        except EngineUnreachable as exc:
            raise await self._host.explain(link.address, exc) from exc
        if answer.status != 200 or not isinstance(answer.body, dict):
            raise EngineAnswerInvalid(request="GET /object_info", status=answer.status, body=answer.text)
        catalogue = EngineCatalogue(to_catalogue(answer.body), await self._replacements(link))
        self._catalogue = (link, time.monotonic(), catalogue)
        return catalogue

    async def _replacements(self, link: Link) -> Mapping[str, JsonValue]:
        """What the engine says of replaced classes; nothing from an engine before 0.33, which has no such route."""
        try:
            answer = await link.transport.get("/node_replacements")
        except EngineUnreachable as exc:
            raise await self._host.explain(link.address, exc) from exc
        return answer.body if answer.status == 200 and isinstance(answer.body, dict) else {}

    async def submit(self, prompt: Prompt) -> None:
        """Bring the inputs and queue the prompt. Raises `WorkflowRejected`, `InputFileInvalid` or `EngineError`."""
        link = await self._linked()
        self._leftovers.begin(prompt.prompt_id, prompt.mark)
        try:
            graph = await Feeder(link.transport, link.address.folders).feed(
                prompt.prompt_id, prompt.graph, prompt.inputs
            )
            await link.listening()
            await self._post(link, replace(prompt, graph=graph))
        except BaseException as exc:
            await self._clear(link, prompt)
            await self._discard(link, prompt)
            if isinstance(exc, EngineUnreachable):
                raise await self._host.explain(link.address, exc) from exc
            raise

    async def events(self, prompt_id: str) -> AsyncGenerator[EngineEvent, None]:
        """What happens to a submitted prompt; see `Engine.events`."""
        ticket, link = self._ticket(prompt_id)
        while not (ticket.settled and ticket.inbox.empty()):
            event = await ticket.inbox.get()
            if event is not None:
                yield event
        await self._clear(link, ticket.prompt)
        if ticket.failure is not None or ticket.entry is None or not isinstance(ticket.entry.verdict, Succeeded):
            await self._discard(link, ticket.prompt)
        if ticket.failure is not None or ticket.entry is None:
            raise self._failure(ticket)
        self._judge(ticket, link, ticket.entry)
        for event in ticket.narrator.end(ticket.entry.cached, time.monotonic()):
            yield event
        if ticket.entry.verdict == Succeeded(certain=False):
            yield Warned(message="The engine kept no status of the prompt: its outputs were taken as they are.")

    async def outputs(self, prompt_id: str) -> PromptOutputs:
        """The files and texts of a prompt that succeeded. Raises `EngineError`."""
        ticket, link = self._ticket(prompt_id)
        entry = ticket.entry or await link.history(ticket.server_id)
        if entry is None:
            raise PromptLost(prompt_id=prompt_id)
        return await collect_outputs(entry, ticket.prompt, link.transport, link.address.folders, self._leftovers)

    async def cancel(self, prompt_id: str) -> None:
        """Take the prompt out of the queue, or stop it where it runs, and nothing else; see `Engine.cancel`."""
        found = self._tickets.get(prompt_id)
        if found is None or found[0].settled:
            return
        ticket, link = found
        ticket.cancelled = True
        with contextlib.suppress(EngineError):
            # An engine that cannot be asked runs nothing of ours, or is stopped with its process.
            await self._stop(link, ticket.server_id)
        await self._clear(link, ticket.prompt)
        await self._discard(link, ticket.prompt)

    # -- Queueing -------------------------------------------------------------------------------------------------

    async def _linked(self) -> Link:
        async with self._linking:
            address = await self._host.address()
            if self._link is not None and self._link.broken is None and self._link.address == address:
                return self._link
            if self._link is not None:
                await self._link.close()
            transport = Transport(address.url, self._session, self._patience)
            self._link = Link(address, transport, self._host, self._patience)
            await self._link.open()
            return self._link

    async def _post(self, link: Link, prompt: Prompt) -> None:
        ticket = link.track(prompt)
        # From here on `cancel` finds the prompt: if we are stopped while we post, it may be queued all the same.
        self._remember(prompt.prompt_id, ticket, link)
        try:
            server_id, refusal = await self._queue(link, prompt, ticket.client_id)
        except Exception:
            link.posted(ticket, None)
            del self._tickets[prompt.prompt_id]
            raise
        except BaseException:
            link.posted(ticket, None)
            raise
        link.posted(ticket, None if refusal else server_id)
        if refusal is not None:
            del self._tickets[prompt.prompt_id]
            await self._stop(link, server_id)
            dropped = ", ".join(refusal.outputs) or "some"
            raise WorkflowRejected(
                reason=f"{refusal.reason}; it would have run without the outputs of node {dropped}",
                problems=refusal.problems,
            )

    async def _queue(self, link: Link, prompt: Prompt, client_id: str) -> tuple[str, Refusal | None]:
        """POST /prompt: the server's id for the prompt, and what is wrong with the branches that it dropped."""
        body: dict[str, JsonValue] = {
            "prompt": prompt.graph.to_prompt(),
            "prompt_id": prompt.prompt_id,
            "client_id": client_id,
            "extra_data": prompt.extra_data,
        }
        answer = await self._posted(link, prompt.prompt_id, body)
        if answer is None:
            return prompt.prompt_id, None
        refusal = parse_refusal(answer.body)
        if answer.status == 200 and isinstance(answer.body, dict) and isinstance(answer.body.get("prompt_id"), str):
            return str(answer.body["prompt_id"]), refusal
        if 400 <= answer.status < 500 and refusal is not None:
            raise WorkflowRejected(reason=refusal.reason, problems=refusal.problems)
        if answer.status == 413:
            raise WorkflowRejected(
                reason="it is larger than the engine takes (100 MB unless it was started with --max-upload-size)"
            )
        if answer.status == 200 and await self._knows(link, prompt.prompt_id):
            return prompt.prompt_id, None
        # A 500 is what a ComfyUI says that stumbled over the graph: its traceback is in its log alone.
        log_tail = self._host.log_tail() if answer.status >= 500 else ()
        raise EngineAnswerInvalid(request="POST /prompt", status=answer.status, body=answer.text, log_tail=log_tail)

    async def _posted(self, link: Link, prompt_id: str, body: JsonValue) -> Answer | None:
        """POST a prompt; None if the answer was lost and the engine has it. What it never got is sent again."""
        failures = Failures(_POSTS)
        while True:
            try:
                return await link.transport.post("/prompt", body)
            except EngineUnreachable:
                # The answer was lost; the prompt perhaps not. It has an id of our own, so ask.
                while (known := await self._knows(link, prompt_id)) is not True:
                    pause_s = failures.add()
                    if pause_s is None or link.broken is not None:
                        raise
                    await asyncio.sleep(pause_s)
                    if known is False and await self._keeps_ids(link):
                        break
                if known:
                    return None

    async def _keeps_ids(self, link: Link) -> bool:
        """Whether the engine is known to queue prompts under the ids that we gave them; older ones made their own."""
        with contextlib.suppress(EngineError):
            return await self._version(link) >= _TARGETED_INTERRUPT
        return False

    async def _knows(self, link: Link, prompt_id: str) -> bool | None:
        """Return whether the engine has the prompt, in its queue or its history; None if it cannot be asked."""
        try:
            queue = await link.queue()
            return prompt_id in (*queue.running, *queue.pending) or await link.history(prompt_id) is not None
        except EngineError:
            return None

    def _remember(self, prompt_id: str, ticket: Ticket, link: Link) -> None:
        for old in list(self._tickets):
            if len(self._tickets) < _KEPT_TICKETS:
                break
            if self._tickets[old][0].settled:
                del self._tickets[old]
        self._tickets[prompt_id] = (ticket, link)

    def _ticket(self, prompt_id: str) -> tuple[Ticket, Link]:
        found = self._tickets.get(prompt_id)
        if found is None:
            raise PromptLost(prompt_id=prompt_id)
        return found

    async def _clear(self, link: Link, prompt: Prompt) -> None:
        if prompt.inputs:
            await Feeder(link.transport, link.address.folders).clear(prompt.prompt_id)

    async def _discard(self, link: Link, prompt: Prompt) -> None:
        """Remove what a prompt saved before it failed: nobody will fetch it."""
        folders = link.address.folders
        if folders is not None:
            await asyncio.to_thread(self._leftovers.clear, folders, prompt.prompt_id, prompt.mark)

    # -- Ends -----------------------------------------------------------------------------------------------------

    def _failure(self, ticket: Ticket) -> ComfypinError:
        if ticket.cancelled and isinstance(ticket.failure, PromptLost):
            return PromptInterrupted(prompt_id=ticket.prompt_id)
        return ticket.failure or PromptLost(prompt_id=ticket.prompt_id)

    def _judge(self, ticket: Ticket, link: Link, entry: HistoryEntry) -> None:
        match entry.verdict:
            case Raised() as raised:
                raise NodeFailed(
                    node_id=raised.node_id,
                    class_type=raised.class_type,
                    exception_type=raised.exception_type,
                    message=raised.message.replace(ticket.prompt.mark or "\0", ""),
                    traceback=raised.traceback,
                    advice=_room(raised.message, link.address.folders),
                )
            case Interrupted(node_id):
                raise PromptInterrupted(prompt_id=ticket.prompt_id, node_id=node_id)
            case Succeeded():
                return

    # -- Stopping -------------------------------------------------------------------------------------------------

    async def _stop(self, link: Link, server_id: str) -> None:
        """Take one prompt out of the engine, in the way that its version knows, and never another prompt."""
        by_id = await self._cancel_by_id(link, server_id)
        if by_id is False:
            return
        if by_id is None:
            await link.transport.post("/queue", {"delete": [server_id]})
        give_up_at = time.monotonic() + self._patience.cancel_s
        pause_s = _FIRST_LOOK_S
        targeted = by_id is None and await self._version(link) >= _TARGETED_INTERRUPT
        # An interrupt that comes before the first node is forgotten by the engine, so look, and say it again.
        while server_id in (await link.queue()).running and time.monotonic() < give_up_at:
            if by_id is None:
                await link.transport.post("/interrupt", {"prompt_id": server_id} if targeted else {})
            elif pause_s > _FIRST_LOOK_S:
                await self._cancel_by_id(link, server_id)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.5)

    async def _cancel_by_id(self, link: Link, server_id: str) -> bool | None:
        """Whether newer engines' own way stopped the prompt, which no other prompt can suffer from; None: no such way.

        https://github.com/Comfy-Org/ComfyUI/blob/master/server.py (`/api/jobs/{job_id}/cancel`)
        """
        answer = await link.transport.post(f"/api/jobs/{server_id}/cancel", {})
        return parse_cancelled(answer.body) if answer.status == 200 else None

    async def _version(self, link: Link) -> tuple[int, ...]:
        answer = await link.transport.get("/system_stats")
        system = answer.body.get("system") if isinstance(answer.body, dict) else None
        said = system.get("comfyui_version") if isinstance(system, dict) else None
        return tuple(int(number) for number in re.findall(r"\d+", str(said))[:3])


def _room(message: str, folders: Folders | None) -> str:
    """Return which disk a node found full, which its own exception does not say."""
    if folders is None or not any(sign in message for sign in _FULL_DISK):
        return ""
    return f". The engine writes below {folders.output.parent}: make room on that disk, or set TMPDIR to another."

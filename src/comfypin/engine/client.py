"""The engine behind an HTTP address: prompts in, events and outputs out, whatever becomes of the connection."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp

from comfypin.digest import CHUNK_BYTES, JsonValue
from comfypin.engine.feed import Feeder
from comfypin.engine.history import HistoryEntry, Interrupted, Raised, ReportedFile, Succeeded
from comfypin.engine.host import Address, EngineHost, Folders
from comfypin.engine.interface import Catalogue, EngineEvent, EngineOutput, Prompt, PromptOutputs, Warned
from comfypin.engine.link import Link, Ticket
from comfypin.engine.refusal import Refusal, parse_refusal
from comfypin.engine.transport import Patience, Transport
from comfypin.errors import ComfypinError, EngineError
from comfypin.errors.engine import EngineAnswerInvalid, EngineUnreachable, OutputGone
from comfypin.errors.prompt import NodeFailed, PromptInterrupted, PromptLost
from comfypin.errors.workflow import WorkflowRejected
from comfypin.files import contained_path
from comfypin.workflow.catalogue import to_catalogue

_KEPT_TICKETS = 1000
_CATALOGUE_S = 30.0
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

    def __init__(self, host: EngineHost, session: aiohttp.ClientSession, patience: Patience | None = None) -> None:
        self._host = host
        self._session = session
        self._patience = patience or Patience()
        self._link: Link | None = None
        self._linking = asyncio.Lock()
        self._tickets: dict[str, tuple[Ticket, Link]] = {}
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
        catalogue = to_catalogue(answer.body)
        self._catalogue = (link, time.monotonic(), catalogue)
        return catalogue

    async def submit(self, prompt: Prompt) -> None:
        """Bring the inputs and queue the prompt. Raises `WorkflowRejected`, `InputFileInvalid` or `EngineError`."""
        link = await self._linked()
        try:
            graph = await Feeder(link.transport, link.address.folders).feed(
                prompt.prompt_id, prompt.graph, prompt.inputs
            )
            await link.listening()
            await self._post(link, replace(prompt, graph=graph))
        except BaseException as exc:
            await self._clear(link, prompt.prompt_id, bool(prompt.inputs))
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
        await self._clear(link, prompt_id, ticket.has_inputs)
        if ticket.failure is not None or ticket.entry is None:
            raise self._failure(ticket)
        self._judge(ticket, ticket.entry)
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
        folders = link.address.folders
        return PromptOutputs(
            files=tuple([_output(link.transport, folders, file) for file in entry.files]),
            texts=entry.texts,
            cached=entry.cached,
        )

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
        await self._clear(link, prompt_id, ticket.has_inputs)

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
        ticket = link.track(prompt.prompt_id)
        ticket.has_inputs = bool(prompt.inputs)
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
            "prompt": prompt.graph.to_api(),
            "prompt_id": prompt.prompt_id,
            "client_id": client_id,
            "extra_data": prompt.extra_data,
        }
        try:
            answer = await link.transport.post("/prompt", body)
        except EngineUnreachable:
            # The answer was lost; the prompt perhaps not. It has an id of our own, so ask.
            if await self._knows(link, prompt.prompt_id):
                return prompt.prompt_id, None
            raise
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
        raise EngineAnswerInvalid(request="POST /prompt", status=answer.status, body=answer.text)

    async def _knows(self, link: Link, prompt_id: str) -> bool:
        try:
            queue = await link.queue()
            return prompt_id in (*queue.running, *queue.pending) or await link.history(prompt_id) is not None
        except EngineError:
            return False

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

    async def _clear(self, link: Link, prompt_id: str, has_inputs: bool) -> None:  # noqa: FBT001
        if has_inputs:
            await Feeder(link.transport, link.address.folders).clear(prompt_id)

    # -- Ends -----------------------------------------------------------------------------------------------------

    def _failure(self, ticket: Ticket) -> ComfypinError:
        if ticket.cancelled and isinstance(ticket.failure, PromptLost):
            return PromptInterrupted(prompt_id=ticket.prompt_id)
        return ticket.failure or PromptLost(prompt_id=ticket.prompt_id)

    def _judge(self, ticket: Ticket, entry: HistoryEntry) -> None:
        match entry.verdict:
            case Raised() as raised:
                raise NodeFailed(
                    node_id=raised.node_id,
                    class_type=raised.class_type,
                    exception_type=raised.exception_type,
                    message=raised.message,
                    traceback=raised.traceback,
                )
            case Interrupted(node_id):
                raise PromptInterrupted(prompt_id=ticket.prompt_id, node_id=node_id)
            case Succeeded():
                return

    # -- Stopping -------------------------------------------------------------------------------------------------

    async def _stop(self, link: Link, server_id: str) -> None:
        """Take one prompt out of the engine, in the way that its version knows, and never another prompt."""
        if (await link.transport.post(f"/api/jobs/{server_id}/cancel", {})).status == 200:
            return
        await link.transport.post("/queue", {"delete": [server_id]})
        give_up_at = time.monotonic() + self._patience.cancel_s
        pause_s = 0.05
        targeted = await self._version(link) >= _TARGETED_INTERRUPT
        # An interrupt that comes before the first node is forgotten by the engine, so look, and say it again.
        while server_id in (await link.queue()).running and time.monotonic() < give_up_at:
            await link.transport.post("/interrupt", {"prompt_id": server_id} if targeted else {})
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.5)

    async def _version(self, link: Link) -> tuple[int, ...]:
        answer = await link.transport.get("/system_stats")
        system = answer.body.get("system") if isinstance(answer.body, dict) else None
        said = system.get("comfyui_version") if isinstance(system, dict) else None
        return tuple(int(number) for number in re.findall(r"\d+", str(said))[:3])


def _output(transport: Transport, folders: Folders | None, file: ReportedFile) -> EngineOutput:
    path = _local_path(folders, file)

    def read() -> AsyncIterator[bytes]:
        return _read_file(path, file) if path is not None else _download(transport, file)

    return EngineOutput(
        node_id=file.node_id,
        key=file.key,
        filename=file.filename,
        subfolder=file.subfolder,
        folder=file.folder,
        read=read,
        path=path,
    )


def _local_path(folders: Folders | None, file: ReportedFile) -> Path | None:
    """Where the file is on this machine; a name that leads out of the engine's folder is left to the engine."""
    if folders is None:
        return None
    root = {"output": folders.output, "temp": folders.temp, "input": folders.input}[file.folder]
    try:
        path = contained_path(root, f"{file.subfolder}/{file.filename}" if file.subfolder else file.filename)
    except ValueError:
        return None
    return path if path.is_file() else None


async def _read_file(path: Path, file: ReportedFile) -> AsyncIterator[bytes]:
    try:
        with await asyncio.to_thread(path.open, "rb") as stream:
            while chunk := await asyncio.to_thread(stream.read, CHUNK_BYTES):
                yield chunk
    except FileNotFoundError as exc:
        raise OutputGone(node_id=file.node_id, filename=file.filename) from exc


async def _download(transport: Transport, file: ReportedFile) -> AsyncIterator[bytes]:
    query = {"filename": file.filename, "subfolder": file.subfolder, "type": file.folder}
    try:
        async for chunk in transport.download("/view", query):
            yield chunk
    except EngineAnswerInvalid as exc:
        if exc.status == 404:
            raise OutputGone(node_id=file.node_id, filename=file.filename) from exc
        raise

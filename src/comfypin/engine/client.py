"""Runs prompts on an engine at an HTTP address, and survives cut connections."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace

import aiohttp

from comfypin.digest import JsonValue
from comfypin.engine.cleanup import PromptCleanup
from comfypin.engine.errors import EngineAnswerInvalid, EngineUnreachable, NodeFailed, PromptInterrupted, PromptLost
from comfypin.engine.host import EngineAddress, EngineHost, LocalFolders
from comfypin.engine.http_transport import EngineResponse, EngineTimeouts, EngineTransport
from comfypin.engine.input_files import InputFolders, InputUploader
from comfypin.engine.interface import Catalogue, EngineEvent, Prompt, PromptOutputs, Warned
from comfypin.engine.messages import parse_cancelled
from comfypin.engine.prompt_history import HistoryEntry, Interrupted, Raised, Succeeded
from comfypin.engine.prompt_results import collect_outputs
from comfypin.engine.prompt_tracker import PromptTracker
from comfypin.engine.rejection import PromptRefusal, parse_refusal
from comfypin.engine.tracked_prompt import TrackedPrompt
from comfypin.errors import ComfypinError, EngineError
from comfypin.retry import Failures, RetryPolicy
from comfypin.workflow.errors import WorkflowRejected
from comfypin.workflow.filename_mark import counted_prefixes
from comfypin.workflow.object_info import EngineCatalogue, to_catalogue

# Callers ask for outputs soon after the end; who forgets to must not make a server grow for ever.
_KEPT_PROMPTS = 1000
# /object_info is large and makes the engine read every model folder, but a model just added must show up soon.
_CATALOGUE_S = 30.0
# Somebody looks at a page meanwhile.
_VERSION_S = 3.0
# Short, so that a job whose prompt stops at once is not held up.
_FIRST_LOOK_S = 0.05
# After a cut POST we ask, and send again, for a second or two; a job that fails then can be submitted anew.
_POST_RETRIES = RetryPolicy(retries=3, base_s=0.2, longest_s=1.0)
# How the operating system words it in the exception of whatever node wrote.
_FULL_DISK = ("No space left on device", "Disk quota exceeded")
_FULL_DISK_ADVICE = ". The engine's disk is full; whoever runs the engine has to make room."
# Before this version /interrupt stops whatever runs: https://github.com/Comfy-Org/ComfyUI/pull/9607
_TARGETED_INTERRUPT = (0, 3, 57)


class HttpEngine:
    """Runs prompts through a ComfyUI's HTTP API; implements `Engine`.

    What a caller may rely on:
    - Each prompt needs its own id; to submit a job again after `EngineCrashed` or `PromptLost`, choose a new one.
    - When the engine's process dies, `events` of every prompt in it raises `EngineCrashed` at once. If the process is
      ours, the next `submit` starts it again (with back-off), so requeue a job by submitting it once more.
    - `cancel` may be called at any time and from `finally`; afterwards `events` raises `PromptInterrupted`.
    """

    def __init__(
        self,
        host: EngineHost,
        session: aiohttp.ClientSession,
        timeouts: EngineTimeouts | None = None,
        *,
        cleanup: PromptCleanup | None = None,
    ) -> None:
        self._host = host
        self._session = session
        self._timeouts = timeouts or EngineTimeouts()
        self._tracker: PromptTracker | None = None
        self._tracker_lock = asyncio.Lock()
        self._tracked: dict[str, tuple[TrackedPrompt, PromptTracker]] = {}
        self._cleanup = cleanup or PromptCleanup()
        self._input_folders = InputFolders()
        self._catalogue: tuple[PromptTracker, float, Catalogue] | None = None

    async def close(self) -> None:
        """Close the connection; open prompts fail here, but go on in the engine."""
        if self._tracker is not None:
            await self._tracker.close()

    async def address(self) -> EngineAddress:
        """Return the engine's address; starts the engine if that is ours to do. Raises `EngineStartFailed`."""
        return await self._host.address()

    async def comfyui_version(self) -> str | None:
        """Return the version that the engine tells of itself; None if it does not say, or not within seconds."""
        with contextlib.suppress(EngineError, TimeoutError):
            async with asyncio.timeout(_VERSION_S):
                return await self._told_version(await self._ensure_tracker())
        return None

    async def catalogue(self) -> Catalogue:
        """Return the node classes; asks again if the last answer is half a minute old."""
        tracker = await self._ensure_tracker()
        if self._catalogue is not None:
            known_tracker, at_s, catalogue = self._catalogue
            if known_tracker is tracker and time.monotonic() - at_s < _CATALOGUE_S:
                return catalogue
        try:
            response = await tracker.transport.get_json("/object_info")
        except EngineUnreachable as exc:
            raise await self._host.explain_failure(tracker.address, exc) from exc
        if response.status != 200 or not isinstance(response.body, dict):
            raise EngineAnswerInvalid(request="GET /object_info", status=response.status, _body=response.text)
        catalogue = EngineCatalogue(to_catalogue(response.body), await self._fetch_replacements(tracker))
        self._catalogue = (tracker, time.monotonic(), catalogue)
        return catalogue

    async def _fetch_replacements(self, tracker: PromptTracker) -> Mapping[str, JsonValue]:
        """Return the engine's list of replaced classes; empty before 0.33, which has no such route."""
        try:
            response = await tracker.transport.get_json("/node_replacements")
        except EngineUnreachable as exc:
            raise await self._host.explain_failure(tracker.address, exc) from exc
        return response.body if response.status == 200 and isinstance(response.body, dict) else {}

    async def submit(self, prompt: Prompt) -> None:
        """Upload the inputs and queue the prompt. Raises `WorkflowRejected`, `InputFileInvalid` or `EngineError`."""
        tracker = await self._ensure_tracker()
        prefixes = counted_prefixes(prompt.graph).values() if prompt.mark is not None else ()
        self._cleanup.begin_prompt(prompt.prompt_id, prompt.mark, prefixes)
        try:
            graph = await self._uploader(tracker).upload_inputs(prompt.prompt_id, prompt.graph, prompt.inputs)
            # The first events come within milliseconds: without a listener they would be lost.
            await tracker.wait_until_listening()
            await self._post_prompt(tracker, replace(prompt, graph=graph))
        except BaseException as exc:
            await self._clear_inputs(tracker, prompt)
            await self._discard_outputs(tracker, prompt)
            if isinstance(exc, EngineUnreachable):
                raise await self._host.explain_failure(tracker.address, exc) from exc
            raise

    async def events(self, prompt_id: str) -> AsyncGenerator[EngineEvent, None]:
        """Yield what happens to a submitted prompt; see `Engine.events`."""
        tracked_prompt, tracker = self._find_tracked(prompt_id)
        while not (tracked_prompt.settled and tracked_prompt.event_queue.empty()):
            event = await tracked_prompt.event_queue.get()
            if event is not None:
                yield event
        await self._clear_inputs(tracker, tracked_prompt.prompt)
        if (
            tracked_prompt.failure is not None
            or tracked_prompt.entry is None
            or not isinstance(tracked_prompt.entry.verdict, Succeeded)
        ):
            await self._discard_outputs(tracker, tracked_prompt.prompt)
        if tracked_prompt.failure is not None or tracked_prompt.entry is None:
            raise self._build_failure(tracked_prompt)
        self._raise_if_failed(tracked_prompt, tracker, tracked_prompt.entry)
        for event in tracked_prompt.normalizer.see_success(tracked_prompt.entry.cached, time.monotonic()):
            yield event
        if tracked_prompt.entry.verdict == Succeeded(certain=False):
            yield Warned(message="The engine kept no status of the prompt: its outputs were taken as they are.")

    async def outputs(self, prompt_id: str) -> PromptOutputs:
        """Return the files and texts of a prompt that succeeded. Raises `EngineError`."""
        tracked_prompt, tracker = self._find_tracked(prompt_id)
        history_entry = tracked_prompt.entry or await tracker.fetch_history(tracked_prompt.server_id)
        if history_entry is None:
            raise PromptLost(prompt_id=prompt_id)
        return await collect_outputs(
            history_entry, tracked_prompt.prompt, tracker.transport, tracker.address.folders, self._cleanup
        )

    async def cancel(self, prompt_id: str) -> None:
        """Take the prompt out of the queue, or stop it if it runs, and touch nothing else; see `Engine.cancel`."""
        remembered = self._tracked.get(prompt_id)
        if remembered is None or remembered[0].settled:
            return
        tracked_prompt, tracker = remembered
        # Before the engine is asked: its events then say why the prompt ended, whichever comes first.
        tracked_prompt.cancelled = True
        with contextlib.suppress(EngineError):
            # An engine that cannot be asked runs nothing of ours, or is stopped with its process.
            await self._stop_prompt(tracker, tracked_prompt.server_id)
        await self._clear_inputs(tracker, tracked_prompt.prompt)
        await self._discard_outputs(tracker, tracked_prompt.prompt)

    # -- Queueing -------------------------------------------------------------------------------------------------

    async def _ensure_tracker(self) -> PromptTracker:
        # Jobs that begin together share one connection: the second waits here for it, and finds it open.
        async with self._tracker_lock:
            address = await self._host.address()
            if self._tracker is not None and self._tracker.broken is None and self._tracker.address == address:
                return self._tracker
            if self._tracker is not None:
                await self._tracker.close()
            transport = EngineTransport(address.url, self._session, self._timeouts)
            self._tracker = PromptTracker(address, transport, self._host, self._timeouts)
            await self._tracker.open()
            return self._tracker

    async def _post_prompt(self, tracker: PromptTracker, prompt: Prompt) -> None:
        """Queue the prompt and track it, or stop it and raise if the engine dropped some of its outputs."""
        tracked_prompt = tracker.track_prompt(prompt)
        # From here on `cancel` finds the prompt: if we are stopped while we post, it may be queued all the same.
        self._remember_prompt(prompt.prompt_id, tracked_prompt, tracker)
        try:
            server_id, refusal = await self._queue_prompt(tracker, prompt, tracked_prompt.client_id)
        except Exception:
            tracker.confirm_posted(tracked_prompt, None)
            del self._tracked[prompt.prompt_id]
            raise
        # Cancelled while posting: the prompt may be queued, so `cancel` must still find it.
        except BaseException:
            tracker.confirm_posted(tracked_prompt, None)
            raise
        tracker.confirm_posted(tracked_prompt, None if refusal else server_id)
        if refusal is not None:
            del self._tracked[prompt.prompt_id]
            await self._stop_prompt(tracker, server_id)
            dropped = ", ".join(refusal.outputs) or "some"
            raise WorkflowRejected(
                reason=f"{refusal.reason}; it would have run without the outputs of node {dropped}",
                problems=refusal.problems,
                dropped=refusal.outputs,
            )

    async def _queue_prompt(
        self, tracker: PromptTracker, prompt: Prompt, client_id: str
    ) -> tuple[str, PromptRefusal | None]:
        """POST /prompt; return the server's id for the prompt, and why it dropped branches, if it did."""
        request_body: dict[str, JsonValue] = {
            "prompt": prompt.graph.to_prompt(),
            "prompt_id": prompt.prompt_id,
            "client_id": client_id,
            "extra_data": prompt.extra_data,
        }
        response = await self._send_prompt(tracker, prompt.prompt_id, request_body)
        if response is None:
            return prompt.prompt_id, None
        # A 200 may carry errors too: ComfyUI drops invalid branches and runs the rest.
        refusal = parse_refusal(response.body)
        if (
            response.status == 200
            and isinstance(response.body, dict)
            and isinstance(response.body.get("prompt_id"), str)
        ):
            return str(response.body["prompt_id"]), refusal
        # ComfyUI answers 400 with its own JSON; a proxy's 4xx has none and falls through to the end.
        if 400 <= response.status < 500 and refusal is not None:
            raise WorkflowRejected(reason=refusal.reason, problems=refusal.problems)
        if response.status == 413:
            raise WorkflowRejected(
                reason="it is larger than the engine takes (100 MB, unless its upload limit was raised); "
                "leave out data that the workflow embeds, or have the limit raised"
            )
        # A 200 without an id came from something in between; the engine itself knows whether it has the prompt.
        if response.status == 200 and await self._is_known(tracker, prompt.prompt_id):
            return prompt.prompt_id, None
        # A ComfyUI that stumbles over the graph answers 500, and writes the traceback only to its log.
        log_tail = self._host.log_tail() if response.status >= 500 else ()
        raise EngineAnswerInvalid(
            request="POST /prompt", status=response.status, _body=response.text, log_tail=log_tail
        )

    async def _send_prompt(
        self, tracker: PromptTracker, prompt_id: str, request_body: JsonValue
    ) -> EngineResponse | None:
        """POST a prompt; None if the response was lost and the engine has it. What it never got is sent again."""
        failures = Failures(_POST_RETRIES)
        while True:
            try:
                return await tracker.transport.post_json("/prompt", request_body)
            except EngineUnreachable:
                # The response was lost; the prompt perhaps not. It has an id of our own, so ask.
                while (is_known := await self._is_known(tracker, prompt_id)) is not True:
                    pause_s = failures.count_failure()
                    if pause_s is None or tracker.broken is not None:
                        raise
                    await asyncio.sleep(pause_s)
                    # Sent twice, an older engine would run it twice, under two ids of its own.
                    if is_known is False and await self._keeps_ids(tracker):
                        break
                if is_known:
                    return None

    async def _keeps_ids(self, tracker: PromptTracker) -> bool:
        """Return whether the engine surely queues prompts under the ids that we give; older ones make their own."""
        with contextlib.suppress(EngineError):
            return await self._engine_version(tracker) >= _TARGETED_INTERRUPT
        return False

    async def _is_known(self, tracker: PromptTracker, prompt_id: str) -> bool | None:
        """Return whether the engine has the prompt, in its queue or its history; None if it cannot be asked."""
        try:
            engine_queue = await tracker.fetch_queue()
            return (
                prompt_id in (*engine_queue.running, *engine_queue.pending)
                or await tracker.fetch_history(prompt_id) is not None
            )
        except EngineError:
            return None

    def _remember_prompt(self, prompt_id: str, tracked_prompt: TrackedPrompt, tracker: PromptTracker) -> None:
        for old_prompt_id in list(self._tracked):
            if len(self._tracked) < _KEPT_PROMPTS:
                break
            if self._tracked[old_prompt_id][0].settled:
                # Only prompts that ended: one that runs must stay cancellable.
                del self._tracked[old_prompt_id]
        self._tracked[prompt_id] = (tracked_prompt, tracker)

    def _find_tracked(self, prompt_id: str) -> tuple[TrackedPrompt, PromptTracker]:
        remembered = self._tracked.get(prompt_id)
        if remembered is None:
            raise PromptLost(prompt_id=prompt_id)
        return remembered

    async def _clear_inputs(self, tracker: PromptTracker, prompt: Prompt) -> None:
        if prompt.inputs:
            await self._uploader(tracker).clear_inputs(prompt.prompt_id)

    def _uploader(self, tracker: PromptTracker) -> InputUploader:
        return InputUploader(tracker.transport, tracker.address.folders, self._input_folders)

    async def _discard_outputs(self, tracker: PromptTracker, prompt: Prompt) -> None:
        """Remove what a prompt saved before it failed: nobody will fetch it."""
        folders = tracker.address.folders
        if folders is not None:
            await asyncio.to_thread(self._cleanup.clear_prompt, folders, prompt.prompt_id, prompt.mark)

    # -- Ends -----------------------------------------------------------------------------------------------------

    def _build_failure(self, tracked_prompt: TrackedPrompt) -> ComfypinError:
        if tracked_prompt.cancelled and isinstance(tracked_prompt.failure, PromptLost):
            return PromptInterrupted(prompt_id=tracked_prompt.prompt_id)
        return tracked_prompt.failure or PromptLost(prompt_id=tracked_prompt.prompt_id)

    def _raise_if_failed(
        self, tracked_prompt: TrackedPrompt, tracker: PromptTracker, history_entry: HistoryEntry
    ) -> None:
        """Raise the failure that the history reports, if it does."""
        match history_entry.verdict:
            case Raised() as raised:
                raise node_failure(raised, mark=tracked_prompt.prompt.mark, folders=tracker.address.folders)
            case Interrupted(node_id):
                raise PromptInterrupted(prompt_id=tracked_prompt.prompt_id, node_id=node_id)
            case Succeeded():
                return

    # -- Stopping -------------------------------------------------------------------------------------------------

    async def _stop_prompt(self, tracker: PromptTracker, server_id: str) -> None:
        """Stop one prompt, by the means that this version of the engine has, and never another prompt."""
        cancelled_by_id = await self._cancel_by_id(tracker, server_id)
        if cancelled_by_id is False:
            return
        if cancelled_by_id is None:
            await tracker.transport.post_json("/queue", {"delete": [server_id]})
        give_up_at = time.monotonic() + self._timeouts.cancel_s
        pause_s = _FIRST_LOOK_S
        targeted = cancelled_by_id is None and await self._engine_version(tracker) >= _TARGETED_INTERRUPT
        # The engine forgets an interrupt that comes before the first node, so look, and repeat it.
        while server_id in (await tracker.fetch_queue()).running and time.monotonic() < give_up_at:
            if cancelled_by_id is None:
                await tracker.transport.post_json("/interrupt", {"prompt_id": server_id} if targeted else {})
            elif pause_s > _FIRST_LOOK_S:
                await self._cancel_by_id(tracker, server_id)
            await asyncio.sleep(pause_s)
            # A node that loads a model looks for interrupts rarely: asking more often does not help.
            pause_s = min(2 * pause_s, 0.5)

    async def _cancel_by_id(self, tracker: PromptTracker, server_id: str) -> bool | None:
        """Cancel by id and return whether anything was stopped; None if this engine has no such route.

        https://github.com/Comfy-Org/ComfyUI/blob/master/server.py (`/api/jobs/{job_id}/cancel`)
        """
        response = await tracker.transport.post_json(f"/api/jobs/{server_id}/cancel", {})
        return parse_cancelled(response.body) if response.status == 200 else None

    async def _engine_version(self, tracker: PromptTracker) -> tuple[int, ...]:
        return tuple(int(number) for number in re.findall(r"\d+", await self._told_version(tracker) or "")[:3])

    async def _told_version(self, tracker: PromptTracker) -> str | None:
        response = await tracker.transport.get_json("/system_stats")
        system = response.body.get("system") if isinstance(response.body, dict) else None
        version = system.get("comfyui_version") if isinstance(system, dict) else None
        return version if isinstance(version, str) else None


def node_failure(raised: Raised, *, mark: str | None, folders: LocalFolders | None) -> NodeFailed:
    """Return the failure of a node. Where a full disk is, only commands say: a job's result shows no path of ours."""
    is_disk_full = any(sign in raised.message for sign in _FULL_DISK)
    command_hint = ""
    if is_disk_full and folders is not None:
        command_hint = (
            f"The engine writes below {folders.output.parent}: make room on that disk, or set TMPDIR to another."
        )
    return NodeFailed(
        node_id=raised.node_id,
        class_type=raised.class_type,
        exception_type=raised.exception_type,
        # The mark is ours: the user must see the file names of their own workflow.
        message=raised.message.replace(mark or "\0", ""),
        traceback=raised.traceback,
        advice=_FULL_DISK_ADVICE if is_disk_full else "",
        command_hint=command_hint,
    )

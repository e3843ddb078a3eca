"""Warms an engine with the release's own workflow, so that the first job finds its models loaded."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol

from comfypin.digest import JsonValue
from comfypin.engine.interface import Engine
from comfypin.errors import ComfypinError, WorkflowError
from comfypin.jobs.interface import Handle, JobOutcome, ProgressCallback, ignore_progress
from comfypin.jobs.workflow_library import WorkflowLibrary
from comfypin.lock.model import Lock, Release
from comfypin.workflow.document import Document, to_document
from comfypin.workflow.load import load_workflow
from comfypin.workflow.warmup_form import uses_api_nodes, warmup_form

log = logging.getLogger(__name__)

# Longer than reading 60 GB from a network volume takes; a warm-up that hangs must not keep jobs waiting for ever.
WARM_UP_WITHIN_S = 600.0
# A worker is mostly started for a job that waits already; it is here well within this.
_JOB_COMES_WITHIN_S = 1.0
_PREFIX_INPUT = "filename_prefix"
_OWN_PREFIX = "comfypin-warm-up"
_FROM_LOCK = "engine.warmup in the lock"


class WarmedService(Protocol):
    """The part of a service that a warm-up needs."""

    @property
    def lock(self) -> Lock | None: ...
    @property
    def release(self) -> Release: ...
    @property
    def engine(self) -> Engine: ...
    @property
    def workflows(self) -> WorkflowLibrary: ...
    @property
    def warms_up(self) -> bool: ...


def choose_warmup(lock: Lock | None, workflows: WorkflowLibrary) -> Document | None:
    """Return the workflow that loads the release's models: the lock's, else the first one of the image, else None."""
    try:
        if lock is not None and lock.engine.warmup:
            return to_document(dict(lock.engine.warmup), source=_FROM_LOCK)
        workflow_name = next(iter(workflows.list_names()), None)
        return None if workflow_name is None else workflows.read_workflow(workflow_name)
    except WorkflowError as exc:
        _report_failure(exc)
        return None


async def warm_engine(handle: Handle, service: WarmedService) -> None:
    """Run the release's warm-up to its end; if it has none, or it fails, make the smallest picture.

    A warm-up that fails is logged, and no more: jobs may be others. Raises what the smallest picture failed with.
    """
    document = _wanted_warmup(service)
    if document is None or not await _run_warmup(handle, service, document):
        await check_engine(handle)
        log.info("engine warm", extra={"action": "engine_warm", "release": service.release.name})


async def check_engine(handle: Handle) -> None:
    """Make the smallest picture. Raises what it failed with: an engine that cannot do that must not take jobs."""
    outcome = await _run_quietly(handle, {})
    if outcome.failure is not None:
        raise outcome.failure


class IdleWarmUp:
    """Runs the release's warm-up while no job is there; the first job breaks it off, and goes first.

    A job that waits already would only wait longer: it loads its models itself, and they may be others. What a warm-up
    has loaded by then stays loaded, since ComfyUI keeps what nodes of a cancelled prompt have made.
    """

    def __init__(
        self,
        handle: Handle,
        service: WarmedService,
        *,
        note_seconds: Callable[[float], None],
        note_first_job: Callable[[], None],
        job_comes_within_s: float = _JOB_COMES_WITHIN_S,
    ) -> None:
        """Warm for `handle`. `note_seconds` is told how long it took, broken off or not; `note_first_job` of a job."""
        self._handle = handle
        self._service = service
        self._note_seconds = note_seconds
        self._note_first_job = note_first_job
        self._job_comes_within_s = job_comes_within_s
        self._task: asyncio.Task[None] | None = None
        self._has_begun_a_job = False

    async def __aenter__(self) -> "IdleWarmUp":
        document = _wanted_warmup(self._service)
        if document is not None:
            self._task = asyncio.create_task(self._warm_when_idle(document))
            self._task.add_done_callback(self._forget_task)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        task = self._break_off()
        if task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def __call__(
        self, job_id: str, document: object, *, progress: ProgressCallback = ignore_progress
    ) -> JobOutcome:
        """Run a job, before the rest of the warm-up."""
        # Not waited for: a node that loads a model ends first, and the job is prepared meanwhile.
        self._break_off()
        if not self._has_begun_a_job:
            self._has_begun_a_job = True
            self._note_first_job()
        return await self._handle(job_id, document, progress=progress)

    async def _warm_when_idle(self, document: Document) -> None:
        await asyncio.sleep(self._job_comes_within_s)
        began_s = time.monotonic()
        try:
            await _run_warmup(self._handle, self._service, document)
        finally:
            self._note_seconds(time.monotonic() - began_s)

    def _break_off(self) -> "asyncio.Task[None] | None":
        task = self._task
        # Once: a second cancel would cut off the clean-up after the first.
        if task is not None and not task.cancelling():
            task.cancel()
        return task

    def _forget_task(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("warm-up failed unexpectedly", exc_info=error, extra={"action": "warm_up_failed"})


def _wanted_warmup(service: WarmedService) -> Document | None:
    return choose_warmup(service.lock, service.workflows) if service.warms_up else None


async def _run_warmup(handle: Handle, service: WarmedService, document: Document) -> bool:
    """Run a workflow's warm-up form; return whether it came to its end."""
    try:
        catalogue = await service.engine.catalogue()
        graph = load_workflow(document, catalogue).graph
        if uses_api_nodes(graph, catalogue):
            # Each start of a worker would be paid for.
            log.info("warm-up left out: its workflow calls a paid API", extra={"action": "warm_up_left_out"})
            return False
        if document.source != _FROM_LOCK or service.lock is None or service.lock.engine.warmup_size == "smallest":
            graph = warmup_form(graph, catalogue)
    except WorkflowError as exc:
        _report_failure(exc)
        return False
    outcome = await _run_quietly(handle, _under_own_names(graph.to_api()))
    if outcome.failure is not None:
        _report_failure(outcome.failure)
        return False
    log.info(
        "engine warm",
        extra={"action": "engine_warm", "release": service.release.name, "workflow": document.source},
    )
    return True


def _under_own_names(workflow: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the prompt with other prefixes of files: else the first job's would be numbered 2."""
    renamed: dict[str, JsonValue] = {}
    for node_id, node in workflow.items():
        inputs = node.get("inputs") if isinstance(node, Mapping) else None
        if isinstance(node, Mapping) and isinstance(inputs, Mapping) and isinstance(inputs.get(_PREFIX_INPUT), str):
            node = {**node, "inputs": {**inputs, _PREFIX_INPUT: _OWN_PREFIX}}
        renamed[node_id] = node
    return renamed


async def _run_quietly(handle: Handle, workflow: dict[str, JsonValue]) -> JobOutcome:
    # base64, so that nothing is delivered to the user's bucket.
    output: dict[str, JsonValue] = {"mode": "base64", "previews": False}
    return await handle("warm-up", {"workflow": workflow, "output": output, "timeout_s": WARM_UP_WITHIN_S})


def _report_failure(failure: ComfypinError) -> None:
    log.error(
        "warm-up failed; the first job loads its models itself",
        extra={"action": "warm_up_failed", "error": type(failure).__name__, "reason": failure.command_message},
    )

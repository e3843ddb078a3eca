"""Warms an engine with the release's own workflow, so that the first job finds its models loaded."""

import logging
from collections.abc import Mapping
from typing import Protocol

from comfypin.digest import JsonValue
from comfypin.engine.interface import Engine
from comfypin.errors import ComfypinError, WorkflowError
from comfypin.jobs.interface import Handle, JobOutcome
from comfypin.jobs.workflow_library import WorkflowLibrary
from comfypin.lock.codec import release_identity
from comfypin.lock.model import Lock
from comfypin.workflow.document import Document, to_document
from comfypin.workflow.load import load_workflow
from comfypin.workflow.warmup_form import uses_api_nodes, warmup_form

log = logging.getLogger(__name__)

# Longer than reading 60 GB from a network volume takes; a warm-up that hangs must not keep jobs waiting for ever.
WARM_UP_WITHIN_S = 600.0
_PREFIX_INPUT = "filename_prefix"
_OWN_PREFIX = "comfypin-warm-up"
_FROM_LOCK = "engine.warmup in the lock"


class WarmedService(Protocol):
    """The part of a service that a warm-up needs."""

    @property
    def lock(self) -> Lock | None: ...
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

    A warm-up that fails is logged, and no more: jobs may be others. Raises what the smallest picture failed with: an
    engine that cannot do that must not take jobs.
    """
    document = choose_warmup(service.lock, service.workflows) if service.warms_up else None
    if document is not None and await _run_warmup(handle, service, document):
        return
    outcome = await _run_quietly(handle, {})
    if outcome.failure is not None:
        raise outcome.failure
    log.info("engine warm", extra={"action": "engine_warm", "release": release_identity(service.lock).name})


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
        extra={"action": "engine_warm", "release": release_identity(service.lock).name, "workflow": document.source},
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

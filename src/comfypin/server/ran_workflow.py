"""The workflow that a job ran: as it was sent, with what the job set in it and what was drawn for it."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from comfypin.digest import JsonValue
from comfypin.errors import WorkflowError
from comfypin.jobs.prepare import RunRequest, apply_request_overrides
from comfypin.queue.interface import JobRecord
from comfypin.queue.status_bodies import is_pending
from comfypin.server.server_state import Site
from comfypin.workflow.convert.write_back import write_back
from comfypin.workflow.document import Document, to_document
from comfypin.workflow.graph import ApiGraph, ApiNode
from comfypin.workflow.load import Workflow, load_workflow
from comfypin.workflow.object_info import Catalogue
from comfypin.workflow.overrides import RANDOM, apply_overrides, overrides_from_json


async def read_ran_workflow(site: Site, job_id: str) -> Mapping[str, JsonValue] | None:
    """Return a job's workflow, in the format that it was sent in if that can hold the values; None if it is not kept.

    Of a job that has not ended, what it draws is not known yet. Raises `JobUnknown`, `JobsNotStored`, `NotReady`,
    `EngineError`, `WorkflowNotFound` if it is one of the image's that is gone.
    """
    record = await site.queue.read_record(job_id)
    kept_input = None if await site.queue.had_secrets(job_id) else await site.queue.read_input(job_id)
    sent: Mapping[str, object] = kept_input if isinstance(kept_input, Mapping) else {}
    document = await asyncio.to_thread(_read_document, site, sent)
    if document is None:
        return None
    asked, drawn = sent.get("set"), await asyncio.to_thread(_read_own_values, record)
    values = asked if isinstance(asked, Mapping) else {}
    if not (values or drawn):
        return document.content
    try:
        return await _with_values(site, document, values, drawn, sent)
    except WorkflowError:
        # Values that do not fit have made the job fail before anything ran.
        return document.content


def _read_document(site: Site, sent: Mapping[str, object]) -> Document | None:
    workflow_name = sent.get("workflow_name")
    if isinstance(workflow_name, str):
        return site.require_service().workflows.read_workflow(workflow_name)
    workflow = sent.get("workflow")
    return to_document(workflow, source="in the job") if isinstance(workflow, Mapping) else None


def _read_own_values(record: JobRecord) -> Mapping[str, JsonValue]:
    # Before a job's end its output is its progress.
    if is_pending(record.row.state) or not record.output:
        return {}
    result = json.loads(record.output)
    values = result.get("values") if isinstance(result, dict) else None
    return values if isinstance(values, dict) else {}


def _apply_what_is_known(loaded: Workflow, request: RunRequest, catalogue: Catalogue) -> ApiGraph:
    """Return the graph with what the job set, but for numbers that were to be drawn: those stay the workflow's own."""
    changed = apply_request_overrides(loaded, request, catalogue)
    certain = tuple(override for override in request.overrides if override.value != RANDOM)
    if len(certain) == len(request.overrides):
        return changed
    known = apply_request_overrides(loaded, replace(request, overrides=certain), catalogue)

    def choose(node: ApiNode) -> ApiNode:
        known_inputs = known.nodes[node.id].inputs
        # In a text, `random` is a word.
        inputs = {
            name: value if value == RANDOM else known_inputs.get(name, value) for name, value in node.inputs.items()
        }
        return replace(node, inputs=inputs)

    return ApiGraph(nodes={node_id: choose(node) for node_id, node in changed.nodes.items()})


async def _with_values(
    site: Site,
    document: Document,
    asked: Mapping[str, JsonValue],
    drawn: Mapping[str, JsonValue],
    sent: Mapping[str, object],
) -> Mapping[str, JsonValue]:
    """Return the workflow with the values. A file of ComfyUI's page keeps its layout, if it can hold them."""
    service, workflow_name = site.require_service(), sent.get("workflow_name")
    catalogue = await service.engine.catalogue()
    request = RunRequest(
        document=document,
        job_id="",
        submission_id="",
        overrides=overrides_from_json(asked),
        inputs_file=await asyncio.to_thread(service.workflows.inputs_file, workflow_name)
        if isinstance(workflow_name, str)
        else None,
    )

    def write_values() -> Mapping[str, JsonValue]:
        loaded = load_workflow(document, catalogue)
        changed = _apply_what_is_known(loaded, request, catalogue)
        # Last: `random` was asked for, and this came of it.
        changed = apply_overrides(changed, overrides_from_json(drawn), catalogue=catalogue)
        if loaded.conversion is None:
            return changed.to_prompt()
        now = datetime.now().astimezone()
        filled = loaded.fill_texts(changed, now)
        saved = write_back(document.content, loaded.conversion, catalogue, changed=changed, sent=filled, local_time=now)
        return changed.to_prompt() if saved is None else saved

    return await asyncio.to_thread(write_values)

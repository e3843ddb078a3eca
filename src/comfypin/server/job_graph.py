"""The workflow of a job as a file that ComfyUI's own page opens: as it was sent, or with what the job set in it."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from comfypin.digest import JsonValue
from comfypin.jobs.prepare import RunRequest, apply_request_overrides
from comfypin.server.responses import JsonResponse, failure_response
from comfypin.server.server_state import Site
from comfypin.workflow.convert.write_back import write_back
from comfypin.workflow.document import Document, to_document
from comfypin.workflow.load import load_workflow
from comfypin.workflow.overrides import overrides_from_json


def job_graph_routes(site: Site) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["jobs"])

    @routes.get("/jobs/{job_id}/workflow", summary="The workflow of a job, for ComfyUI's page to open")
    async def workflow(job_id: str) -> Response:
        await site.queue.read_record(job_id)  # refuses a job that is not known
        kept_input = None if await site.queue.had_secrets(job_id) else await site.queue.read_input(job_id)
        sent: Mapping[str, object] = kept_input if isinstance(kept_input, Mapping) else {}
        document = await asyncio.to_thread(_read_document, site, sent)
        if document is None:
            return failure_response(404, "The workflow was not kept: it is large, or came with secrets.")
        graph, values = document.content, sent.get("set")
        if isinstance(values, Mapping) and values:
            graph = await _set_in(site, document, values, sent)
        file_name = f"workflow-{job_id[:8]}.json"
        return JsonResponse(
            dict(graph), headers={"Content-Disposition": f"attachment; filename*=UTF-8''{quote(file_name, safe='')}"}
        )

    return routes


def _read_document(site: Site, sent: Mapping[str, object]) -> Document | None:
    workflow_name = sent.get("workflow_name")
    if isinstance(workflow_name, str):
        return site.require_service().workflows.read_workflow(workflow_name)
    workflow = sent.get("workflow")
    return to_document(workflow, source="in the job") if isinstance(workflow, Mapping) else None


async def _set_in(
    site: Site, document: Document, values: Mapping[str, JsonValue], sent: Mapping[str, object]
) -> Mapping[str, JsonValue]:
    """Return the workflow with what the job set in it; seeds that it drew are in its pictures alone.

    A file of ComfyUI's page keeps its layout, if it can hold the values.
    """
    service, workflow_name = site.require_service(), sent.get("workflow_name")
    catalogue = await service.engine.catalogue()
    request = RunRequest(
        document=document,
        job_id="",
        submission_id="",
        overrides=overrides_from_json(values),
        inputs_file=await asyncio.to_thread(service.workflows.inputs_file, workflow_name)
        if isinstance(workflow_name, str)
        else None,
    )
    loaded = await asyncio.to_thread(load_workflow, document, catalogue)
    changed = apply_request_overrides(loaded, request, catalogue)
    if loaded.conversion is not None:
        now = datetime.now().astimezone()
        sent_graph = loaded.fill_texts(changed, now)
        saved = await asyncio.to_thread(
            write_back, document.content, loaded.conversion, catalogue, changed=changed, sent=sent_graph, local_time=now
        )
        if saved is not None:
            return saved
    return changed.to_prompt()

"""Checks any workflow that somebody brings: whether it runs here, what is missing, and what may be set in it."""

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from comfypin.digest import JsonValue
from comfypin.engine.interface import Catalogue
from comfypin.lock.model import Lock
from comfypin.server.responses import JsonResponse
from comfypin.server.server_state import Site
from comfypin.workflow.document import Document
from comfypin.workflow.errors import WorkflowInvalid
from comfypin.workflow.findings import WorkflowFinding
from comfypin.workflow.load import Workflow, load_workflow
from comfypin.workflow.preflight import run_preflight
from comfypin.workflow.read_file import read_workflow_bytes
from comfypin.workflow.settable_inputs import describe_inputs

_SOURCE = "in the file"
_FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def workflow_check_routes(site: Site) -> APIRouter:
    """Return the route that checks a workflow."""
    routes = APIRouter(tags=["workflows"])

    @routes.post(
        "/workflow-check",
        summary="Whether a workflow runs here: JSON as ComfyUI saves it or in API format, or a file that holds one",
        openapi_extra=_FILE_BODY,
    )
    async def check(request: Request) -> Response:
        service = site.require_service()
        request_body = await request.body()
        catalogue = await service.engine.catalogue()
        return JsonResponse(
            await asyncio.to_thread(report_workflow, request_body, catalogue=catalogue, lock=service.lock)
        )

    return routes


def report_workflow(file_bytes: bytes, *, catalogue: Catalogue, lock: Lock | None) -> dict[str, JsonValue]:
    """Report on the workflow in a file. Slow for a large one. Raises `WorkflowUnreadable`."""
    document = read_workflow_bytes(file_bytes, source=_SOURCE)
    try:
        loaded = load_workflow(document, catalogue)
    except WorkflowInvalid as exc:
        return _report(document, exc.findings or [{"message": exc.message, "severity": "error"}])
    preflight = run_preflight(loaded.graph, catalogue, lock, packs=loaded.node_packs)
    findings = [_finding_to_json(finding, loaded) for finding in (*loaded.warnings, *preflight.findings)]
    inputs = [input_description.to_json() for input_description in describe_inputs(loaded.graph, catalogue)]
    return {**_report(document, findings), "inputs": list[JsonValue](inputs)}


def _report(document: Document, findings: "list[Mapping[str, Any]] | Any") -> dict[str, JsonValue]:
    findings_json = [dict(finding) for finding in findings]
    return {
        "runs": not any(finding.get("severity") == "error" for finding in findings_json),
        "format": document.format,
        "workflow": dict(document.content),
        "findings": list(findings_json),
        "inputs": [],
    }


def _finding_to_json(finding: WorkflowFinding, loaded: Workflow) -> dict[str, JsonValue]:
    """Return a finding, with the pack that the workflow itself names for its node."""
    pack = loaded.node_packs.get(finding.node_id) if finding.node_id is not None else None
    return {**finding.to_json(), **({} if pack is None else {"pack": pack})}

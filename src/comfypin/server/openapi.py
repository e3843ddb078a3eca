"""Builds the server's /openapi.json: its routes, a job's input, and every workflow as an endpoint. Pure."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from comfypin.jobs.job_input import MAX_MODELS, JobInput
from comfypin.queue.interface import PRIORITIES
from comfypin.queue.webhook_records import EVENT_NAMES
from comfypin.server.request_bodies import MOST_PRIORITY, takes_models
from comfypin.server.server_state import DescribedWorkflow

_MS: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 604_800_000}
PRIORITY: dict[str, Any] = {"type": "integer", "minimum": -MOST_PRIORITY, "maximum": MOST_PRIORITY, "default": 0}
_JOB_REQUEST: dict[str, Any] = {
    "title": "JobRequest",
    "type": "object",
    "required": ["input"],
    "properties": {
        "input": {"$ref": "#/components/schemas/JobInput"},
        "webhook": {
            "type": "string",
            "pattern": "^https?://[A-Za-z0-9.-]+(:[1-9][0-9]{0,3})?(/[A-Za-z0-9/._-]*)?$",
            "maxLength": 2000,
            "description": "Told of the end: POST of the job's status, 3 tries, signed where the server has a secret.",
        },
        "webhook_events": {
            "type": "array",
            "minItems": 1,
            "items": {"enum": list(EVENT_NAMES)},
            "description": "What the webhook is told of; unset: the end, whichever it is.",
        },
        "policy": {
            "type": "object",
            "properties": {
                "executionTimeout": {**_MS, "description": "Milliseconds that the job may run."},
                "ttl": {**_MS, "description": "Milliseconds that the job may wait and run together."},
                "lowPriority": {"type": "boolean", "description": "Begin after all others: a priority of -1."},
                "priority": {
                    "anyOf": [{"enum": list(PRIORITIES)}, PRIORITY],
                    "description": "Jobs of a higher one begin earlier; high is 1, normal 0.",
                },
                "gpuClass": {"type": "string", "description": "In a fleet: the class of workers that may run it."},
                "release": {"type": "string", "description": "The release that must run it, by name or digest."},
            },
        },
        "s3Config": {"$ref": "#/components/schemas/S3Wish"},
    },
}
JOB_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobRequest"}}},
    }
}
PRIORITY_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object", "required": ["priority"], "properties": {"priority": PRIORITY}}
            }
        },
    }
}
TAGS = [
    {"name": "jobs", "description": "Runpod's endpoint API; the same below /v2/{endpoint}."},
    {"name": "workflows", "description": "The workflows of this server."},
    {"name": "webhooks", "description": "What could not be told to webhooks."},
    {"name": "models", "description": "Models that are brought while the server runs."},
    {"name": "outputs", "description": "What jobs have made."},
    {"name": "server", "description": "The server itself."},
]
_WAIT_PARAMETER = {
    "name": "wait",
    "in": "query",
    "description": "Milliseconds to wait for the end; 0: the job is only taken.",
    "schema": {"type": "integer", "minimum": 0, "maximum": 300_000, "default": 0},
}
_PRIORITY_PARAMETER = {
    "name": "priority",
    "in": "query",
    "description": "Jobs of a higher one begin earlier.",
    "schema": PRIORITY,
}
_RESPONSES = {
    "200": {"description": "The job's state.", "content": {"application/json": {"schema": {"type": "object"}}}},
    "422": {"description": "An input that the workflow cannot take."},
}


def openapi_document(application: FastAPI, workflows: Sequence[DescribedWorkflow]) -> dict[str, Any]:
    """Return the document for the application and its present workflows."""
    document = get_openapi(title=application.title, version=application.version, routes=application.routes, tags=TAGS)
    input_schema = JobInput.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")
    components = document.setdefault("components", {})
    component_schemas = components.setdefault("schemas", {})
    component_schemas.update(input_schema.pop("$defs", {}))
    component_schemas.update({"JobInput": input_schema, "JobRequest": _JOB_REQUEST})
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    # Load balancers have no token.
    document["paths"]["/ping"]["get"]["security"] = []
    # Added by hand, because FastAPI knows one route for all of them, and their inputs depend on the engine.
    for workflow in workflows:
        document["paths"][f"/workflows/{workflow.name}"] = {"post": _workflow_operation(workflow)}
    return document


def _workflow_operation(workflow: DescribedWorkflow) -> dict[str, Any]:
    body_schema: dict[str, Any] = {key: value for key, value in workflow.inputs_schema().items() if key != "$schema"}
    if takes_models(workflow.inputs):
        models = {"type": "array", "maxItems": MAX_MODELS, "items": {"$ref": "#/components/schemas/ModelWish"}}
        body_schema = {**body_schema, "properties": {**body_schema.get("properties", {}), "models": models}}
    return {
        "tags": ["workflows"],
        "summary": workflow.title or f"Run {workflow.name}",
        "description": workflow.description or "",
        "operationId": f"workflow_{workflow.name}",
        "parameters": [_WAIT_PARAMETER, _PRIORITY_PARAMETER],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body_schema}}},
        "responses": _RESPONSES,
    }

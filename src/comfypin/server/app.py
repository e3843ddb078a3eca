"""Serves Runpod's endpoint API on any machine, and the image's workflows as typed endpoints (FastAPI)."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse

from comfypin import __version__
from comfypin.errors import ComfypinError, EngineError, WorkflowError
from comfypin.models.errors import JobModelsRefused
from comfypin.queue.errors import JobUnknown, NotReordered, QueueFull, RetryRefused, RouteUnknown, WebhookNotKept
from comfypin.queue.interface import JobRoute
from comfypin.queue.status_bodies import health_body, status_body
from comfypin.server.auth import AccessRules, Gate
from comfypin.server.comfy_api.api import ComfyApi
from comfypin.server.comfy_api.envelope import PREFIX
from comfypin.server.comfy_api.routes import make_comfy_app, run_sweeps, unrouted
from comfypin.server.errors import (
    BodyTooBig,
    NotReady,
    RequestInvalid,
    RequestTooComplex,
    TooManyDownloads,
)
from comfypin.server.fleet_routes import fleet_routes
from comfypin.server.history_gate import HistoryGate
from comfypin.server.job_graph import job_graph_routes
from comfypin.server.job_intake import take_job
from comfypin.server.job_list_routes import job_list_routes
from comfypin.server.model_routes import model_routes
from comfypin.server.openapi import JOB_BODY, openapi_document
from comfypin.server.output_routes import output_routes
from comfypin.server.page_routes import Page, page_routes
from comfypin.server.prefix import RootPath
from comfypin.server.request_bodies import (
    MOST_PRIORITY,
    describe_mismatch,
    longest_wait_s,
    parse_json_body,
    read_job_request,
    require_public_webhook,
)
from comfypin.server.responses import JsonResponse, failure_response
from comfypin.server.server_state import Site
from comfypin.server.webhook_routes import webhook_routes
from comfypin.server.workflow_report import workflow_check_routes
from comfypin.small_work import run_by_size
from comfypin.workflow.errors import WorkflowNotFound

# Runpod's default of /runsync; its proxy cuts connections after 100 s.
SYNC_WAIT_MS = 90_000
# Proxies close a connection that is silent for 30 or 60 s.
_KEEP_ALIVE_S = 15.0
# The first class that fits wins, so single errors come before their families.
_STATUS_OF_ERROR: tuple[tuple[type[ComfypinError], int], ...] = (
    (QueueFull, 429),
    (RouteUnknown, 400),
    (JobUnknown, 404),
    (WorkflowNotFound, 404),
    (RetryRefused, 409),
    (NotReordered, 409),
    (WebhookNotKept, 409),
    (RequestInvalid, 400),
    (TooManyDownloads, 429),
    (RequestTooComplex, 413),
    (BodyTooBig, 413),
    (JobModelsRefused, 403),
    (NotReady, 503),
    (WorkflowError, 422),
    (EngineError, 503),
)
# About what a restart of the engine takes at best.
_RETRY_AFTER_S = 5

WaitMilliseconds = Annotated[int, Query(ge=0, le=300_000, description="Milliseconds to wait for the end.")]
Priority = Annotated[int, Query(ge=-MOST_PRIORITY, le=MOST_PRIORITY, description="Jobs of a higher one begin earlier.")]


def make_app(
    server_site: Site, rules: AccessRules, comfy_api: ComfyApi, page: Page, more_routes: Sequence[APIRouter] = ()
) -> FastAPI:
    """Return the application, with every route behind the gate."""
    application = FastAPI(
        title="comfypin",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=lambda _app: _run_beside(comfy_api, page),
    )
    application.mount(PREFIX, make_comfy_app(comfy_api))
    # Runpod's own URLs have /v2/ENDPOINT before the route; both work, so that clients need only another host.
    for family in (_endpoint_routes(server_site, comfy_api), _job_routes(server_site)):
        application.include_router(family)
        application.include_router(family, prefix="/v2/{endpoint}", include_in_schema=False)
    application.include_router(job_list_routes(comfy_api.queue, page.gallery.index))
    application.include_router(job_graph_routes(server_site))
    application.include_router(_workflow_routes(server_site))
    application.include_router(workflow_check_routes(server_site))
    application.include_router(webhook_routes(comfy_api.queue))
    application.include_router(model_routes(server_site, comfy_api.queue.events))
    application.include_router(_machine_routes(server_site, application))
    application.include_router(output_routes(page.gallery))
    application.include_router(fleet_routes(page.fleet))
    application.include_router(page_routes(rules, page))
    for routes in more_routes:
        application.include_router(routes)
    application.add_exception_handler(ComfypinError, _handle_failure)
    application.add_exception_handler(RequestValidationError, _handle_invalid)
    application.add_exception_handler(ClientDisconnect, _handle_disconnect)
    application.add_exception_handler(HTTPException, unrouted)
    application.add_middleware(HistoryGate, queue=server_site.queue)
    application.add_middleware(Gate, rules=rules)
    if page.prefix:
        application.add_middleware(RootPath, prefix=page.prefix)
    return application


@contextlib.asynccontextmanager
async def _run_beside(comfy_api: ComfyApi, page: Page) -> AsyncIterator[None]:
    """Run what the server does beside answering, while the block lasts."""
    beside = [asyncio.create_task(page.system.series.sample_forever())]
    if page.fleet_outputs is not None:
        beside.append(asyncio.create_task(page.fleet_outputs.list_forever()))
    try:
        async with run_sweeps(comfy_api):
            yield
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


def _endpoint_routes(server_site: Site, comfy_api: ComfyApi) -> APIRouter:
    routes, queue = APIRouter(tags=["jobs"]), server_site.queue

    async def take_sent_job(http_request: Request) -> str:
        request_body = await http_request.body()
        job_request = await run_by_size(len(request_body), read_job_request, request_body)
        if not server_site.allows_private_webhooks:
            require_public_webhook(job_request.webhook)
        return await take_job(comfy_api.queue, job_request)

    @routes.post("/run", summary="Take a job", openapi_extra=JOB_BODY)
    async def run(http_request: Request) -> Response:
        return _accepted_response(await take_sent_job(http_request))

    @routes.post("/runsync", summary="Take a job and wait for its end", openapi_extra=JOB_BODY)
    async def runsync(http_request: Request, wait: WaitMilliseconds = SYNC_WAIT_MS) -> Response:
        begun_at_s = time.monotonic()
        job_id = await take_sent_job(http_request)
        # Taking a large job takes a while too, and the client's patience began before it.
        wait_s = longest_wait_s(http_request.url.hostname, wait) - (time.monotonic() - begun_at_s)
        return JsonResponse(status_body(await queue.read_record(job_id, wait_s=wait_s)))

    @routes.post("/retry/{job_id}", summary="Run a job again that failed or took too long")
    async def retry(job_id: str) -> Response:
        await queue.retry_job(job_id)
        return _accepted_response(job_id)

    @routes.post("/purge-queue", summary="Cancel all jobs that wait")
    async def purge() -> Response:
        return JsonResponse({"removed": await queue.cancel_waiting(), "status": "completed"})

    @routes.get("/health", summary="Jobs and workers by state")
    async def health() -> Response:
        states = health_body(await queue.count_jobs(), trouble=queue.trouble, ready=server_site.is_ready)
        release = server_site.release
        doubt = {} if release.doubt is None else {"release_reason": release.doubt}
        return JsonResponse({**states, "release": release.name, "release_digest": release.digest_text, **doubt})

    return routes


def _job_routes(server_site: Site) -> APIRouter:
    routes, queue = APIRouter(tags=["jobs"]), server_site.queue

    # Runpod takes POST here too, and so does its SDK's own local server.
    @routes.get("/status/{job_id}", summary="A job's state, progress and result")
    @routes.post("/status/{job_id}", include_in_schema=False)
    async def status(job_id: str) -> Response:
        return JsonResponse(status_body(await queue.read_record(job_id)))

    @routes.get("/stream/{job_id}", summary="A job's progress: server-sent events, or what is new since the last call")
    @routes.post("/stream/{job_id}", include_in_schema=False)
    async def stream(
        http_request: Request,
        job_id: str,
        after: Annotated[int | None, Query(ge=0, description="The `next` of an earlier answer.")] = None,
    ) -> Response:
        record = await queue.read_record(job_id)
        if "text/event-stream" in http_request.headers.get("accept", ""):
            return StreamingResponse(_stream_events(server_site, job_id), media_type="text/event-stream")
        progress_list, told_count = queue.take_progress(job_id, poller=_name_poller(http_request), after=after)
        chunks = [{"output": dict(progress)} for progress in progress_list]
        return JsonResponse({"status": record.row.state, "stream": chunks, "next": told_count})

    @routes.post("/cancel/{job_id}", summary="Stop a job")
    async def cancel(job_id: str) -> Response:
        return JsonResponse({"id": job_id, "status": await queue.cancel_job(job_id)})

    return routes


def _workflow_routes(server_site: Site) -> APIRouter:
    routes, queue = APIRouter(tags=["workflows"]), server_site.queue

    @routes.get("/workflows", summary="The workflows of this server, and what may be set in them")
    async def workflows() -> Response:
        described = [
            await server_site.describe_workflow(workflow_name) for workflow_name in server_site.workflow_names()
        ]
        return JsonResponse(
            [
                {
                    "name": workflow.name,
                    "title": workflow.title,
                    "description": workflow.description,
                    "inputs": [workflow_input.to_json() for workflow_input in workflow.inputs],
                }
                for workflow in described
            ]
        )

    @routes.post("/workflows/{name}", include_in_schema=False)
    async def run_workflow(
        http_request: Request, name: str, wait: WaitMilliseconds = 0, priority: Priority = 0
    ) -> Response:
        request_body = await http_request.body()
        job_request = await server_site.make_job(
            name, await run_by_size(len(request_body), parse_json_body, request_body) if request_body.strip() else {}
        )
        job_id = await queue.accept_job(
            dict(job_request),
            webhook=None,
            timeout_s=None,
            ttl_s=None,
            api="workflows",
            route=JobRoute(priority="high" if priority > 0 else "normal", rank=priority),
        )
        if not wait:
            return _accepted_response(job_id)
        wait_s = longest_wait_s(http_request.url.hostname, wait)
        return JsonResponse(status_body(await queue.read_record(job_id, wait_s=wait_s)))

    return routes


def _machine_routes(server_site: Site, application: FastAPI) -> APIRouter:
    routes, queue = APIRouter(tags=["server"]), server_site.queue

    @routes.get("/ping", summary="200 ready, 204 starting, 503 unfit or stopping; needs no token")
    async def ping() -> Response:
        return Response(status_code=server_site.ping_status)

    @routes.get("/metrics", summary="Prometheus text")
    async def metrics(http_request: Request) -> Response:
        # In a thread: the driver of the GPUs may take its time.
        page, content_type = await asyncio.to_thread(queue.metrics.render_page, http_request.headers.get("accept", ""))
        return Response(page, headers={"Content-Type": content_type})

    @routes.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        described = (
            [await server_site.describe_workflow(workflow_name) for workflow_name in server_site.workflow_names()]
            if server_site.is_ready
            else []
        )
        return JsonResponse(openapi_document(application, described))

    return routes


async def _stream_events(server_site: Site, job_id: str) -> AsyncIterator[bytes]:
    """Yield a job as server-sent events: `progress` as it comes, and `status` once, at the end."""
    async for progress in server_site.queue.follow_progress(job_id, silence_s=_KEEP_ALIVE_S):
        if progress is None:
            yield b": still there\n\n"  # a comment: proxies see that the connection lives, and clients skip it
        else:
            yield _format_event("progress", json.dumps(progress).encode())
    yield _format_event("status", status_body(await server_site.queue.read_record(job_id)))


def _format_event(event_name: str, data: bytes) -> bytes:
    return b"event: " + event_name.encode() + b"\ndata: " + data + b"\n\n"


def _name_poller(http_request: Request) -> str:
    """Name a client that polls without saying what it has seen: Runpod's own do, each over a connection that stays."""
    client = http_request.client
    return f"{client.host}:{client.port}" if client is not None else ""


def _accepted_response(job_id: str) -> Response:
    return JsonResponse({"id": job_id, "status": "IN_QUEUE"})


async def _handle_failure(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ComfypinError)
    status = next((status for error_class, status in _STATUS_OF_ERROR if isinstance(error, error_class)), 503)
    wait_s = error.retry_after_s if isinstance(error, QueueFull) else _RETRY_AFTER_S
    headers = {"Retry-After": str(wait_s)} if status in (429, 503) else None
    return failure_response(status, error.message, headers=headers, error_type=type(error).__name__)


async def _handle_disconnect(_request: Request, _error: Exception) -> Response:
    return failure_response(
        400, "The request was cut off."
    )  # nobody reads it; without it, each would be a traceback in the log


async def _handle_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    failure = RequestInvalid(reason=describe_mismatch(error.errors()))
    return failure_response(400, failure.message, error_type="RequestInvalid")

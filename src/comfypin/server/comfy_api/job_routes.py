"""The routes of jobs: submit, list, show, workflow, cancel, events."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from comfypin.server.comfy_api.api import ComfyApi
from comfypin.server.comfy_api.errors import ApiFailure, respond
from comfypin.server.comfy_api.job_stream import JobStream
from comfypin.server.comfy_api.jobs import Jobs
from comfypin.server.comfy_api.links import Links
from comfypin.server.comfy_api.records import ComfyJob
from comfypin.server.comfy_api.submission import MOST_LABELS, read_submission, submit
from comfypin.server.counted_stream import EventStreamResponse, OpenStreams
from comfypin.server.responses import JsonResponse
from comfypin.small_work import run_by_size

_STREAMS_FREE_WITHIN_S = 5


def job_routes(api: ComfyApi) -> APIRouter:
    """Return the routes of jobs."""
    routes, jobs = APIRouter(), Jobs(api)
    open_streams = OpenStreams(api.limits.streams)

    def links_of(request: Request) -> Links:
        return Links.of(request, api.public_url)

    @routes.post("/jobs")
    async def create(request: Request) -> Response:
        key = request.headers.get("idempotency-key")
        await api.keys.check(key)
        request_body = await request.body()
        submission = await run_by_size(len(request_body), read_submission, request_body)
        # A client that goes away does not undo what it has asked for.
        job_id = await asyncio.shield(submit(api, submission, key))
        noted = ComfyJob(workflow=submission.workflow, labels=submission.labels, had_key=submission.api_key is not None)
        return JsonResponse(await jobs.show_new(job_id, noted, links_of(request)), 201)

    @routes.get("/jobs")
    async def listed(request: Request) -> Response:
        query = request.query_params
        page = await jobs.page(
            links_of(request),
            cursor=query.get("cursor") or None,
            limit=query.get("limit"),
            labels=_label_filter(request),
        )
        return JsonResponse(page)

    @routes.get("/jobs/{job_id}")
    async def show(request: Request, job_id: str) -> Response:
        return JsonResponse(await jobs.show(job_id, links_of(request)))

    @routes.get("/jobs/{job_id}/workflow")
    async def workflow(job_id: str) -> Response:
        return JsonResponse(await jobs.workflow(job_id))

    @routes.post("/jobs/{job_id}/cancel")
    async def cancel(request: Request, job_id: str) -> Response:
        await jobs.cancel(job_id)
        return JsonResponse(await jobs.show(job_id, links_of(request)))

    @routes.get("/jobs/{job_id}/events")
    async def events(request: Request, job_id: str) -> Response:
        await api.queue.read_record(job_id)
        stream = JobStream(api, jobs, job_id, links_of(request))
        return EventStreamResponse(stream.events(), open_streams, refuse=lambda: _too_many(open_streams.count))

    return routes


def _too_many(following: int) -> Response:
    message = f"{following} event streams are open, as many as there may be; poll the job, or try again later."
    return respond(ApiFailure(429, "too_many_streams", message, retry_after_s=_STREAMS_FREE_WITHIN_S))


def _label_filter(request: Request) -> dict[str, str]:
    """Read `metadata[NAME]=VALUE` of a query. Raises `ApiFailure` (invalid_metadata_filter)."""
    labels: dict[str, str] = {}
    for parameter_name, value in request.query_params.multi_items():
        if not parameter_name.startswith("metadata"):
            continue
        label = parameter_name.removeprefix("metadata[").removesuffix("]")
        if parameter_name != f"metadata[{label}]" or not label or label in labels or len(labels) == MOST_LABELS:
            message = f"A filter is metadata[NAME]=VALUE, each name once, {MOST_LABELS} at most."
            raise ApiFailure(422, "invalid_metadata_filter", message)
        labels[label] = value
    return labels

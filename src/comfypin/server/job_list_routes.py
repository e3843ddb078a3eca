"""The routes of people and pages: the list of jobs, one job with all that is known of it, and what happens to all."""

import asyncio
import base64
import json
from typing import Annotated, Literal, cast
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from comfypin.jobs.interface import JOB_STATES, JobState
from comfypin.queue.interface import ServedQueue
from comfypin.queue.job_listing import JobFilter
from comfypin.queue.status_bodies import is_pending
from comfypin.server.counted_stream import EventStreamResponse, OpenStreams
from comfypin.server.errors import RequestInvalid, TooManyFollowers
from comfypin.server.event_frames import FrameCache
from comfypin.server.event_stream import EventGroup
from comfypin.server.job_intake import take_job_again
from comfypin.server.job_manifest import checksum_lines, job_manifest
from comfypin.server.job_views import JobViews
from comfypin.server.openapi import PRIORITY_BODY
from comfypin.server.output_index import OutputIndex
from comfypin.server.request_bodies import parse_json_body, read_priority
from comfypin.server.responses import JsonResponse, failure_response

# Each holds a connection; the rest of the thousand is for jobs.
_MOST_FOLLOWERS = 400
# A page of jobs is put together in memory.
_LARGEST_PAGE = 200
_STREAMS_FREE_WITHIN_S = 5
# It is compared with every job's texts.
_LONGEST_FILTER = 500
ManifestForm = Annotated[
    Literal["json", "sha256"], Query(alias="format", description="sha256: as `sha256sum -c` reads it.")
]


def job_list_routes(queue: ServedQueue, outputs: OutputIndex) -> APIRouter:
    """Return the routes."""
    routes, views = APIRouter(tags=["jobs"]), JobViews(queue)
    frames = FrameCache(views, queue.events)
    groups = [EventGroup(queue.events, frames, with_previews=with_previews) for with_previews in (False, True)]
    open_streams = OpenStreams(_MOST_FOLLOWERS)

    @routes.get("/jobs", summary="The jobs of all APIs, newest first")
    async def jobs(  # noqa: PLR0917 - the parameters of a query
        state: Annotated[list[str] | None, Query(description="States, repeated or with commas.")] = None,
        workflow: Annotated[str | None, Query(max_length=_LONGEST_FILTER, description="A workflow's name.")] = None,
        release: Annotated[str | None, Query(max_length=_LONGEST_FILTER, description="A release's name.")] = None,
        text: Annotated[
            str | None, Query(max_length=_LONGEST_FILTER, description="What is in a text of the graph, or in the id.")
        ] = None,
        after: Annotated[str | None, Query(description="The `next` of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=_LARGEST_PAGE)] = 50,
    ) -> Response:
        job_filter = JobFilter(
            states=_read_states(state or []),
            workflow=workflow,
            release=release,
            text=text,
            before=_read_cursor(after),
            limit=limit,
        )
        summaries, last_number = await views.page(job_filter)
        return JsonResponse({"jobs": summaries, "next": None if last_number is None else _write_cursor(last_number)})

    @routes.get("/jobs/{job_id}", summary="All that is known of a job: input, output, progress, timing")
    async def job(job_id: str) -> Response:
        return JsonResponse(await views.details(job_id))

    @routes.get("/jobs/{job_id}/manifest", summary="The files of a job with their checksums, as a file")
    async def manifest(job_id: str, form: ManifestForm = "json") -> Response:
        record = await queue.read_record(job_id)
        files = await outputs.of_job(job_id)
        file_name = f"{job_id}.{'manifest.json' if form == 'json' else 'sha256'}"
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(file_name, safe='', errors='replace')}"}
        if form == "sha256":
            return Response(checksum_lines(files), headers=headers, media_type="text/plain; charset=utf-8")
        result = json.loads(record.output or "{}") if not is_pending(record.row.state) else {}
        manifest = job_manifest(record.row, result if isinstance(result, dict) else {}, files)
        return Response(json.dumps(manifest, indent=2), headers=headers, media_type="application/json")

    @routes.post(
        "/jobs/{job_id}/priority",
        summary="Let a job that waits begin earlier or later than others",
        openapi_extra=PRIORITY_BODY,
    )
    async def prioritize(http_request: Request, job_id: str) -> Response:
        document = await asyncio.to_thread(parse_json_body, await http_request.body())
        sent_value = document.get("priority") if isinstance(document, dict) else None
        await queue.prioritize_job(job_id, read_priority(sent_value, "`priority`"))
        return JsonResponse(await views.details(job_id))

    @routes.post("/jobs/{job_id}/again", summary="Take a new job that asks for the same; for jobs that completed, too")
    async def again(
        job_id: str,
        seeds: Annotated[Literal["same", "new"], Query(description="new: draw all seeds anew.")] = "same",
    ) -> Response:
        new_id = await take_job_again(queue, job_id, new_seeds=seeds == "new")
        return JsonResponse({"id": new_id, "status": "IN_QUEUE"})

    @routes.get("/events", summary="What happens to all jobs, as server-sent events; begins with a snapshot")
    async def events(
        http_request: Request,
        previews: Annotated[int, Query(ge=0, le=1, description="0: no pictures of jobs that run.")] = 1,
        after: Annotated[str | None, Query(description="As the header Last-Event-ID.")] = None,
    ) -> Response:
        followed = groups[previews].follow(http_request.headers.get("last-event-id") or after)
        return EventStreamResponse(followed, open_streams, refuse=lambda: _too_many(open_streams.count))

    return routes


def _too_many(following: int) -> Response:
    failure = TooManyFollowers(following=following)
    headers = {"Retry-After": str(_STREAMS_FREE_WITHIN_S)}
    return failure_response(429, failure.message, headers=headers, error_type=type(failure).__name__)


def _read_states(state_params: list[str]) -> tuple[JobState, ...]:
    names = [
        state_name.strip().upper() for part in state_params for state_name in part.split(",") if state_name.strip()
    ]
    for state_name in names:
        if state_name not in JOB_STATES:
            raise RequestInvalid(reason=f"`state` must be one of {', '.join(JOB_STATES)}, not {state_name[:40]!r}")
    return tuple(cast("JobState", state_name) for state_name in dict.fromkeys(names))


def _write_cursor(number: int) -> str:
    return base64.urlsafe_b64encode(b"before:%d" % number).decode()


def _read_cursor(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    try:
        cursor_name, _, number = base64.urlsafe_b64decode(cursor.encode()).decode().partition(":")
        if cursor_name == "before" and number.isascii() and number.isdigit() and len(number) < 19:
            return int(number)
    except ValueError:
        pass
    raise RequestInvalid(reason="`after` must be the `next` of an earlier page")

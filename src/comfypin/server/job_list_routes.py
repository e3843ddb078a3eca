"""The routes of people and pages: the list of jobs, one job with all that is known of it, and what happens to all."""

import base64
from collections.abc import AsyncIterator
from typing import Annotated, cast

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from comfypin.jobs.interface import JOB_STATES, JobState
from comfypin.queue.interface import ServedQueue
from comfypin.queue.job_listing import JobFilter
from comfypin.server.errors import RequestInvalid, TooManyFollowers
from comfypin.server.event_stream import EventStream, FrameCache
from comfypin.server.job_views import JobViews
from comfypin.server.responses import JsonResponse

# Each holds a connection; the rest of the thousand is for jobs.
_MOST_FOLLOWERS = 400
_LARGEST_PAGE = 200
# It is compared with every job's texts.
_LONGEST_FILTER = 500


def job_list_routes(queue: ServedQueue) -> APIRouter:
    """Return the routes."""
    routes, views = APIRouter(tags=["jobs"]), JobViews(queue)
    frame_cache = FrameCache(views)
    following = 0

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
        shown, last_number = await views.page(job_filter)
        return JsonResponse({"jobs": shown, "next": None if last_number is None else _write_cursor(last_number)})

    @routes.get("/jobs/{job_id}", summary="All that is known of a job: input, output, progress, timing")
    async def job(job_id: str) -> Response:
        return JsonResponse(await views.details(job_id))

    @routes.get("/events", summary="What happens to all jobs, as server-sent events; begins with a snapshot")
    async def events(
        http_request: Request,
        previews: Annotated[int, Query(ge=0, le=1, description="0: no pictures of jobs that run.")] = 1,
        after: Annotated[str | None, Query(description="As the header Last-Event-ID.")] = None,
    ) -> Response:
        if following >= _MOST_FOLLOWERS:
            raise TooManyFollowers(following=following)
        stream = EventStream(
            queue.events,
            frame_cache,
            last_event_id=http_request.headers.get("last-event-id") or after,
            with_previews=bool(previews),
        )
        return StreamingResponse(
            counted(stream),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def counted(stream: EventStream) -> AsyncIterator[bytes]:
        nonlocal following
        following += 1
        try:
            async for frame in stream.frames():
                yield frame
        finally:
            following -= 1

    return routes


def _read_states(asked: list[str]) -> tuple[JobState, ...]:
    names = [name.strip().upper() for part in asked for name in part.split(",") if name.strip()]
    for name in names:
        if name not in JOB_STATES:
            raise RequestInvalid(reason=f"`state` must be one of {', '.join(JOB_STATES)}, not {name[:40]!r}")
    return tuple(cast("JobState", name) for name in dict.fromkeys(names))


def _write_cursor(number: int) -> str:
    return base64.urlsafe_b64encode(b"before:%d" % number).decode()


def _read_cursor(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    try:
        name, _, number = base64.urlsafe_b64decode(cursor.encode()).decode().partition(":")
        if name == "before" and number.isascii() and number.isdigit() and len(number) < 19:
            return int(number)
    except ValueError:
        pass
    raise RequestInvalid(reason="`after` must be the `next` of an earlier page")

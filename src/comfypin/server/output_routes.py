"""The newest outputs of all jobs, their bytes, and their thumbnails."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from mimetypes import guess_type
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from comfypin.atomic_files import contained_path
from comfypin.jobs.interface import JOB_STATES
from comfypin.server.errors import RequestInvalid
from comfypin.server.file_responses import send_file
from comfypin.server.output_files import UNTRUSTED_HEADERS, OutputFiles, untrusted_headers
from comfypin.server.output_index import ListedOutput, OutputFilter, OutputIndex, output_to_json
from comfypin.server.responses import JsonResponse, failure_response
from comfypin.server.thumbnails import Thumbnails

_LARGEST_NUMBER = 1 << 62
_NO_THUMBNAIL = "There is no thumbnail of this output."
_NO_OUTPUT = "There is no such output."

Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
Text = Annotated[str | None, Query(max_length=200)]
Moment = Annotated[str | None, Query(max_length=40, description="A day (2026-11-29, in UTC), or a time with its zone.")]
Several = Annotated[list[str] | None, Query(description="One or more, repeated or separated by commas.")]


Redirect = Annotated[bool, Query(description="0: the bytes come through this server, also out of a bucket.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """What the routes of outputs share. `folder` is served below /outputs/."""

    index: OutputIndex
    files: OutputFiles
    thumbnails: Thumbnails
    folder: Path


def output_routes(gallery: Gallery) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["outputs"])

    @routes.get("/outputs", summary="The newest outputs of all jobs")
    async def outputs(  # noqa: PLR0917 - the names of its query
        after: Text = None,
        limit: Limit = 50,
        workflow: Text = None,
        release: Text = None,
        state: Several = None,
        text: Text = None,
        kind: Several = None,
        job: Text = None,
        since: Moment = None,
        until: Moment = None,
    ) -> Response:
        output_filter = OutputFilter(
            workflow=workflow,
            release=release,
            states=_read_states(_split(state)),
            kinds=_split(kind),
            text=text,
            job_id=job,
            made_since=_read_moment(since, "since", is_end=False),
            made_before=_read_moment(until, "until", is_end=True),
        )
        # One more than is shown says whether there is a next page.
        page_outputs = await gallery.index.page(output_filter, before=_read_cursor(after), limit=limit + 1)
        shown_outputs = page_outputs[:limit]
        return JsonResponse(
            {
                "outputs": [_to_json(gallery, output) for output in shown_outputs],
                "next": str(shown_outputs[-1].number) if len(page_outputs) > limit else None,
                # What the first page is filtered by next.
                **({"names": await gallery.index.names()} if after is None else {}),
            }
        )

    @routes.get("/outputs/{path:path}", summary="An output that was delivered to this machine")
    async def output_file(request: Request, path: str) -> Response:
        sent: Response | None = None
        with contextlib.suppress(ValueError, OSError):
            file_path = contained_path(gallery.folder, path)
            if not any(part.startswith(".") for part in path.split("/")):
                headers = untrusted_headers(guess_type(file_path.name)[0] or "", file_path.name)
                sent = await send_file(request, file_path, headers=headers)
        return sent or failure_response(404, _NO_OUTPUT)

    @routes.get("/jobs/{job_id}/outputs/{position}", summary="An output of a job, or the way to it")
    async def output(
        request: Request, job_id: str, position: int, *, download: bool = False, redirect: Redirect = True
    ) -> Response:
        stored_output = await _find(gallery, job_id, position)
        if stored_output is None:
            return failure_response(404, _NO_OUTPUT)
        return await gallery.files.respond(request, stored_output, is_download=download, may_redirect=redirect)

    @routes.get("/jobs/{job_id}/outputs/{position}/address", summary="An address of an output that others can open")
    async def output_address(job_id: str, position: int) -> Response:
        stored_output = await _find(gallery, job_id, position)
        if stored_output is None:
            return failure_response(404, _NO_OUTPUT)
        uri = str(stored_output.facts.get("uri") or "")
        return JsonResponse(
            {"url": await gallery.files.make_address(stored_output), "uri": uri if "://" in uri else None}
        )

    @routes.get("/jobs/{job_id}/outputs/{position}/thumbnail", summary="A small picture of an output, as WebP")
    async def thumbnail(request: Request, job_id: str, position: int) -> Response:
        stored_output = await _find(gallery, job_id, position)
        file_path = None if stored_output is None else await _thumbnail_file(gallery, stored_output)
        if file_path is None:
            return failure_response(404, _NO_THUMBNAIL)
        # A job that runs again may leave another picture at its place.
        headers = {**UNTRUSTED_HEADERS, "Cache-Control": "private, max-age=3600"}
        sent = await send_file(request, file_path, headers=headers, media_type="image/webp")
        return sent or failure_response(404, _NO_THUMBNAIL)

    return routes


async def _find(gallery: Gallery, job_id: str, position: int) -> ListedOutput | None:
    return await gallery.index.find(job_id, position) if 0 <= position < _LARGEST_NUMBER else None


async def _thumbnail_file(gallery: Gallery, output: ListedOutput) -> Path | None:
    sha256 = output.sha256
    if sha256 is None or not gallery.thumbnails.may_have(output.kind, output.facts.get("media_type"), sha256):
        return None
    known = await gallery.thumbnails.find(sha256)
    if known is not None:
        return known
    original = await gallery.files.fetch(output)
    return await gallery.thumbnails.find_or_make(sha256, output.kind, lambda: original)


def _to_json(gallery: Gallery, output: ListedOutput) -> dict[str, object]:
    has_thumbnail = gallery.thumbnails.may_have(output.kind, output.facts.get("media_type"), output.sha256)
    return dict(output_to_json(output, bucket=gallery.files.bucket_of(output), has_thumbnail=has_thumbnail))


def _read_moment(moment_text: str | None, parameter_name: str, *, is_end: bool) -> float | None:
    """Read a day, whose end it is if `is_end`, or a time. Raises `RequestInvalid`."""
    if not moment_text:
        return None
    try:
        moment = datetime.fromisoformat(moment_text)
    except ValueError:
        raise RequestInvalid(reason=f"`{parameter_name}` must be a day or a time as ISO 8601 has them") from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    is_day = len(moment_text) == len("2026-11-29")
    try:
        return (moment + timedelta(days=1) if is_end and is_day else moment).timestamp()
    except (OverflowError, ValueError):
        raise RequestInvalid(reason=f"`{parameter_name}` is out of range") from None


def _split(several: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(part.strip() for filter_text in several or () for part in filter_text.split(",") if part.strip())[:20]


def _read_states(states: Sequence[str]) -> tuple[str, ...]:
    state_names = tuple(state.upper() for state in states)
    for state in state_names:
        if state not in JOB_STATES:
            raise RequestInvalid(reason=f"`state` must be one of {', '.join(JOB_STATES)}")
    return state_names


def _read_cursor(after: str | None) -> int | None:
    if after is None:
        return None
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        raise RequestInvalid(reason="`after` must be the `next` of an earlier answer")
    return int(after)

"""Sends files of this machine: a small one is read in one way to a thread, which four would take as a stream.

A part of a file is sent as RFC 9110 has it (https://www.rfc-editor.org/rfc/rfc9110#section-14): what cannot be read as
one range is as if it were not there, and one behind the file's end is refused with the file's size.
"""

import asyncio
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from comfypin.plurals import format_count
from comfypin.server.comfy_api.envelope import envelope, speaks_envelope
from comfypin.server.comfy_api.own_bucket import match_range, read_range
from comfypin.server.responses import failure_response

_SMALL_BYTES = 256 << 10


async def send_file(
    request: Request,
    path: Path,
    *,
    headers: Mapping[str, str],
    media_type: str | None = None,
    filename: str | None = None,
) -> Response | None:
    """Return a file, or the part of it that the request asks for; None if it is not there."""
    wanted_range = _take_range(request)
    asks_for_all = request.method == "GET" and wanted_range is None
    file_facts = await asyncio.to_thread(_look, path, most_bytes=_SMALL_BYTES if asks_for_all else -1)
    if file_facts is None:
        return None
    status, content = file_facts
    # With If-Range the whole file may be wanted: Starlette compares.
    if read_range(wanted_range, status.st_size) is None and "if-range" not in request.headers:
        return refuse_range(status.st_size, in_envelope=speaks_envelope(request.url.path))
    streamed = FileResponse(path, headers=headers, media_type=media_type, filename=filename, stat_result=status)
    if content is None:
        return streamed
    whole = Response(content)
    # Starlette's own headers for the file (ETag, dates, length) hold for its bytes as well.
    whole.raw_headers = streamed.raw_headers
    return whole


def _take_range(request: Request) -> str | None:
    """Return the range that a request asks for; one that cannot be read is taken out of the request."""
    wanted_range = request.headers.get("range")
    if wanted_range is None or match_range(wanted_range) is not None:
        return wanted_range
    request.scope["headers"] = [header for header in request.scope["headers"] if header[0] != b"range"]
    return None


def refuse_range(size_bytes: int, *, in_envelope: bool = False) -> Response:
    """Return the answer to a request for a part that begins behind the end."""
    message = f"The range is behind the end of the file, which has {format_count(size_bytes, 'byte')}."
    headers = {"Content-Range": f"bytes */{size_bytes}"}
    if in_envelope:
        return envelope(416, "range_not_satisfiable", message, headers=headers)
    return failure_response(416, message, headers=headers)


def _look(path: Path, *, most_bytes: int) -> tuple[os.stat_result, bytes | None] | None:
    """Return a file's facts, and its bytes if these are at most so many and do not change. Blocks."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return None
        content = path.read_bytes() if status.st_size <= most_bytes else None
    except OSError:
        return None
    return status, content if content is not None and len(content) == status.st_size else None

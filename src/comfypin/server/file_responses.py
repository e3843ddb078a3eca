"""Sends files of this machine: a small one is read in one way to a thread, which four would take as a stream."""

import asyncio
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, Response

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
    # From the scope: a Range that cannot be read may have been taken out.
    asks_for_all = request.method == "GET" and "range" not in Headers(scope=request.scope)
    file_facts = await asyncio.to_thread(_look, path, most_bytes=_SMALL_BYTES if asks_for_all else -1)
    if file_facts is None:
        return None
    status, content = file_facts
    streamed = FileResponse(path, headers=headers, media_type=media_type, filename=filename, stat_result=status)
    if content is None:
        return streamed
    whole = Response(content)
    # Starlette's own headers for the file (ETag, dates, length) hold for its bytes as well.
    whole.raw_headers = streamed.raw_headers
    return whole


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

"""Responses with what lies in the server's bucket, for clients that have no keys for it."""

import asyncio
from collections.abc import Mapping

from starlette.responses import Response, StreamingResponse

from comfypin.server.comfy_api.own_bucket import OwnBucket, read_range
from comfypin.server.file_responses import refuse_range


async def respond_from_bucket(
    bucket: OwnBucket,
    uri: str,
    wanted_range: str | None,
    *,
    media_type: str,
    headers: Mapping[str, str],
    in_envelope: bool = False,
) -> Response | None:
    """Return the object, or the part that a Range header asks for; None if it is gone. Raises `StorageError`.

    `in_envelope` is for refusals of Comfy API v2.
    """
    stored = await asyncio.to_thread(bucket.head, uri)
    if stored is None:
        return None
    byte_range = read_range(wanted_range, stored.size_bytes)
    all_headers = {"Accept-Ranges": "bytes", **headers}
    if byte_range is None:
        return refuse_range(stored.size_bytes, in_envelope=in_envelope)
    all_headers["Content-Length"] = str(len(byte_range))
    is_whole = len(byte_range) == stored.size_bytes
    if not is_whole:
        all_headers["Content-Range"] = f"bytes {byte_range.start}-{byte_range.stop - 1}/{stored.size_bytes}"
    return StreamingResponse(
        bucket.read(uri, byte_range),  # in threads, as Starlette reads what blocks
        status_code=200 if is_whole else 206,
        media_type=media_type,
        headers=all_headers,
    )

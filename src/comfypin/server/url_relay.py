"""Passes on what lies at the address of a bucket that is not the server's, since the page may ask no other host."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping

from starlette.responses import Response, StreamingResponse

from comfypin.http.client import HttpClient, shown_url
from comfypin.http.errors import HttpError
from comfypin.http.response import Response as HttpResponse
from comfypin.server.responses import failure_response

log = logging.getLogger(__name__)

_PASSED_HEADERS = ("Content-Length", "Content-Range", "Accept-Ranges")
# A bucket says so of an address whose time is over, and of an object that is gone.
_GONE = (401, 403, 404, 410)


class UrlRelay:
    """Reads the addresses that jobs got. `open_client` opens a client that refuses what the server must not ask."""

    def __init__(self, open_client: Callable[[], HttpClient]) -> None:
        self._open_client = open_client

    async def respond(
        self, url: str, wanted_range: str | None, *, media_type: str, headers: Mapping[str, str]
    ) -> Response:
        """Return what is at an address, or the part that a Range header asks for; a failure says why it is not."""
        sent = {"Accept-Encoding": "identity", **({"Range": wanted_range} if wanted_range else {})}
        try:
            bucket_response = await asyncio.to_thread(self._open_client().get, url, sent)
        except HttpError as error:
            return failure_response(502, f"{shown_url(url)}: {error.reason}.")
        if bucket_response.status not in (200, 206):
            bucket_response.close()
            # Told apart from a failure: a signed address that ran out stays so, and retrying helps nobody.
            if bucket_response.status in _GONE:
                reason = "The address of this output is not valid any longer, or the output is gone from its bucket."
                return failure_response(410, reason)
            return failure_response(502, f"The output's bucket answered with HTTP {bucket_response.status}.")
        passed = {
            header_name: bucket_response.headers[header_name]
            for header_name in _PASSED_HEADERS
            if header_name in bucket_response.headers
        }
        return StreamingResponse(
            _read_pieces(bucket_response),  # in threads, as Starlette reads what blocks
            status_code=bucket_response.status,
            media_type=media_type,
            headers={**headers, **passed},
        )

    def read(self, url: str, size_bytes: int) -> bytes | None:
        """Return what is at an address, or None if it is not `size_bytes` large or cannot be read. Blocks."""
        try:
            with self._open_client().get(url, {"Accept-Encoding": "identity"}) as bucket_response:
                picture_bytes = bucket_response.read_bytes(size_bytes) if bucket_response.status == 200 else b""
        except HttpError as error:
            log.info("no thumbnail", extra={"action": "no_thumbnail", "url": shown_url(url), "reason": error.reason})
            return None
        # Half a picture would be kept as the thumbnail for good.
        return picture_bytes if len(picture_bytes) == size_bytes else None


def _read_pieces(bucket_response: HttpResponse) -> Iterator[bytes]:
    with bucket_response:
        yield from bucket_response.iter_bytes()

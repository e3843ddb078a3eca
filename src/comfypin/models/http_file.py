"""Reads files over HTTP: learns their size and version from the first response, then reads ranges over many
connections.
"""

import contextlib
import re
import threading
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from comfypin.digest import Digest
from comfypin.http.client import HttpClient
from comfypin.http.response import Response
from comfypin.models.errors import NotAModel, SourceChanged, SourceFailed
from comfypin.models.http_responses import to_refusal
from comfypin.models.interface import ExpectedFile, RangeReader, SourceFacts, hide_secrets

# Large enough that a request's latency does not count, small enough that a lost connection loses little.
PART_BYTES = 8 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class HttpFile:
    """A file at a URL: the first response tells its size, its version and whether it can be read in ranges."""

    part_bytes = PART_BYTES

    def __init__(
        self,
        client: HttpClient,
        url: str,
        address: str,
        *,
        start: int,
        length: int | None,
        led_by: str | None = None,
    ) -> None:
        """Ask for the first range. `led_by` is the address of the server that named `url`, if the lock itself did
        not.
        """
        self._client = client
        self._url = url
        self._led_by = led_by
        self._uri = address
        self._direct: str | None = None
        self.validator: str | None = None
        self._reading: set[Response] = set()
        self._lock = threading.Lock()
        # The first request asks for the first bytes at once: a small file needs no second one.
        response = self._request_range(start, length)
        try:
            self._learn_version(response, start)
        # A response that nobody will read must give its connection back.
        except BaseException:
            response.close()
            raise
        self._waiting: tuple[int, int | None, Response] | None = (start, length, response)

    def _learn_version(self, response: Response, start: int) -> None:
        _refuse_pages(response, self._uri)
        self.validator = _file_version(response)
        self.ranged = response.status == 206
        self.size_bytes = _total_bytes(response, start, self._uri) if self.ranged else response.size_bytes
        # Hubs redirect to a CDN: later ranges skip the redirect.
        if response.url != self._url:
            self._direct = response.url
        self.hops = response.hops
        self._headers = response.headers

    def first_header(self, header_name: str) -> str | None:
        """Return a header of the first response."""
        return self._headers.get(header_name)

    @contextlib.contextmanager
    def read(self, start: int, length: int | None) -> Iterator[RangeReader]:
        response = self._response_for(start, length)
        with self._lock:
            self._reading.add(response)
        try:
            yield response
        finally:
            with self._lock:
                self._reading.discard(response)
            response.close()

    def abort(self) -> None:
        """End every read that is in progress."""
        with self._lock:
            reading = list(self._reading)
        for response in reading:
            response.abort()

    def close(self) -> None:
        """Drop the first response if nobody read it."""
        unread_response, self._waiting = self._waiting, None
        if unread_response is not None:
            unread_response[2].close()

    def _response_for(self, start: int, length: int | None) -> Response:
        unread_response, self._waiting = self._waiting, None
        if unread_response is not None:
            if unread_response[0] == start and (
                unread_response[1] == length or not self.ranged or self._reaches_the_end(unread_response)
            ):
                return unread_response[2]
            unread_response[2].close()
        response = self._request_range(start, length)
        if self.ranged and not self._is_same_file(response, start):
            response.close()
            raise SourceChanged(uri=self._uri, reason="the file changed while it was read")
        return response

    def _is_same_file(self, response: Response, start: int) -> bool:
        if response.status != 206 or _total_bytes(response, start, self._uri) != self.size_bytes:
            return False
        # Not every server knows If-Range.
        return self.validator is None or _file_version(response) in {None, self.validator}

    def _reaches_the_end(self, unread_response: tuple[int, int | None, Response]) -> bool:
        return self.size_bytes is not None and unread_response[2].size_bytes == self.size_bytes - unread_response[0]

    def _request_range(self, start: int, length: int | None) -> Response:
        last_byte = "" if length is None else str(start + length - 1)
        # Also for the whole file: the status tells whether the server knows ranges.
        headers = {"Range": f"bytes={start}-{last_byte}"}
        if self.validator:
            headers["If-Range"] = self.validator
        response = self._client.get(self._direct or self._url, headers, referring_url=self._led_by)
        if self._direct and response.status in {400, 401, 403, 404, 410}:
            # Signed addresses that a hub redirects to expire; the hub gives a new one.
            response.close()
            response = self._client.get(self._url, headers, referring_url=self._led_by)
            self._direct = response.url if response.url != self._url else None
        # An empty file has no range that could be satisfied.
        if response.status == 416 and start == 0:
            response.read_text()
            response = self._client.get(self._url, {}, referring_url=self._led_by)
        if response.status not in {200, 206}:
            raise to_refusal(response, self._uri)
        # A compressed body has other bytes than the file, and its ranges count compressed bytes.
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding not in {"identity", ""}:
            response.close()
            raise SourceFailed(
                uri=self._uri, reason=f"it sends the file compressed ({encoding}), which nobody asked for"
            )
        return response


def _file_version(response: Response) -> str | None:
    """Return what tells this version of the file from others, or None."""
    etag = response.headers.get("ETag", "")
    # A weak ETag does not promise the same bytes, and If-Range may not carry one (RFC 9110, 13.1.5).
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _total_bytes(response: Response, start: int, address: str) -> int | None:
    range_match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if range_match is None or int(range_match[1]) != start:
        raise SourceFailed(uri=address, reason="it answered with another range than requested")
    return None if range_match[3] == "*" else int(range_match[3])


def _refuse_pages(response: Response, address: str) -> None:
    # Servers that want a login answer 200 with a page.
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type in {"text/html", "application/xhtml+xml"}:
        hint = " (on the hub, use /resolve/ instead of /blob/)" if "/blob/" in address else ""
        raise NotAModel(
            uri=address,
            reason=f"it answers with a web page, such as a login page, instead of the file{hint}",
            status=response.status,
        )


class HttpSource:
    """`https://` and `http://` addresses."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def accepts(self, address: str) -> bool:
        return address.lower().startswith(("https://", "http://"))

    def open(self, address: str, expected: ExpectedFile, *, start: int = 0, length: int | None = None) -> HttpFile:
        return HttpFile(self._client, address, hide_secrets(address), start=start, length=length)

    def facts(self, address: str) -> SourceFacts:
        file = self.open(address, ExpectedFile(), length=1)
        file.close()
        linked = find_linked_digest(file.hops)
        file_name = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(address).path)).name
        return SourceFacts(uri=address, filename=file_name or "model", sha256=linked, size_bytes=file.size_bytes)


def find_linked_digest(hops: Sequence[tuple[int, Mapping[str, str]]]) -> Digest | None:
    """Return the sha256 that the Hugging Face hub names in the redirect to a large file, or None."""
    for _, headers in hops:
        for header_name, header_value in headers.items():
            if header_name.lower() == "x-linked-etag":
                with contextlib.suppress(ValueError):
                    return Digest(header_value.strip('"'))
    return None

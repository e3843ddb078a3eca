"""Files over HTTP: what the first answer says of one, and its ranges over many connections."""

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
from comfypin.models.http_responses import refusal
from comfypin.models.interface import Reader, SourceFacts, Wanted, shown

PART_BYTES = 8 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class HttpFile:
    """A file behind an address: the first answer tells its size, its version and whether it can be read in ranges."""

    part_bytes = PART_BYTES

    def __init__(
        self,
        client: HttpClient,
        url: str,
        uri: str,
        *,
        start: int,
        length: int | None,
        led_by: str | None = None,
    ) -> None:
        """`led_by` is the address of the server that named `url`, where the lock itself did not."""
        self._client = client
        self._url = url
        self._led_by = led_by
        self._uri = uri
        self._direct: str | None = None
        self.validator: str | None = None
        self._reading: set[Response] = set()
        self._lock = threading.Lock()
        answer = self._request(start, length)
        try:
            self._learn(answer, start)
        except BaseException:
            answer.close()
            raise
        self._waiting: tuple[int, int | None, Response] | None = (start, length, answer)

    def _learn(self, answer: Response, start: int) -> None:
        _refuse_pages(answer, self._uri)
        self.validator = _version(answer)
        self.ranged = answer.status == 206
        self.size_bytes = _total(answer, start, self._uri) if self.ranged else answer.size_bytes
        if answer.url != self._url:
            self._direct = answer.url
        self.hops = answer.hops
        self._headers = answer.headers

    def header(self, name: str) -> str | None:
        """A header of the first answer."""
        return self._headers.get(name)

    @contextlib.contextmanager
    def read(self, start: int, length: int | None) -> Iterator[Reader]:
        answer = self._answer_for(start, length)
        with self._lock:
            self._reading.add(answer)
        try:
            yield answer
        finally:
            with self._lock:
                self._reading.discard(answer)
            answer.close()

    def abort(self) -> None:
        """End every read that is going on."""
        with self._lock:
            reading = list(self._reading)
        for answer in reading:
            answer.abort()

    def close(self) -> None:
        """Drop the first answer if nobody read it."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting[2].close()

    def _answer_for(self, start: int, length: int | None) -> Response:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            if waiting[0] == start and (waiting[1] == length or not self.ranged or self._to_the_end(waiting)):
                return waiting[2]
            waiting[2].close()
        answer = self._request(start, length)
        if self.ranged and not self._is_same_file(answer, start):
            answer.close()
            raise SourceChanged(uri=self._uri, reason="the file changed while it was read")
        return answer

    def _is_same_file(self, answer: Response, start: int) -> bool:
        if answer.status != 206 or _total(answer, start, self._uri) != self.size_bytes:
            return False
        # Not every server knows If-Range.
        return self.validator is None or _version(answer) in {None, self.validator}

    def _to_the_end(self, waiting: tuple[int, int | None, Response]) -> bool:
        return self.size_bytes is not None and waiting[2].size_bytes == self.size_bytes - waiting[0]

    def _request(self, start: int, length: int | None) -> Response:
        end = "" if length is None else str(start + length - 1)
        headers = {"Range": f"bytes={start}-{end}"}
        if self.validator:
            headers["If-Range"] = self.validator
        answer = self._client.get(self._direct or self._url, headers, referring_url=self._led_by)
        if self._direct and answer.status in {400, 401, 403, 404, 410}:
            # Signed addresses that a hub redirects to expire; the hub gives a new one.
            answer.close()
            answer = self._client.get(self._url, headers, referring_url=self._led_by)
            self._direct = answer.url if answer.url != self._url else None
        if answer.status == 416 and start == 0:
            answer.read_text()
            answer = self._client.get(self._url, {}, referring_url=self._led_by)
        if answer.status not in {200, 206}:
            raise refusal(answer, self._uri)
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding not in {"identity", ""}:
            answer.close()
            raise SourceFailed(uri=self._uri, reason=f"it sends the file packed as {encoding}, which nobody asked for")
        return answer


def _version(answer: Response) -> str | None:
    """What tells this version of the file from others."""
    etag = answer.headers.get("ETag", "")
    # A weak ETag does not promise the same bytes, and If-Range may not be asked with one (RFC 9110, 13.1.5).
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")


def _total(answer: Response, start: int, uri: str) -> int | None:
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) != start:
        raise SourceFailed(uri=uri, reason="it answers with another range than it was asked for")
    return None if match[3] == "*" else int(match[3])


def _refuse_pages(answer: Response, uri: str) -> None:
    media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type in {"text/html", "application/xhtml+xml"}:
        hint = " (on the hub, use /resolve/ instead of /blob/)" if "/blob/" in uri else ""
        raise NotAModel(
            uri=uri,
            reason=f"it answers with a web page, such as a login page, instead of the file{hint}",
            status=answer.status,
        )


class HttpSource:
    """`https://` and `http://` addresses."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def accepts(self, uri: str) -> bool:
        return uri.lower().startswith(("https://", "http://"))

    def open(self, uri: str, wanted: Wanted, *, start: int = 0, length: int | None = None) -> HttpFile:
        return HttpFile(self._client, uri, shown(uri), start=start, length=length)

    def facts(self, uri: str) -> SourceFacts:
        file = self.open(uri, Wanted(), length=1)
        file.close()
        linked = linked_digest(file.hops)
        name = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(uri).path)).name
        return SourceFacts(uri=uri, filename=name or "model", sha256=linked, size_bytes=file.size_bytes)


def linked_digest(hops: Sequence[tuple[int, Mapping[str, str]]]) -> Digest | None:
    """The sha256 that the Hugging Face hub names in the redirect to a large file."""
    for _, headers in hops:
        for name, value in headers.items():
            if name.lower() == "x-linked-etag":
                with contextlib.suppress(ValueError):
                    return Digest(value.strip('"'))
    return None

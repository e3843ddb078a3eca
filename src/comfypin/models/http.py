"""Files over HTTP: ranges, redirects that are checked, tokens that stay with their host, and answers said plainly."""

import base64
import contextlib
import email.utils
import http.client
import io
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import TracebackType

from comfypin import __version__
from comfypin.digest import Digest
from comfypin.errors.model import (
    NotAModel,
    RedirectRefused,
    SourceChanged,
    SourceFailed,
    SourceMissing,
    SourceRefused,
    SourceUnavailable,
)
from comfypin.models.interface import Reader, SourceFacts, Wanted, shown
from comfypin.models.network import Connections, Dialler, Names, Place, SystemDialler, is_link_local

MAX_REDIRECTS = 10
MAX_ERROR_BYTES = 64 * 1024
PART_BYTES = 8 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Bearer tokens by host name. A token is sent over TLS (or to this machine) to its own host, and nowhere else."""

    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)

    def for_url(self, url: urllib.parse.SplitResult) -> str | None:
        """The token for this address, if one is meant for its host."""
        if url.scheme != "https" and url.hostname not in {"127.0.0.1", "localhost", "::1"}:
            return None
        return self.tokens.get(url.hostname or "") or self.tokens.get(url.netloc.rpartition("@")[2])


class Answer:
    """One answer of a server, its headers read and its body not yet."""

    def __init__(
        self,
        url: str,
        raw: http.client.HTTPResponse,
        place: Place,
        connection: http.client.HTTPConnection,
        *,
        dialled: socket.socket,
    ) -> None:
        self.url = url
        self.status = raw.status
        self.headers = raw.headers
        self.hops: list[tuple[int, Mapping[str, str]]] = []
        self._raw = raw
        self._place = place
        self._connection = connection
        # An answer after which the server closes takes the socket away from its connection.
        self._socket = dialled
        self._pool: Connections | None = None
        self._open = True

    def lend_to(self, pool: Connections) -> None:
        """Say where the connection goes when the body was read to its end."""
        self._pool = pool

    @property
    def size_bytes(self) -> int | None:
        """The length of the body, where the server says it and sends it as it is."""
        return self._raw.length

    def readinto(self, buffer: memoryview) -> int:
        """Some bytes of the body; at most one read of the socket, so that a slow server is noticed."""
        try:
            if self._raw.length is None or self._raw.chunked:
                count = self._raw.readinto(buffer)
            else:
                count = self._read_known(buffer, self._raw.length)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise unavailable(self.url, error) from error
        if count == 0:
            self._finish()
        return count

    def text(self, limit_bytes: int = MAX_ERROR_BYTES) -> str:
        """The beginning of the body as text, for error messages and for JSON."""
        data = bytearray()
        buffer = memoryview(bytearray(MAX_ERROR_BYTES))
        with contextlib.suppress(SourceFailed):
            while len(data) < limit_bytes and (count := self.readinto(buffer)):
                data += buffer[:count]
        self.close()
        return data.decode(errors="replace")

    def abort(self) -> None:
        """Wake whoever waits for bytes, from another thread, with a broken connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Drop the connection unless the body was read to its end. Repeatable."""
        if self._open:
            self._open = False
            self._raw.close()
            self._connection.close()

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _read_known(self, buffer: memoryview, left: int) -> int:
        if left == 0:
            return 0
        # http.client's readinto waits until the whole buffer is full; a slow server must be seen being slow.
        stream = self._raw.fp
        assert isinstance(stream, io.BufferedReader)
        count = stream.readinto1(buffer[: min(len(buffer), left)])
        if count == 0:
            raise http.client.IncompleteRead(b"", left)
        self._raw.length = left - count
        return count

    def _finish(self) -> None:
        if self._open:
            self._open = False
            keep = not self._raw.will_close and self._pool is not None
            self._raw.close()
            if keep and self._pool is not None:
                self._pool.give_back(self._place, self._connection)
            else:
                self._connection.close()


class HttpClient:
    """GET with redirects followed by our own rules, over connections that are used again."""

    def __init__(
        self,
        *,
        credentials: Credentials | None = None,
        dialler: Dialler | None = None,
        timeout_s: float = 30.0,
        public_only: bool = False,
    ) -> None:
        """With `public_only` no private address is asked, even where the URL itself names it: for strangers' URLs."""
        self._credentials = credentials or Credentials()
        self._public_only = public_only
        dialler = dialler or SystemDialler()
        self._names = Names(dialler)
        self._connections = Connections(dialler, timeout_s=timeout_s)

    def has_token(self, url: str) -> bool:
        """Whether a token would be sent to this address."""
        return self._credentials.for_url(urllib.parse.urlsplit(url)) is not None

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask, and follow redirects; the caller reads or closes the answer. Raises `SourceFailed`."""
        hops: list[tuple[int, Mapping[str, str]]] = []
        first = place = self._place(url, url)
        while True:
            answer = self._ask(url, place, headers or {})
            answer.hops = hops
            location = answer.headers.get("Location")
            if answer.status not in {301, 302, 303, 307, 308} or not location:
                return answer
            hops.append((answer.status, dict(answer.headers.items())))
            answer.text()
            if len(hops) > MAX_REDIRECTS:
                raise RedirectRefused(uri=shown(url), reason=f"more than {MAX_REDIRECTS} redirects")
            target = _joined(url, location)
            place = self._place(target, url)
            _check_redirect(shown(url), first, place)
            url = target

    def close(self) -> None:
        """Close the connections that are idle."""
        self._connections.close()

    def _place(self, url: str, asked: str) -> Place:
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
        except ValueError as error:
            raise RedirectRefused(
                uri=shown(asked), reason=f"it leads to {shown(url)!r}, which is no address"
            ) from error
        if not parts.hostname or parts.scheme not in {"http", "https"}:
            raise RedirectRefused(uri=shown(asked), reason=f"it leads to {shown(url)!r}, which is not http or https")
        try:
            addresses = self._names.resolve(parts.hostname, port)
        except (OSError, UnicodeError) as error:
            raise unavailable(url, error) from error
        if any(map(is_link_local, addresses)):
            raise RedirectRefused(
                uri=shown(asked),
                reason=f"it leads to the link-local address of {parts.hostname}, where clouds keep keys",
            )
        place = Place(scheme=parts.scheme, host=parts.hostname, port=port, addresses=addresses)
        if self._public_only and not place.wholly_public:
            reason = f"it leads to the private address of {parts.hostname}, which jobs may not ask"
            raise RedirectRefused(uri=shown(asked), reason=reason)
        return place

    def _ask(self, url: str, place: Place, headers: Mapping[str, str]) -> Answer:
        parts = urllib.parse.urlsplit(url)
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        sent = {"User-Agent": f"comfypin/{__version__}", "Accept-Encoding": "identity", **headers}
        token = self._credentials.for_url(parts)
        if parts.username is not None:
            pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            sent["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif token:
            sent["Authorization"] = f"Bearer {token}"
        while True:
            connection, used_before = self._connections.take(place)
            try:
                connection.request("GET", _quoted(target), headers=sent)
                dialled = connection.sock
                answer = Answer(url, connection.getresponse(), place, connection, dialled=dialled)
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                if used_before and not isinstance(error, TimeoutError):
                    continue
                raise unavailable(url, error) from error
            answer.lend_to(self._connections)
            return answer


def _joined(url: str, location: str) -> str:
    try:
        return urllib.parse.urljoin(url, location)
    except ValueError:
        return location


def _quoted(target: str) -> str:
    return urllib.parse.quote(target, safe="/?&=%:@!$'()*+,;~[]#-._")


def _check_redirect(asked: str, first: Place, target: Place) -> None:
    """A server on the public internet has no business in a private network, nor may one make us its messenger."""
    # A name with a public and a private address is a public one that wants to be taken for private.
    if target.wholly_public or not first.partly_public:
        return
    raise RedirectRefused(
        uri=asked, reason=f"it redirects from the public host {first.host} to the private address of {target.host}"
    )


def unavailable(url: str, error: Exception) -> SourceFailed:
    """Say in words what a foreign network error means; one that will not pass by itself is not tried again."""
    reason: str
    match error:
        case TimeoutError():
            reason = "it sent nothing for too long"
        case http.client.IncompleteRead():
            reason = f"it closed the connection {error.expected} bytes before the end"
        case ssl.SSLCertVerificationError():
            return SourceFailed(uri=shown(url), reason=f"its certificate is not trusted ({error.verify_message})")
        case http.client.RemoteDisconnected() | ConnectionResetError() | BrokenPipeError():
            reason = "it closed the connection"
        case http.client.HTTPException():
            reason = f"it does not speak HTTP as it should ({type(error).__name__})"
        case _:
            reason = (
                f"it cannot be reached ({error.strerror if isinstance(error, OSError) and error.strerror else error})"
            )
    return SourceUnavailable(uri=shown(url), reason=reason)


def refusal(answer: Answer, uri: str) -> SourceFailed:
    """The failure that an answer which is not a success means, in words; closes the answer."""
    status = answer.status
    # The hub says in a header what its statuses mean.
    code = answer.headers.get("X-Error-Code", "")
    token = "the token was refused" if status == 401 else "the token has no right to it"
    body = answer.text()
    match status:
        case 401 | 403:
            said = _said(body)
            return SourceRefused(
                uri=uri, reason=f"HTTP {status}: it needs a token, or {token}{said}", status=status, code=code
            )
        case 404 | 410:
            return SourceMissing(uri=uri, reason=f"HTTP {status}: there is no such file", status=status, code=code)
        case 416:
            return SourceChanged(uri=uri, reason="the file is shorter than it was")
        case _ if status in _TRANSIENT:
            what = "it says that there were too many requests" if status == 429 else "the server has a problem"
            return SourceUnavailable(
                uri=uri, reason=f"HTTP {status}: {what}", retry_after_s=_retry_after(answer.headers.get("Retry-After"))
            )
        case _:
            return SourceFailed(uri=uri, reason=f"HTTP {status}{_said(body)}", status=status)


def _said(body: str) -> str:
    line = " ".join(body.split())
    return f" ({line[:200]})" if line and not line.startswith("<") else ""


def _retry_after(text: str | None) -> float | None:
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None


class HttpFile:
    """A file behind an address: the first answer tells its size, its version and whether it can be read in ranges."""

    part_bytes = PART_BYTES

    def __init__(self, client: HttpClient, url: str, uri: str, *, start: int, length: int | None) -> None:
        self._client = client
        self._url = url
        self._uri = uri
        self._direct: str | None = None
        self.validator: str | None = None
        self._reading: set[Answer] = set()
        self._lock = threading.Lock()
        answer = self._request(start, length)
        try:
            self._learn(answer, start)
        except BaseException:
            answer.close()
            raise
        self._waiting: tuple[int, int | None, Answer] | None = (start, length, answer)

    def _learn(self, answer: Answer, start: int) -> None:
        _refuse_pages(answer, self._uri)
        etag = answer.headers.get("ETag", "")
        # A weak ETag does not promise the same bytes, and If-Range may not be asked with one (RFC 9110, 13.1.5).
        self.validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")
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

    def _answer_for(self, start: int, length: int | None) -> Answer:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            if waiting[0] == start and (waiting[1] == length or not self.ranged or self._to_the_end(waiting)):
                return waiting[2]
            waiting[2].close()
        answer = self._request(start, length)
        if self.ranged and (answer.status != 206 or _total(answer, start, self._uri) != self.size_bytes):
            answer.close()
            raise SourceChanged(uri=self._uri, reason="the file changed while it was read")
        return answer

    def _to_the_end(self, waiting: tuple[int, int | None, Answer]) -> bool:
        return self.size_bytes is not None and waiting[2].size_bytes == self.size_bytes - waiting[0]

    def _request(self, start: int, length: int | None) -> Answer:
        end = "" if length is None else str(start + length - 1)
        headers = {"Range": f"bytes={start}-{end}"}
        if self.validator:
            headers["If-Range"] = self.validator
        answer = self._client.get(self._direct or self._url, headers)
        if self._direct and answer.status in {400, 401, 403, 404, 410}:
            # Signed addresses that a hub redirects to expire; the hub gives a new one.
            answer.close()
            answer = self._client.get(self._url, headers)
            self._direct = answer.url if answer.url != self._url else None
        if answer.status == 416 and start == 0:
            answer.text()
            answer = self._client.get(self._url, {})
        if answer.status not in {200, 206}:
            raise refusal(answer, self._uri)
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding not in {"identity", ""}:
            answer.close()
            raise SourceFailed(uri=self._uri, reason=f"it sends the file packed as {encoding}, which nobody asked for")
        return answer


def _total(answer: Answer, start: int, uri: str) -> int | None:
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) != start:
        raise SourceFailed(uri=uri, reason="it answers with another range than it was asked for")
    return None if match[3] == "*" else int(match[3])


def _refuse_pages(answer: Answer, uri: str) -> None:
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


def linked_digest(hops: list[tuple[int, Mapping[str, str]]]) -> Digest | None:
    """The sha256 that the Hugging Face hub names in the redirect to a large file."""
    for _, headers in hops:
        for name, value in headers.items():
            if name.lower() == "x-linked-etag":
                with contextlib.suppress(ValueError):
                    return Digest(value.strip('"'))
    return None

"""What a server answers over HTTP: a body to read, and what a failure means in words."""

import contextlib
import email.utils
import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Mapping
from types import TracebackType

from comfypin.errors.model import SourceChanged, SourceFailed, SourceMissing, SourceRefused, SourceUnavailable
from comfypin.models.interface import shown
from comfypin.models.network import Connections, Place

MAX_ERROR_BYTES = 64 * 1024
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})


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


def unavailable(url: str, error: Exception) -> SourceFailed:
    """Say in words what a foreign network error means; one that will not pass by itself is not tried again."""
    reason: str
    match error:
        case TimeoutError():
            reason = "it sent nothing for too long"
        case http.client.IncompleteRead():
            missing = "" if error.expected is None else f" {error.expected} bytes"
            reason = f"it closed the connection{missing} before the end"
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
    if re.fullmatch(r"\s*[0-9]+\s*", text):
        return float(text[:20])
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None

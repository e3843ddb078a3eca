"""A response whose head has been read and whose body has not."""

import contextlib
import http.client
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType

import urllib3
from urllib3 import exceptions

from comfypin.http.deadline import Deadline
from comfypin.http.errors import HttpError
from comfypin.http.failure_causes import to_http_error

# Each piece is one read of the socket and a copy; small ones cost more in calls than large ones in memory.
_PIECE_BYTES = 512 << 10
# Error texts are read whole; a server must not fill our memory with one.
MAX_TEXT_BYTES = 64 << 10


class Response:
    """One response. Read its body, or close it; the connection is reused if the body was read to its end.

    `url` is the URL that sent it, `hops` are the statuses and headers of the redirects before.
    """

    def __init__(
        self,
        raw_response: urllib3.BaseHTTPResponse,
        *,
        url: str,
        deadline: Deadline,
        redirects: tuple[tuple[int, Mapping[str, str]], ...] = (),
        translate: Callable[[HttpError], Exception],
    ) -> None:
        self.url = url
        self.status = raw_response.status
        self.reason = raw_response.reason or ""
        self.headers: Mapping[str, str] = raw_response.headers
        self.hops = redirects
        self._raw = raw_response
        self._deadline = deadline
        self._translate = translate
        content_length = raw_response.headers.get("Content-Length", "")
        # int() takes signs and underscores too, which no valid length has.
        self._left: int | None = int(content_length) if content_length.isascii() and content_length.isdigit() else None
        # With both headers the chunks win: https://www.rfc-editor.org/rfc/rfc9112#section-6.3
        if "chunked" in raw_response.headers.get("Transfer-Encoding", "").lower():
            self._left = None

    @property
    def size_bytes(self) -> int | None:
        """Return how many bytes of the body are left, if the server says it."""
        return self._left

    def readinto(self, buffer: memoryview) -> int:
        """Read some bytes of the body and return how many, 0 at its end; at most one read of the socket, so that a
        slow server is noticed. Raises `HttpError`, or what the client's `translate` makes of it.
        """
        with self._translate_failures():
            body_bytes = self._raw.read1(min(len(buffer), _PIECE_BYTES), decode_content=False)
            if not body_bytes:
                self._raw.release_conn()
                return 0
            # Copied: urllib3's own `readinto` would wait until the whole buffer is full.
            buffer[: len(body_bytes)] = body_bytes
            if self._left is not None:
                self._left -= len(body_bytes)
            return len(body_bytes)

    def iter_bytes(self) -> Iterator[bytes]:
        """Yield the body. Raises as `readinto` does."""
        while True:
            with self._translate_failures():
                body_bytes = self._raw.read1(_PIECE_BYTES, decode_content=False)
            if not body_bytes:
                self._raw.release_conn()
                return
            yield body_bytes

    def read_bytes(self, limit_bytes: int) -> bytes:
        """Return the body, or its beginning up to a limit, and close. Raises as `readinto` does.

        What is small enough to be held in memory may take no longer than the head of a response.
        """
        self._deadline.renew_limit()
        body_bytes = bytearray()
        with self:
            for piece in self.iter_bytes():
                body_bytes += piece
                if len(body_bytes) >= limit_bytes:
                    break
        return bytes(body_bytes[:limit_bytes])

    def read_text(self, limit_bytes: int = MAX_TEXT_BYTES) -> str:
        """Return the beginning of the body as text, as far as it comes, for messages and for JSON."""
        self._deadline.renew_limit()
        body_bytes = bytearray()
        with self, contextlib.suppress(Exception):
            for piece in self.iter_bytes():
                body_bytes += piece
                if len(body_bytes) >= limit_bytes:
                    break
        return body_bytes[:limit_bytes].decode(errors="replace")

    def abort(self) -> None:
        """Wake whoever waits for bytes, from another thread, with a broken connection."""
        self._deadline.cancel()

    def close(self) -> None:
        """Drop the connection, unless the body was read to its end. Repeatable."""
        with contextlib.suppress(OSError, exceptions.HTTPError):
            self._raw.close()

    def __enter__(self) -> "Response":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @contextlib.contextmanager
    def _translate_failures(self) -> Iterator[None]:
        try:
            yield
        except (exceptions.HTTPError, OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise self._translate(to_http_error(error, self._deadline)) from error

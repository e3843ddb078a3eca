"""A response whose head has been read and whose body has not, and what urllib3's exceptions mean in words."""

import contextlib
import http.client
import ssl
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType

import urllib3
from urllib3 import exceptions

from comfypin.http.deadline import Deadline, DeadlinePassed
from comfypin.http.errors import HttpError, ProxyFailed, RequestDeadlineExceeded

# Each piece is one read of the socket and a copy; small ones cost more in calls than large ones in memory.
_PIECE_BYTES = 512 << 10
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


def to_http_error(error: Exception, deadline: Deadline) -> HttpError:
    """Return what an exception of urllib3, or of the network, means."""
    causes = list(_iterate_causes(error))
    if deadline.has_passed or any(isinstance(cause, DeadlinePassed) for cause in causes):
        return RequestDeadlineExceeded()
    if (proxy_error := _proxy_error(causes)) is not None:
        return proxy_error
    explained = next(
        (explained_cause for cause in causes if (explained_cause := _explain_cause(cause)) is not None), None
    )
    if explained is None:
        return HttpError(f"it does not speak HTTP as it should ({type(error).__name__})", was_sent=True)
    # The connection that broke was the one to the proxy.
    if isinstance(error, exceptions.ProxyError):
        return ProxyFailed(f"its proxy: {explained.reason}", is_transient=explained.is_transient)
    return explained


def _explain_cause(cause: BaseException) -> HttpError | None:
    match cause:
        case exceptions.NameResolutionError():
            return HttpError("its name is not known")
        case exceptions.NewConnectionError():
            system_error = cause.__cause__
            system_message = (
                system_error.strerror
                if isinstance(system_error, OSError) and system_error.strerror
                else "no connection"
            )
            return HttpError(f"it cannot be reached ({system_message})")
        case exceptions.ConnectTimeoutError():
            # After NewConnectionError, which is one of them.
            return HttpError("it did not answer in time")
        case exceptions.ReadTimeoutError() | TimeoutError():
            return HttpError("it sent nothing for too long", was_sent=True)
        case exceptions.IncompleteRead() | http.client.IncompleteRead():
            missing_bytes = "" if cause.expected is None else f" {cause.expected} bytes"
            return HttpError(f"it closed the connection{missing_bytes} before the end", was_sent=True)
        case http.client.RemoteDisconnected() | ConnectionResetError() | BrokenPipeError():
            return HttpError("it closed the connection", was_sent=True)
        case http.client.HTTPException():
            return HttpError(f"it does not speak HTTP as it should ({type(cause).__name__})", was_sent=True)
        case ssl.SSLError():
            return _tls_error(cause)
        case OSError():
            return HttpError(f"it cannot be reached ({cause.strerror or cause})", was_sent=True)
        case _:
            return None


def _tls_error(cause: ssl.SSLError) -> HttpError:
    match cause:
        case ssl.SSLCertVerificationError():
            return HttpError(f"its certificate is not trusted ({cause.verify_message})", is_transient=False)
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "HTTP_REQUEST" | "RECORD_LAYER_FAILURE"):
            return HttpError("it does not speak TLS: is it http:// instead of https://?", is_transient=False)
        case _:
            return HttpError(f"its TLS connection broke ({cause.reason or cause})", was_sent=True)


def _proxy_error(causes: list[BaseException]) -> ProxyFailed | None:
    """Return the failure if a proxy refused CONNECT: http.client reports it only as a sentence."""
    tunnel_message = next((str(cause) for cause in causes if str(cause).startswith("Tunnel connection failed: ")), None)
    if tunnel_message is None:
        return None
    tunnel_status = tunnel_message.removeprefix("Tunnel connection failed: ")
    if tunnel_status.startswith("407"):
        return ProxyFailed("its proxy requires another user and password", is_transient=False)
    if tunnel_status.startswith("4") and not tunnel_status.startswith(("408", "429")):
        return ProxyFailed(f"its proxy does not let it through (HTTP {tunnel_status})", is_transient=False)
    return ProxyFailed(f"its proxy has no way to it (HTTP {tunnel_status})")


def _iterate_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions that an exception was made of, the last first."""
    seen_ids: set[int] = set()
    waiting_errors: list[BaseException] = [error]
    while waiting_errors:
        current_error = waiting_errors.pop(0)
        if id(current_error) in seen_ids:
            continue
        # Exceptions can refer to each other in a circle.
        seen_ids.add(id(current_error))
        yield current_error
        # urllib3 keeps what it wraps as an argument.
        inner_errors = (
            current_error.__cause__,
            current_error.__context__,
            *current_error.args,
            getattr(current_error, "original_error", None),
        )
        waiting_errors += [inner_error for inner_error in inner_errors if isinstance(inner_error, BaseException)]

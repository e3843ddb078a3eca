"""Explains in words what the exceptions of urllib3 and of the network mean: one mapping for all that we call."""

import http.client
import socket
import ssl
from collections.abc import Iterable, Iterator

from urllib3 import exceptions

from comfypin.http.deadline import Deadline, DeadlinePassed
from comfypin.http.errors import HttpError, ProxyFailed, RequestDeadlineExceeded


def to_http_error(error: Exception, deadline: Deadline) -> HttpError:
    """Return what an exception of urllib3, or of the network, means."""
    causes = list(iterate_causes(error))
    if deadline.has_passed or any(isinstance(cause, DeadlinePassed) for cause in causes):
        return RequestDeadlineExceeded()
    if (proxy_error := _proxy_error(causes)) is not None:
        return proxy_error
    explained = explain_causes(causes)
    if explained is None:
        return HttpError(f"it does not speak HTTP as it should ({type(error).__name__})", was_sent=True)
    # The connection that broke was the one to the proxy.
    if isinstance(error, exceptions.ProxyError):
        return ProxyFailed(f"its proxy: {explained.reason}", is_transient=explained.is_transient)
    return explained


def explain_causes(causes: Iterable[BaseException]) -> HttpError | None:
    """Return the first cause that says why, as our error; its words hold nothing of the request."""
    return next((explained for cause in causes if (explained := _explain_cause(cause)) is not None), None)


def _explain_cause(cause: BaseException) -> HttpError | None:
    match cause:
        case exceptions.NameResolutionError() | socket.gaierror():
            return HttpError("its name is not known")
        # Before the timeout: to urllib3 a refused connection is one, too.
        case exceptions.NewConnectionError():
            return HttpError(_describe_connect_failure(cause.__cause__))
        case exceptions.ConnectTimeoutError():
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
        # Errors of requests are OSErrors without an errno, and their text holds the URL.
        case OSError() if cause.strerror:
            return HttpError(_describe_connect_failure(cause), was_sent=True)
        case _:
            return None


def _describe_connect_failure(cause: BaseException | None) -> str:
    match cause:
        case ConnectionRefusedError():
            return "the connection was refused"
        case OSError() if cause.strerror:
            return f"it cannot be reached ({cause.strerror})"
        case _:
            return "it cannot be reached (no connection)"


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


def iterate_causes(error: BaseException) -> Iterator[BaseException]:
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

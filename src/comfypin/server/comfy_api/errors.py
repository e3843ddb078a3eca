"""Failures in Comfy API v2's words: an envelope with a code that machines read."""

from collections.abc import Mapping

from comfypin.digest import JsonValue
from comfypin.errors import ComfypinError
from comfypin.machine_errors import is_full
from comfypin.queue.errors import JobUnknown, QueueFull
from comfypin.server.comfy_api.envelope import envelope
from comfypin.server.errors import BodyTooBig, NotReady, RequestInvalid, RequestTooComplex
from comfypin.server.responses import JsonResponse

UPSTREAM_MESSAGE = "The server could not do this now; try again later."
_DISK_FULL_MESSAGE = "The server's disk is full; delete assets, or try again later."
_RETRY_AFTER_S = 5


class ApiFailure(ComfypinError):
    """A failure with the status and the code that the API's description gives it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Mapping[str, JsonValue] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details
        self.retry_after_s = retry_after_s


def not_found(what: str, identifier: str) -> ApiFailure:
    """Return the failure of an id that is unknown here, or is gone."""
    return ApiFailure(404, "not_found", f"There is no {what} {identifier[:100]!r} here.")


def invalid_request(reason: str) -> ApiFailure:
    """Return the failure of a request that is not what the description says."""
    return ApiFailure(422, "invalid_request", f"The request cannot be taken: {reason}.")


def not_ready(error: NotReady) -> ApiFailure:
    """Return the failure of a request that came before the engine was ready."""
    return ApiFailure(429, "deployment_not_ready", error.message, retry_after_s=_RETRY_AFTER_S)


def failure_of(error: Exception) -> ApiFailure:
    """Return any failure in the API's form. An internal one becomes a safe sentence, without details."""
    match error:
        case ApiFailure():
            return error
        case JobUnknown():
            return ApiFailure(404, "not_found", error.message)
        case QueueFull():
            return ApiFailure(429, "queue_full", error.message, retry_after_s=error.retry_after_s)
        case RequestInvalid() | RequestTooComplex():
            return ApiFailure(422, "invalid_request", error.message)
        case BodyTooBig():
            return ApiFailure(422, "request_too_large", error.message)
        case OSError() if is_full(error):
            return ApiFailure(500, "upstream_error", _DISK_FULL_MESSAGE, retry_after_s=_RETRY_AFTER_S)
    return ApiFailure(500, "upstream_error", UPSTREAM_MESSAGE, retry_after_s=_RETRY_AFTER_S)


def respond(error: ApiFailure) -> JsonResponse:
    """Return the answer for a failure."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return envelope(error.status, error.code, error.message, details=error.details, headers=headers)

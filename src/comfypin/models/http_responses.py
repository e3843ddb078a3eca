"""What servers of models respond, in the words of models: failures of requests, and responses that are refusals."""

from comfypin.http.client import Credentials, HttpClient, HttpTransport
from comfypin.http.errors import AddressRefused, HttpError, RequestDeadlineExceeded
from comfypin.http.response import Response
from comfypin.models.errors import (
    RedirectRefused,
    SourceChanged,
    SourceFailed,
    SourceMissing,
    SourceRefused,
    SourceUnavailable,
)
from comfypin.retry import parse_retry_after

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})


def model_client(*, credentials: Credentials | None = None, transport: HttpTransport | None = None) -> HttpClient:
    """Return a client for models, which raises `SourceFailed`."""
    return HttpClient(credentials=credentials, transport=transport, translate=source_failed)


def source_failed(uri: str, error: HttpError) -> SourceFailed:
    """Return the failure of a source that a failed request means."""
    if isinstance(error, AddressRefused):
        return RedirectRefused(uri=uri, reason=error.reason)
    if error.is_transient or isinstance(error, RequestDeadlineExceeded):
        return SourceUnavailable(uri=uri, reason=error.reason)
    return SourceFailed(uri=uri, reason=error.reason)


def refusal(response: Response, uri: str) -> SourceFailed:
    """Return the failure that a response which is not a success means; closes the response."""
    status = response.status
    # The hub says in a header what its statuses mean.
    code = response.headers.get("X-Error-Code", "")
    token = "the token was refused" if status == 401 else "the token has no right to it"
    body = response.read_text()
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
            asked_s = parse_retry_after(response.headers.get("Retry-After"))
            return SourceUnavailable(uri=uri, reason=f"HTTP {status}: {what}", retry_after_s=asked_s)
        case _:
            return SourceFailed(uri=uri, reason=f"HTTP {status}{_said(body)}", status=status)


def _said(body: str) -> str:
    line = " ".join(body.split())
    return f" ({line[:200]})" if line and not line.startswith("<") else ""

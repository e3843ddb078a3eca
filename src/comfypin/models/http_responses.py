"""Translates HTTP failures and refusals into failures of model sources."""

from comfypin.http.client import Credentials, HttpClient, HttpTransport
from comfypin.http.deadline import Deadline
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

# 520 to 524 are Cloudflare's, for an origin that does not answer.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})


def make_model_client(
    *,
    credentials: Credentials | None = None,
    transport: HttpTransport | None = None,
    public_only: bool = False,
    deadline: Deadline | None = None,
) -> HttpClient:
    """Return a client for models, which raises `SourceFailed`. With `public_only` it refuses private addresses."""
    return HttpClient(
        credentials=credentials,
        transport=transport,
        public_only=public_only,
        deadline=deadline,
        translate=to_source_failure,
    )


def to_source_failure(address: str, error: HttpError) -> SourceFailed:
    """Return the failure of a source that a failed request means."""
    if isinstance(error, AddressRefused):
        return RedirectRefused(uri=address, reason=error.reason)
    if error.is_transient or isinstance(error, RequestDeadlineExceeded):
        return SourceUnavailable(uri=address, reason=error.reason)
    return SourceFailed(uri=address, reason=error.reason)


def to_refusal(response: Response, address: str) -> SourceFailed:
    """Return the failure that a response which is not a success means; closes the response."""
    status = response.status
    # The hub says in a header what its statuses mean.
    error_code = response.headers.get("X-Error-Code", "")
    token = "the token was refused" if status == 401 else "the token does not allow it"
    body_text = response.read_text()
    match status:
        case 401 | 403:
            quoted_body = _quote_body(body_text)
            return SourceRefused(
                uri=address,
                reason=f"HTTP {status}: it needs a token, or {token}{quoted_body}",
                status=status,
                code=error_code,
            )
        case 404 | 410:
            return SourceMissing(
                uri=address, reason=f"HTTP {status}: there is no such file", status=status, code=error_code
            )
        case 416:
            return SourceChanged(uri=address, reason="the file is shorter than it was")
        case _ if status in _TRANSIENT:
            what = "there were too many requests" if status == 429 else "the server has a problem"
            asked_s = parse_retry_after(response.headers.get("Retry-After"))
            return SourceUnavailable(uri=address, reason=f"HTTP {status}: {what}", retry_after_s=asked_s)
        case _:
            return SourceFailed(uri=address, reason=f"HTTP {status}{_quote_body(body_text)}", status=status)


def _quote_body(response_body: str) -> str:
    # The body may explain the status, but a page of HTML explains nothing.
    one_line = " ".join(response_body.split())
    return f" ({one_line[:200]})" if one_line and not one_line.startswith("<") else ""

"""Asks a server of jobs for JSON: no redirect is followed, and every failure is a sentence about that server."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from comfypin.client.errors import (
    ServerRefused,
    ServerUnknown,
    ServerUnreachable,
    SubmissionUnknown,
    TokenExposed,
    TokenMissing,
    TokenRefused,
)
from comfypin.http.client import HttpClient, shown_url
from comfypin.http.deadline import Deadline
from comfypin.http.errors import HttpError
from comfypin.http.response import Response
from comfypin.retry import Retried, Retry, RetryPolicy, parse_retry_after

# Results may hold pictures as base64.
MAX_ANSWER_BYTES = 1 << 30
# Runpod's proxy gives up after 100 s; whoever has not answered by then will not.
_REQUEST_S = 120.0
# While a server starts, or its queue is full.
_BUSY_RETRIES = RetryPolicy(retries=8, base_s=1.0, longest_s=10.0, longest_asked_s=60.0)
_BUSY_STATUSES = frozenset({429, 503})
# A proxy's error page is kilobytes of HTML; its beginning says which proxy it is.
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAnswer:
    """An answer with a status below 300 or 404: its JSON."""

    status: int
    document: object


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonClient:
    """Sends requests to one server. `variable` is the one that holds its token."""

    server: str
    client: HttpClient
    variable: str
    has_token: bool
    report: Callable[[str], None] = lambda sentence: None
    sleep: Callable[[float], object] = time.sleep

    def ask(
        self,
        method: str,
        url: str,
        *,
        request_body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> ServerAnswer:
        """Send JSON (or nothing), and return the answer; 404 is one. Raises `RemoteError`, `ConfigError`."""
        if request_body is None:
            return self.send(method, url, headers=headers or {}, request_body=b"" if method == "POST" else None)
        json_headers = {"Content-Type": "application/json", **(headers or {})}
        return self.send(method, url, headers=json_headers, request_body=json.dumps(request_body).encode())

    def submit(self, url: str, request_body: object, *, headers: Mapping[str, str] | None = None) -> ServerAnswer:
        """POST what must not be sent twice; try again only if the server says that it did not take it (busy, starting).

        Raises `SubmissionUnknown` beside what `ask` raises.
        """

        def is_busy(error: Exception) -> bool:
            return isinstance(error, ServerRefused) and error.status in _BUSY_STATUSES

        def report_delay(retried: Retried) -> None:
            self.report(f"{retried.error} Trying again in {retried.delay_s:.0f} s.")

        retry = Retry(policy=_BUSY_RETRIES, on=ServerRefused, when=is_busy, report=report_delay)
        try:
            return retry.call(
                lambda: self.ask("POST", url, request_body=request_body, headers=headers), sleep=self.sleep
            )
        except ServerUnreachable as error:
            if error.was_sent:
                raise SubmissionUnknown(server=self.server, reason=error.reason) from error
            raise

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        request_body: bytes | Iterable[bytes] | None,
        deadline: Deadline | None = None,
    ) -> ServerAnswer:
        """Send a body as it is; see `ask`."""
        path = shown_url(url).partition("://")[2].partition("/")[2]
        request_line = f"{method} /{path}"
        self._require_private(url)
        try:
            response = self.client.request(
                method,
                url,
                headers={"Accept": "application/json", **headers},
                body=request_body,
                max_redirects=0,
                deadline=deadline or Deadline(_REQUEST_S),
            )
            content = response.read_bytes(MAX_ANSWER_BYTES)
        except HttpError as error:
            raise ServerUnreachable(
                server=self.server, reason=error.reason, _was_sent=error.was_sent, _is_transient=error.is_transient
            ) from error
        return self._judge(request_line, response, content)

    @contextmanager
    def open_stream(self, url: str, deadline: Deadline) -> Iterator[Iterator[bytes] | None]:
        """Give the chunks of a stream of events, until the deadline; None if the server does not offer it now.

        Raises `RemoteError`, `ConfigError`.
        """
        self._require_private(url)
        headers = {"Accept": "text/event-stream"}
        has_begun = False
        try:
            with self.client.request("GET", url, headers=headers, max_redirects=0, deadline=deadline) as response:
                is_stream = response.headers.get("Content-Type", "").startswith("text/event-stream")
                has_begun = True
                yield response.iter_bytes() if response.status == 200 and is_stream else None
        except HttpError as error:
            if not deadline.has_passed:
                raise ServerUnreachable(
                    server=self.server, reason=error.reason, _was_sent=error.was_sent, _is_transient=error.is_transient
                ) from error
            if not has_begun:
                yield None  # there was no time left for an answer

    def _require_private(self, url: str) -> None:
        # The HTTP client would leave the token out without a word.
        if self.has_token and url.startswith("http://") and not self.client.has_token(url):
            raise TokenExposed(server=self.server, variable=self.variable)

    def _judge(self, request_line: str, response: Response, content: bytes) -> ServerAnswer:
        status = response.status
        if 300 <= status < 400:
            location = shown_url(response.headers.get("Location", ""))
            reason = f"it redirects to {printable(location)!r}; if that is the server, name it"
            raise ServerUnknown(server=self.server, reason=reason)
        if status in (401, 403):
            if not self.has_token:
                raise TokenMissing(server=self.server, variable=self.variable)
            raise TokenRefused(server=self.server, variable=self.variable, status=status)
        try:
            document = json.loads(content) if content.strip() else None
        except (ValueError, RecursionError):
            if status < 300 or status == 404:
                reason = f"it answers {request_line} with {_describe_content(response)}"
                raise ServerUnknown(server=self.server, reason=reason) from None
            document = None
        if status < 300 or status == 404:
            return ServerAnswer(status=status, document=document)
        raise ServerRefused(
            server=self.server,
            request=request_line,
            status=status,
            reason=_failure_text(document) or printable(response.reason) or "no reason given",
            _retry_after_s=parse_retry_after(response.headers.get("Retry-After")),
        )


def clean_text(text: str) -> str:
    """Return a server's text of several lines without what would steer a terminal."""
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


def printable(text: str) -> str:
    """Return a server's text without what would steer a terminal, cut to a readable length."""
    shown_text = "".join(character if character.isprintable() else " " for character in text)
    return shown_text if len(shown_text) <= _SHOWN_CHARACTERS else f"{shown_text[:_SHOWN_CHARACTERS]}..."


def _describe_content(response: Response) -> str:
    content_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    kind = {"text/html": "a page (HTML)", "": "something"}.get(content_type, printable(content_type))
    return f"{kind} and HTTP {response.status}, not JSON"


def _failure_text(document: object) -> str | None:
    """Return the reason out of the failures that servers of jobs send: Runpod's, ours, and API v2's envelope."""
    if not isinstance(document, Mapping):
        return None
    error = document.get("error")
    if isinstance(error, Mapping):
        code, message = error.get("code"), error.get("message")
        return printable(f"{message} ({code})" if code else str(message))
    for field_name in ("error", "detail", "message", "title"):
        if isinstance(failure_text := document.get(field_name), str):
            return printable(failure_text)
    return None

"""RunPod's REST API v2: one client, errors as sentences, patience with 429 and 5xx, no request that could double.

urllib3 carries it (synchronous, like all of comfypin that no prompt waits for). The key is sent in one header, to one
host, and appears in no message. https://api.runpod.io/v2/openapi.json describes the requests.
"""

import json
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import urllib3

from comfypin.deploy.desired import Kind, plain_name
from comfypin.errors.deploy import ApiRefused, ApiUnreachable

BASE_URL = "https://api.runpod.io"
PATHS: dict[Kind, str] = {
    "registry": "/v2/registries",
    "volume": "/v2/network-volumes",
    "template": "/v2/templates",
    "endpoint": "/v2/serverless",
    "pod": "/v2/pods",
}
_LISTS: dict[Kind, str] = {
    "registry": "registries",
    "volume": "networkVolumes",
    "template": "templates",
    "endpoint": "endpoints",
    "pod": "pods",
}
_RETRIED = frozenset({429, 500, 502, 503, 504})
_TRIES = 5
_LONGEST_WAIT_S = 60.0
_MAX_BODY_BYTES = 64 << 20

Record = dict[str, object]


class Quota:
    """What the answers say is left of the account's requests: when a window is used up, the next request waits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._not_before = 0.0

    def hear(self, headers: Mapping[str, str]) -> None:
        """Note the RateLimit header of an answer, where a window has nothing left."""
        if (seconds := _spent_window_s(headers)) is not None:
            self._not_before = self._clock() + seconds

    def pause_s(self) -> float:
        """Seconds to wait before the next request. A pause is asked for once."""
        pause_s, self._not_before = self._not_before - self._clock(), 0.0
        return pause_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The management API. `sleep` is the clock's, so that tests need not wait."""

    key: str = field(repr=False)
    base_url: str = BASE_URL
    sleep: Callable[[float], None] = time.sleep
    quota: Quota = field(default_factory=Quota)
    pool: urllib3.PoolManager = field(
        default_factory=lambda: urllib3.PoolManager(timeout=urllib3.Timeout(connect=10, read=60), retries=False)
    )

    def everything(self, kind: Kind) -> list[Record]:
        """All of the account's resources of one kind."""
        answer = self.request("GET", PATHS[kind])
        items = answer.get(_LISTS[kind]) if isinstance(answer, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) and "id" in item for item in items):
            raise ApiUnreachable(request=f"GET {PATHS[kind]}", reason=f"the answer holds no list {_LISTS[kind]!r}")
        return items

    def create(self, kind: Kind, body: Mapping[str, object]) -> Record:
        """Make a resource, once: after an answer that got lost, the name is looked up before another try."""
        for attempt in range(_TRIES):
            try:
                return _record(self._once("POST", PATHS[kind], body), f"POST {PATHS[kind]}")
            except _Again as again:
                if attempt == _TRIES - 1:
                    raise again.failure from again.__cause__
                self._wait(attempt, again.wait_s)
                if again.may_have_happened and (made := self._named(kind, str(body["name"]))) is not None:
                    return made
        raise AssertionError("the loop above returns or raises")

    def change(self, kind: Kind, identifier: str, body: Mapping[str, object]) -> Record:
        """Change fields of a resource; repeating it is harmless."""
        return _record(self.request("PATCH", f"{PATHS[kind]}/{identifier}", body), f"PATCH {PATHS[kind]}")

    def remove(self, kind: Kind, identifier: str) -> None:
        """Delete a resource; one that is already gone is fine."""
        try:
            self.request("DELETE", f"{PATHS[kind]}/{identifier}")
        except ApiRefused as refused:
            if refused.status != 404:
                raise

    def gpus(self) -> list[Record]:
        """The GPU catalog: id, pool, memory in GB, prices in dollars an hour."""
        answer = self.request("GET", "/v2/catalog/gpus")
        items = answer.get("gpus") if isinstance(answer, dict) else None
        if not isinstance(items, list):
            raise ApiUnreachable(request="GET /v2/catalog/gpus", reason="the answer holds no list 'gpus'")
        return items

    def submit(self, path: str, body: Mapping[str, object]) -> object:
        """A POST that would count twice: it is tried again only where it surely did not arrive.

        Raises `ApiRefused`, and `ApiUnreachable` where nobody knows whether it was done.
        """
        for attempt in range(_TRIES):
            try:
                return self._once("POST", path, body)
            except _Again as again:
                if attempt == _TRIES - 1 or again.may_have_happened:
                    raise again.failure from again.__cause__
                self._wait(attempt, again.wait_s)
        raise AssertionError("the loop above returns or raises")

    def request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> object:
        """One repeatable request, tried again on 429, 5xx and cut answers. Returns the JSON, or None for an empty 204.

        Raises `ApiRefused` and `ApiUnreachable`.
        """
        for attempt in range(_TRIES):
            try:
                return self._once(method, path, body)
            except _Again as again:
                if attempt == _TRIES - 1:
                    raise again.failure from again.__cause__
                self._wait(attempt, again.wait_s)
        raise AssertionError("the loop above returns or raises")

    def _named(self, kind: Kind, name: str) -> Record | None:
        return next((item for item in self.everything(kind) if plain_name(item) == name), None)

    def _wait(self, attempt: int, asked_s: float | None) -> None:
        backoff_s = random.uniform(0.5, 1.0) * 2**attempt  # noqa: S311 - jitter, not a secret
        self.sleep(min(_LONGEST_WAIT_S, backoff_s if asked_s is None else asked_s))

    def _once(self, method: str, path: str, body: Mapping[str, object] | None) -> object:
        request = f"{method} {path}"
        headers = {"Authorization": f"Bearer {self.key}", "Accept": "application/json"}
        data = None
        if (pause_s := self.quota.pause_s()) > 0:
            self.sleep(min(_LONGEST_WAIT_S, pause_s))
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            answer = self.pool.request(method, self.base_url + path, body=data, headers=headers, redirect=False)
        except urllib3.exceptions.HTTPError as exc:
            sent = not isinstance(exc, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)
            raise _Again(ApiUnreachable(request=request, reason=_reason(exc)), may_have_happened=sent) from exc
        if answer.status < 300:
            self.quota.hear(answer.headers)
        if answer.status in _RETRIED:
            raise _Again(
                _refusal(request, answer),
                wait_s=_asked_wait_s(answer.headers),
                may_have_happened=answer.status != 429,
            )
        if answer.status >= 300:
            raise _refusal(request, answer)
        if not answer.data:
            return None
        try:
            return json.loads(answer.data[:_MAX_BODY_BYTES])
        except ValueError as exc:
            failure = ApiUnreachable(request=request, reason="the answer is not JSON")
            raise _Again(failure, may_have_happened=True) from exc


class _Again(Exception):
    """The request may be tried again after `wait_s`; `failure` is what it was if that is over."""

    def __init__(
        self, failure: ApiRefused | ApiUnreachable, *, wait_s: float | None = None, may_have_happened: bool = False
    ) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.wait_s = wait_s
        self.may_have_happened = may_have_happened


def _record(answer: object, request: str) -> Record:
    if not isinstance(answer, dict) or "id" not in answer:
        raise ApiUnreachable(request=request, reason="the answer is no resource with an id")
    return answer


def _refusal(request: str, answer: urllib3.BaseHTTPResponse) -> ApiRefused:
    """RFC 9457's title, detail and errors; for any other body its beginning."""
    try:
        problem = json.loads(answer.data)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        text = answer.data[:200].decode(errors="replace").strip()
        return ApiRefused(request=request, status=answer.status, title=answer.reason or "", detail=text or "no reason")
    errors = problem.get("errors")
    return ApiRefused(
        request=request,
        status=answer.status,
        title=str(problem.get("title", "")),
        detail=str(problem.get("detail", "no reason given")),
        errors=[str(error) for error in errors] if isinstance(errors, list) else (),
    )


def _asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks us to wait: Retry-After, else the reset of the window of RateLimit that is used up."""
    retry_after = headers.get("Retry-After", "")
    if re.fullmatch(r"\d+(\.\d+)?", retry_after):
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return _spent_window_s(headers)


def _spent_window_s(headers: Mapping[str, str]) -> float | None:
    # https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
    spent = re.findall(r";r=0\b[^,]*?;t=(\d+)", headers.get("RateLimit", ""))
    return max((float(seconds) for seconds in spent), default=None)


def _reason(exc: Exception) -> str:
    match exc:
        case urllib3.exceptions.NameResolutionError():
            return "its name could not be resolved (is there a network?)"
        case urllib3.exceptions.TimeoutError():
            return "it took too long"
        case urllib3.exceptions.SSLError():
            return "the TLS certificate was not accepted"
        case _:
            return type(exc).__name__

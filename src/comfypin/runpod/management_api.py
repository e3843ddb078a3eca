"""RunPod's REST API v2: one client, errors as sentences, retries of 429 and 5xx, no request that could double.

The key is sent in one header, to one host, and appears in no message. https://api.runpod.io/v2/openapi.json describes
the requests.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from comfypin.http.client import HttpClient, HttpTransport
from comfypin.http.deadline import Deadline
from comfypin.http.errors import HttpError
from comfypin.http.response import Response
from comfypin.retry import Retry, RetryPolicy, parse_retry_after
from comfypin.runpod.desired_state import Kind, plain_name
from comfypin.runpod.errors import ApiRefused, ApiUnreachable

T = TypeVar("T")

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
API_RETRIES = RetryPolicy(retries=4, base_s=1.0, longest_s=60.0, longest_asked_s=120.0)
_REQUEST_S = 180.0
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
    client: HttpClient = field(default_factory=lambda: HttpClient(transport=HttpTransport(timeout_s=60.0)))

    def everything(self, kind: Kind) -> list[Record]:
        """All of the account's resources of one kind."""
        answer = self.request("GET", PATHS[kind])
        items = answer.get(_LISTS[kind]) if isinstance(answer, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) and "id" in item for item in items):
            raise ApiUnreachable(request=f"GET {PATHS[kind]}", reason=f"the answer holds no list {_LISTS[kind]!r}")
        return items

    def create(self, kind: Kind, body: Mapping[str, object]) -> Record:
        """Make a resource, once: after an answer that got lost, the name is looked up before another try."""
        may_exist = False

        def create() -> Record:
            nonlocal may_exist
            if may_exist and (made := self._named(kind, str(body["name"]))) is not None:
                return made
            try:
                return _record(self._once("POST", PATHS[kind], body), f"POST {PATHS[kind]}")
            except _Again as again:
                may_exist = may_exist or again.may_have_happened
                raise

        return self._retried(create)

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
        return self._retried(
            lambda: self._once("POST", path, body),
            when=lambda error: isinstance(error, _Again) and not error.may_have_happened,
        )

    def request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> object:
        """One repeatable request, tried again on 429, 5xx and cut answers. Returns the JSON, or None for an empty 204.

        Raises `ApiRefused` and `ApiUnreachable`.
        """
        return self._retried(lambda: self._once(method, path, body))

    def _retried(self, operation: Callable[[], T], *, when: Callable[[Exception], bool] = lambda error: True) -> T:
        try:
            return Retry(policy=API_RETRIES, on=_Again, when=when).call(operation, sleep=self.sleep)
        except _Again as again:
            raise again.failure from again.__cause__

    def _named(self, kind: Kind, name: str) -> Record | None:
        return next((item for item in self.everything(kind) if plain_name(item) == name), None)

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
            # A key goes where it is meant to go, or nowhere: no redirect is followed.
            response = self.client.request(
                method, self.base_url + path, headers=headers, body=data, max_redirects=0, deadline=Deadline(_REQUEST_S)
            )
            content = response.read_bytes(_MAX_BODY_BYTES)
        except HttpError as error:
            failure = ApiUnreachable(request=request, reason=error.reason)
            if not error.is_transient and not error.was_sent:
                raise failure from error
            raise _Again(failure, may_have_happened=error.was_sent) from error
        if response.status < 300:
            self.quota.hear(response.headers)
            return self._parsed(request, content)
        refusal = _refusal(request, response, content)
        if response.status in _RETRIED:
            asked_s = _asked_delay_s(response.headers)
            raise _Again(refusal, retry_after_s=asked_s, may_have_happened=response.status != 429)
        raise refusal

    def _parsed(self, request: str, content: bytes) -> object:
        if not content:
            return None
        try:
            return json.loads(content)
        except ValueError as exc:
            failure = ApiUnreachable(request=request, reason="the answer is not JSON")
            raise _Again(failure, may_have_happened=True) from exc


class _Again(Exception):
    """The request may be tried again after `retry_after_s`; `failure` is what it was if that is over."""

    def __init__(
        self,
        failure: ApiRefused | ApiUnreachable,
        *,
        retry_after_s: float | None = None,
        may_have_happened: bool = False,
    ) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.retry_after_s = retry_after_s
        self.may_have_happened = may_have_happened


def _record(answer: object, request: str) -> Record:
    if not isinstance(answer, dict) or "id" not in answer:
        raise ApiUnreachable(request=request, reason="the answer is no resource with an id")
    return answer


def _refusal(request: str, response: Response, content: bytes) -> ApiRefused:
    """Return RFC 9457's title, detail and errors; for any other body its beginning."""
    try:
        problem = json.loads(content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        text = content[:200].decode(errors="replace").strip()
        return ApiRefused(request=request, status=response.status, title=response.reason, detail=text or "no reason")
    errors = problem.get("errors")
    return ApiRefused(
        request=request,
        status=response.status,
        title=str(problem.get("title", "")),
        detail=str(problem.get("detail", "no reason given")),
        errors=[str(error) for error in errors] if isinstance(errors, list) else (),
    )


def _asked_delay_s(headers: Mapping[str, str]) -> float | None:
    """Return what the server asks for: Retry-After, else the reset of the window of RateLimit that is used up."""
    asked_s = parse_retry_after(headers.get("Retry-After"))
    return _spent_window_s(headers) if asked_s is None else asked_s


def _spent_window_s(headers: Mapping[str, str]) -> float | None:
    # https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
    spent = re.findall(r";r=0\b[^,]*?;t=(\d+)", headers.get("RateLimit", ""))
    return max((float(seconds) for seconds in spent), default=None)

"""Speaks Runpod's REST API v2: errors as sentences, retries of 429 and 5xx, no request that could double.

The key is sent in one header, to one host, and appears in no message. https://api.runpod.io/v2/openapi.json describes
the requests.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlencode

from comfypin.http.client import HttpClient, HttpTransport
from comfypin.http.deadline import Deadline
from comfypin.http.errors import HttpError
from comfypin.http.response import Response
from comfypin.retry import Retry, RetryPolicy, parse_retry_after
from comfypin.runpod.desired_state import ResourceKind, plain_name
from comfypin.runpod.errors import ApiRefused, ApiUnreachable

T = TypeVar("T")

BASE_URL = "https://api.runpod.io"
RESOURCE_PATHS: dict[ResourceKind, str] = {
    "registry": "/v2/registries",
    "volume": "/v2/network-volumes",
    "template": "/v2/templates",
    "endpoint": "/v2/serverless",
    "pod": "/v2/pods",
}
_LIST_FIELDS: dict[ResourceKind, str] = {
    "registry": "registries",
    "volume": "networkVolumes",
    "template": "templates",
    "endpoint": "endpoints",
    "pod": "pods",
}
_RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})
API_RETRIES = RetryPolicy(retries=4, base_s=1.0, longest_s=60.0, longest_asked_s=120.0)
# Making a pod may take Runpod a minute or two.
_REQUEST_S = 180.0
# Runpod asks for a minute if a key has sent too many requests.
_LONGEST_WAIT_S = 60.0
_MAX_BODY_BYTES = 64 << 20
# As Runpod's own clients ask.
_PAGE_SIZE = 1000
# A million resources: more is a cursor that goes round in circles.
_MOST_PAGES = 1000

Resource = dict[str, object]


class RequestQuota:
    """Tracks how much of the account's requests is left: when a window is used up, the next request waits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._not_before = 0.0

    def note_headers(self, headers: Mapping[str, str]) -> None:
        """Note the RateLimit header of a response if a window has nothing left."""
        if (seconds := _spent_window_s(headers)) is not None:
            self._not_before = self._clock() + seconds

    def take_pause_s(self) -> float:
        """Return the seconds to wait before the next request, once."""
        pause_s, self._not_before = self._not_before - self._clock(), 0.0
        return pause_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagementApi:
    """Speaks Runpod's management API. `sleep` is the clock's, so that tests need not wait.

    `extra_headers` go along with each request; `on_response` is told the headers of each answer that is no refusal.
    """

    key: str = field(repr=False)
    base_url: str = BASE_URL
    sleep: Callable[[float], None] = time.sleep
    quota: RequestQuota = field(default_factory=RequestQuota)
    extra_headers: Callable[[], Mapping[str, str]] = field(default=dict, repr=False)
    on_response: Callable[[Mapping[str, str]], None] = field(default=lambda _headers: None, repr=False)
    client: HttpClient = field(default_factory=lambda: HttpClient(transport=HttpTransport(timeout_s=60.0)))

    def list_resources(self, resource_kind: ResourceKind) -> list[Resource]:
        """Return all of the account's resources of one kind, of as many pages as there are."""
        return self._list_pages(RESOURCE_PATHS[resource_kind], _LIST_FIELDS[resource_kind])

    def _list_pages(self, request_path: str, list_field: str) -> list[Resource]:
        resources: list[Resource] = []
        cursors: list[str] = []
        while True:
            query = {"limit": str(_PAGE_SIZE), **({"cursor": cursors[-1]} if cursors else {})}
            response_json = self.send_request("GET", f"{request_path}?{urlencode(query)}")
            resources += _read_page(response_json, request_path, list_field)
            cursor = _next_cursor(response_json)
            if cursor is None:
                # A resource that was made meanwhile may have moved others to the next page: each counts once.
                return list({str(resource["id"]): resource for resource in resources}.values())
            # Half a list would be taken for the whole account, and what is not in it for what is not there.
            if cursor in cursors or len(cursors) == _MOST_PAGES:
                raise ApiUnreachable(request=f"GET {request_path}", reason="the pages of the answer do not end")
            cursors.append(cursor)

    def create_resource(self, resource_kind: ResourceKind, request_body: Mapping[str, object]) -> Resource:
        """Make a resource, once: after an answer that got lost, the name is looked up before another try."""
        may_exist = False

        def create_or_find() -> Resource:
            nonlocal may_exist
            # A POST without a response may have been carried out: a second one would make a second, billed resource.
            if may_exist and (made := self._find_by_name(resource_kind, str(request_body["name"]))) is not None:
                return made
            try:
                return _require_resource(
                    self._send_once("POST", RESOURCE_PATHS[resource_kind], request_body),
                    f"POST {RESOURCE_PATHS[resource_kind]}",
                )
            except _RetryableFailure as retryable:
                may_exist = may_exist or retryable.may_have_happened
                raise

        return self._with_retries(create_or_find)

    def change_resource(
        self, resource_kind: ResourceKind, identifier: str, request_body: Mapping[str, object]
    ) -> Resource:
        """Change fields of a resource; repeating it is harmless."""
        return _require_resource(
            self.send_request("PATCH", f"{RESOURCE_PATHS[resource_kind]}/{identifier}", request_body),
            f"PATCH {RESOURCE_PATHS[resource_kind]}",
        )

    def remove_resource(self, resource_kind: ResourceKind, identifier: str) -> None:
        """Delete a resource; one that is already gone is fine."""
        try:
            self.send_request("DELETE", f"{RESOURCE_PATHS[resource_kind]}/{identifier}")
        except ApiRefused as refused:
            if refused.status != 404:
                raise

    def list_gpus(self) -> list[Resource]:
        """Return the GPU catalog: id, pool, memory in GB, prices in dollars an hour."""
        return self._list_pages("/v2/catalog/gpus", "gpus")

    def list_cpus(self) -> list[Resource]:
        """Return the CPU catalog: id, the range of vCPUs, prices in dollars an hour for a vCPU."""
        return self._list_pages("/v2/catalog/cpus", "cpus")

    def get_resource(self, resource_kind: ResourceKind, identifier: str) -> Resource:
        """Return one resource by its id. Raises `ApiRefused`, with 404 if it does not exist."""
        return _require_resource(
            self.send_request("GET", f"{RESOURCE_PATHS[resource_kind]}/{identifier}"),
            f"GET {RESOURCE_PATHS[resource_kind]}",
        )

    def submit_once(self, request_path: str, request_body: Mapping[str, object]) -> object:
        """Send a POST that would count twice: it is tried again only if it surely did not arrive.

        Raises `ApiRefused`, and `ApiUnreachable` if nobody knows whether it was done.
        """
        return self._with_retries(
            lambda: self._send_once("POST", request_path, request_body),
            when=lambda http_error: isinstance(http_error, _RetryableFailure) and not http_error.may_have_happened,
        )

    def send_request(self, method: str, request_path: str, request_body: Mapping[str, object] | None = None) -> object:
        """Send a repeatable request, again on 429, 5xx and cut responses. Returns the JSON, or None for an empty 204.

        Raises `ApiRefused` and `ApiUnreachable`.
        """
        return self._with_retries(lambda: self._send_once(method, request_path, request_body))

    def _with_retries(
        self, operation: Callable[[], T], *, when: Callable[[Exception], bool] = lambda http_error: True
    ) -> T:
        try:
            return Retry(policy=API_RETRIES, on=_RetryableFailure, when=when).call(operation, sleep=self.sleep)
        except _RetryableFailure as retryable:
            raise retryable.failure from retryable.__cause__

    def _find_by_name(self, resource_kind: ResourceKind, resource_name: str) -> Resource | None:
        return next(
            (resource for resource in self.list_resources(resource_kind) if plain_name(resource) == resource_name), None
        )

    def _send_once(self, method: str, request_path: str, request_body: Mapping[str, object] | None) -> object:
        request_line = f"{method} {request_path}"
        headers = {**self.extra_headers(), "Authorization": f"Bearer {self.key}", "Accept": "application/json"}
        request_bytes = None
        if (pause_s := self.quota.take_pause_s()) > 0:
            self.sleep(min(_LONGEST_WAIT_S, pause_s))
        if request_body is not None:
            request_bytes = json.dumps(request_body).encode()
            headers["Content-Type"] = "application/json"
        try:
            # A key goes where it is meant to go, or nowhere: no redirect is followed.
            response = self.client.request(
                method,
                self.base_url + request_path,
                headers=headers,
                body=request_bytes,
                max_redirects=0,
                deadline=Deadline(_REQUEST_S),
            )
            content = response.read_bytes(_MAX_BODY_BYTES)
        except HttpError as http_error:
            failure = ApiUnreachable(request=request_line, reason=http_error.reason)
            # What never left, and never will (a wrong name, a bad certificate), is not worth another try.
            if not http_error.is_transient and not http_error.was_sent:
                raise failure from http_error
            raise _RetryableFailure(failure, may_have_happened=http_error.was_sent) from http_error
        if response.status < 300:
            self.quota.note_headers(response.headers)
            self.on_response(response.headers)
            return self._parse_json(request_line, content)
        refusal = _to_refusal(request_line, response, content)
        if response.status in _RETRIED_STATUSES:
            retry_after_s = _asked_delay_s(response.headers)
            # 429 comes from the gateway, before anything is done; a 5xx may come after.
            raise _RetryableFailure(refusal, retry_after_s=retry_after_s, may_have_happened=response.status != 429)
        raise refusal

    def _parse_json(self, request_line: str, content: bytes) -> object:
        if not content:
            return None
        try:
            return json.loads(content)
        except ValueError as exc:
            failure = ApiUnreachable(request=request_line, reason="the answer is not JSON")
            raise _RetryableFailure(failure, may_have_happened=True) from exc


class _RetryableFailure(Exception):
    """One try failed; `failure` is raised if no other try succeeds."""

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


def _read_page(response_json: object, request_path: str, field_name: str) -> list[Resource]:
    resources = response_json.get(field_name) if isinstance(response_json, dict) else None
    if not isinstance(resources, list) or not all(
        isinstance(resource, dict) and "id" in resource for resource in resources
    ):
        raise ApiUnreachable(request=f"GET {request_path}", reason=f"the answer holds no list {field_name!r}")
    return resources


def _next_cursor(response_json: object) -> str | None:
    """Return where the next page begins; None after the last, and for an answer that is not paged."""
    pagination = response_json.get("pagination") if isinstance(response_json, dict) else None
    if not isinstance(pagination, dict) or not pagination.get("hasNextPage"):
        return None
    cursor = pagination.get("nextCursor")
    return cursor if isinstance(cursor, str) and cursor else None


def _require_resource(response_json: object, request_line: str) -> Resource:
    if not isinstance(response_json, dict) or "id" not in response_json:
        raise ApiUnreachable(request=request_line, reason="the answer is no resource with an id")
    return response_json


def _to_refusal(request_line: str, response: Response, content: bytes) -> ApiRefused:
    """Return RFC 9457's title, detail and errors; for any other body its beginning."""
    try:
        problem = json.loads(content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        refusal_text = content[:200].decode(errors="replace").strip()
        return ApiRefused(
            request=request_line, status=response.status, title=response.reason, detail=refusal_text or "no reason"
        )
    errors = problem.get("errors")
    return ApiRefused(
        request=request_line,
        status=response.status,
        title=str(problem.get("title", "")),
        # Of an endpoint's workers and its edge, whose errors are of other kinds.
        detail=str(problem.get("detail") or problem.get("error") or problem.get("reason") or "no reason given"),
        errors=[str(http_error) for http_error in errors] if isinstance(errors, list) else (),
    )


def _asked_delay_s(headers: Mapping[str, str]) -> float | None:
    """Return what the server asks for: Retry-After, else the reset of the window of RateLimit that is used up."""
    retry_after_s = parse_retry_after(headers.get("Retry-After"))
    return _spent_window_s(headers) if retry_after_s is None else retry_after_s


def _spent_window_s(headers: Mapping[str, str]) -> float | None:
    # https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
    spent_windows = re.findall(r";r=0\b[^,]*?;t=(\d+)", headers.get("RateLimit", ""))
    return max((float(seconds) for seconds in spent_windows), default=None)

"""Reaches the workers behind a load-balancing endpoint, which are servers of `comfypin serve`.

Runpod's edge wants its key in Authorization and passes the rest on, so the server's token goes into a header of its
own. A job is known to the worker that took it alone: whatever is asked about it goes to the same worker;
https://docs.runpod.io/serverless/load-balancing/worker-affinity
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from comfypin.errors import ConfigError
from comfypin.http.deadline import Deadline
from comfypin.http.errors import HttpError
from comfypin.runpod.errors import ApiRefused, WaitedTooLong
from comfypin.runpod.management_api import ManagementApi

# Runpod's limit for load-balancing endpoints.
MAX_REQUEST_BYTES = 30_000_000
WORKER_HEADER = "X-Runpod-Worker-Id"
# The gate of `comfypin serve` reads it; it knows nothing of Runpod, so the name stands twice.
GATE_HEADER = "X-Comfypin-Token"
# A worker that starts takes tens of seconds.
_POLL_S = 2.0
# The edge holds a request for up to two minutes while it looks for a worker.
_PING_S = 130.0
# The edge answers with a page; its beginning says what is wrong.
_SHOWN_BYTES = 200
# Only these stay as they are however long one waits.
_FINAL_STATUSES = (401, 403)


@dataclass(slots=True, kw_only=True)
class WorkerSession:
    """Holds the token that the workers want, and the worker that answered first."""

    token: str = field(repr=False)
    worker_id: str | None = None

    def headers(self) -> dict[str, str]:
        """Return the headers of the next request."""
        # Strict: another worker would say that there is no such job, which is not true.
        affinity = {} if self.worker_id is None else {WORKER_HEADER: f"strict {self.worker_id}"}
        return {GATE_HEADER: self.token, **affinity}

    def note_response(self, headers: Mapping[str, str]) -> None:
        """Keep to the worker that answered."""
        self.worker_id = self.worker_id or headers.get(WORKER_HEADER)


def balancer_address(endpoint: Mapping[str, object]) -> str | None:
    """Return the address of a live endpoint's load balancer, or None if it has a queue."""
    if endpoint.get("type") != "LOAD_BALANCER":
        return None
    addresses = endpoint.get("requestUrls")
    base = addresses.get("base") if isinstance(addresses, Mapping) else None
    return str(base).rstrip("/") if base else f"https://{endpoint['id']}.api.runpod.ai"


def balanced_jobs(management_api: ManagementApi, address: str, *, token: str | None) -> ManagementApi:
    """Return the API that sends jobs to the workers behind an address. Raises `ConfigError` without their token."""
    if token is None:
        raise ConfigError(
            "COMFYPIN_TOKEN is not set here, and the workers behind a load balancer want the one of runpod.toml's "
            "[env]; export it (Runpod never tells the values of secrets).",
            variable="COMFYPIN_TOKEN",
        )
    session = WorkerSession(token=token)
    # The server has Runpod's job paths below /v2/<endpoint> too, so jobs are sent as to a queue.
    return replace(
        management_api,
        base_url=f"{address}/v2",
        extra_headers=session.headers,
        on_response=session.note_response,
    )


def wait_for_balancer(
    management_api: ManagementApi,
    address: str,
    *,
    timeout_s: float,
    on_state: Callable[[str], None] = lambda _state: None,
) -> None:
    """Return when a worker behind the load balancer is healthy; asking starts one. Raises `WaitedTooLong`."""
    deadline = time.monotonic() + timeout_s
    last_state = ""
    while True:
        state = _ping(management_api, address)
        if state is None:
            return
        if state != last_state:
            on_state(state)
            last_state = state
        if time.monotonic() > deadline:
            raise WaitedTooLong(what=f"The load balancer at {address}", timeout_s=timeout_s, state=state)
        management_api.sleep(_POLL_S)


def _ping(management_api: ManagementApi, address: str) -> str | None:
    """Return why no worker is healthy yet, or None if one is. Raises `ApiRefused` if the key is refused."""
    headers = {"Authorization": f"Bearer {management_api.key}"}
    try:
        response = management_api.client.request(
            "GET", f"{address}/ping", headers=headers, max_redirects=0, deadline=Deadline(_PING_S)
        )
        response_text = response.read_text(_SHOWN_BYTES).strip()
    except HttpError as error:
        return error.reason
    if response.status in _FINAL_STATUSES:
        raise ApiRefused(
            request="GET /ping", status=response.status, title=response.reason, detail=response_text or "no reason"
        )
    match response.status:
        case 200:
            return None
        case 204:
            return "a worker is starting"
        case status:
            return f"{status} {response_text or response.reason}"

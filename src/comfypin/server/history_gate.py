"""Holds back what needs all jobs while a server of a large fleet still reads them: lists are never incomplete."""

from starlette.types import ASGIApp, Receive, Scope, Send

from comfypin.queue.interface import ServedQueue
from comfypin.server.comfy_api.envelope import speaks_envelope
from comfypin.server.comfy_api.errors import ApiFailure, respond
from comfypin.server.errors import HistoryNotRead
from comfypin.server.responses import failure_response

# A hundred thousand jobs are read in a minute.
_RETRY_AFTER_S = 5
# Jobs are taken, told of and stopped one by one: the queue itself is asked.
_SINGLE_JOBS = frozenset({"run", "runsync", "status", "cancel", "workflows"})
_MACHINE = frozenset({"ping", "metrics", "openapi.json", "session", "page", "fleet", "fleet-bodies", ""})


class HistoryGate:
    """Answers 503 to requests that need all jobs, until the queue has them."""

    def __init__(self, app: ASGIApp, *, queue: ServedQueue) -> None:
        self._app = app
        self._queue = queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it for now."""
        if scope["type"] != "http" or self._queue.has_all_jobs or not needs_all_jobs(scope["path"]):
            await self._app(scope, receive, send)
            return
        failure = HistoryNotRead()
        if speaks_envelope(scope["path"]):
            refusal = respond(ApiFailure(503, "upstream_error", failure.message, retry_after_s=_RETRY_AFTER_S))
        else:
            headers = {"Retry-After": str(_RETRY_AFTER_S)}
            refusal = failure_response(503, failure.message, headers=headers, error_type="HistoryNotRead")
        await refusal(scope, receive, send)


def needs_all_jobs(path: str) -> bool:
    """Return whether what is asked for could be wrong before all jobs are known (pure)."""
    parts = path.strip("/").split("/")
    # Runpod's URLs have /v2/ENDPOINT before the route.
    route = parts[2] if len(parts) > 2 and parts[0] == "v2" else parts[0]
    return route not in _SINGLE_JOBS | _MACHINE

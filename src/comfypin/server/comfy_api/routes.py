"""Comfy API v2 as an application of its own, mounted at /api/v2: whatever goes wrong is told in its envelope."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from comfypin.errors import ComfypinError
from comfypin.queue.errors import JobsNotStored
from comfypin.queue.status_bodies import is_pending
from comfypin.server.comfy_api.api import ComfyApi
from comfypin.server.comfy_api.asset_routes import asset_routes
from comfypin.server.comfy_api.envelope import envelope, speaks_envelope
from comfypin.server.comfy_api.errors import ApiFailure, failure_of, invalid_request, respond
from comfypin.server.comfy_api.job_routes import job_routes
from comfypin.server.request_bodies import describe_mismatch
from comfypin.server.responses import failure_response

log = logging.getLogger(__name__)

# An error is one line.
_LONGEST_PATH = 100
# Keys live for a day.
_SWEEP_KEYS_EVERY_S = 600.0


def make_comfy_app(api: ComfyApi) -> FastAPI:
    """Return the application of all its routes."""
    app = FastAPI(title="Comfy API v2", openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(asset_routes(api))
    app.include_router(job_routes(api))
    app.add_exception_handler(ComfypinError, _failed)
    app.add_exception_handler(OSError, _failed)
    app.add_exception_handler(Exception, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(ClientDisconnect, _gone)
    return app


@contextlib.asynccontextmanager
async def run_sweeps(api: ComfyApi) -> AsyncIterator[None]:
    """Read what earlier lives of the server left, and remove while the block lasts what was kept long enough."""
    await api.keys.load()
    await api.assets.recover()
    sweeps = [asyncio.create_task(_sweep_assets(api)), asyncio.create_task(_sweep_keys(api))]
    try:
        yield
    finally:
        for sweep in sweeps:
            sweep.cancel()
        await asyncio.gather(*sweeps, return_exceptions=True)


async def _sweep_assets(api: ComfyApi) -> None:
    # Which assets jobs use is known only then.
    await api.queue.wait_for_all_jobs()
    await api.assets.sweep_forever()


async def _sweep_keys(api: ComfyApi) -> None:
    while True:
        await asyncio.sleep(_SWEEP_KEYS_EVERY_S)
        api.secrets.sweep(
            lambda job_id: (live := api.queue.find_live(job_id)) is not None and is_pending(live.row.state)
        )
        with contextlib.suppress(JobsNotStored):
            await api.keys.sweep()


async def _failed(request: Request, error: Exception) -> Response:
    failure = failure_of(error)
    if failure.status >= 500:
        # What the answer does not say stands in the log.
        facts = {"action": "request_failed", "path": request.url.path, "reason": str(error)}
        log.error("request failed", extra=facts, exc_info=None if isinstance(error, ComfypinError) else error)
    return respond(failure)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return respond(invalid_request(describe_mismatch(error.errors())))


async def unrouted(request: Request, error: Exception) -> Response:
    """Answer an unknown path or method: of this API in its envelope, of others beside FastAPI's own `detail`."""
    assert isinstance(error, HTTPException)
    message = _describe_unrouted(request, error)
    if not speaks_envelope(request.url.path):
        return failure_response(error.status_code, message, headers=error.headers, detail=error.detail)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    return envelope(error.status_code, code, message, headers=error.headers)


def _describe_unrouted(request: Request, error: HTTPException) -> str:
    path = request.url.path[:_LONGEST_PATH]
    match error.status_code:
        case 404 if speaks_envelope(request.url.path):
            return f"Comfy API v2 has no path {path}: its description is at https://docs.comfy.org."
        case 404:
            return f"There is no path {path} here: GET /openapi.json lists those that there are."
        case 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            return f"{request.method} does nothing at {path}: send {allowed}."
    return f"{error.detail}."


async def _gone(_request: Request, _error: Exception) -> Response:
    return respond(ApiFailure(400, "invalid_request", "The request was cut off."))  # nobody reads it

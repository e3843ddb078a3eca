"""Helps the routes: reads JSON, answers malformed requests, refuses other sites' pages."""

import contextlib
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def read_json(request: web.Request) -> Any:
    """Return the parsed body; answer broken JSON with 500, as ComfyUI does."""
    body_bytes = await request.read()
    with answer_trouble():
        return json.loads(body_bytes)


def get_field(request_body: Any, field_name: str) -> Any:
    """Return a field of a body, or None. A list without it counts as an object without it, as in ComfyUI."""
    return request_body[field_name] if field_name in request_body else None  # noqa: SIM401, a list has no get


@contextlib.contextmanager
def answer_trouble() -> Iterator[None]:
    """Answer a request of the wrong shape with 500 in aiohttp's words, which is what ComfyUI's clients see."""
    try:
        yield
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, RecursionError) as problem:
        log.warning("bad request", extra={"action": "bad_request", "why": repr(problem)})
        response = web.HTTPInternalServerError(text="500 Internal Server Error\n\nServer got itself in trouble")
        response.force_close()
        raise response from problem


@web.middleware
async def refuse_cross_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse requests that a page of another site sends to a server on this machine."""
    # Browsers set this themselves; a page cannot forge it.
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return web.Response(status=403)
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
    # Only a server on loopback is at risk: any page in the user's browser can reach it.
    if origin and _is_loopback(host) and not _is_same_host(host, origin):
        log.warning("other origin", extra={"action": "origin_refused", "host": host, "origin": origin})
        return web.Response(status=403)
    return await handler(request)


def _is_same_host(host: str, origin: str) -> bool:
    try:
        ours, theirs = urlsplit(f"//{host}"), urlsplit(origin)
        return ours.hostname == theirs.hostname and (None in (ours.port, theirs.port) or ours.port == theirs.port)
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        host_name = urlsplit(f"//{host}").hostname or ""
        return host_name == "localhost" or ipaddress.ip_address(host_name).is_loopback
    except ValueError:
        return False

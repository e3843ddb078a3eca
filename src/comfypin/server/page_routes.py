"""The page of the server, and signing in to it."""

import asyncio
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from comfypin import __version__
from comfypin.server.auth import SESSION_PATH, AccessRules, asks_for_page
from comfypin.server.fleet_outputs import FleetOutputs
from comfypin.server.fleet_routes import FleetReader
from comfypin.server.output_routes import Gallery
from comfypin.server.page_files import load_page_files, page_response
from comfypin.server.prefix import prefix_of
from comfypin.server.request_bodies import parse_json_body
from comfypin.server.responses import JsonResponse, failure_response
from comfypin.server.sessions import SESSION_S
from comfypin.server.system_report import SystemReport

# A token and a little JSON around it; it is read before anybody has signed in.
_MOST_SIGN_IN_BYTES = 4096
# Nobody notices it once; a guesser gets three tries a second and connection.
_WRONG_TOKEN_S = 0.3
_PAGE_IS_FOR_BROWSERS = "This address is a page: open it in a browser; GET /openapi.json lists the paths for programs."
_SIGN_IN_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "token": {"type": "string", "description": "The server's token."},
                        "link": {"type": "string", "description": "The code of a one-time link."},
                    },
                }
            }
        },
    }
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What the page shows beside the jobs. `prefix` is the path that a proxy leaves before ours, or empty."""

    gallery: Gallery
    system: SystemReport
    fleet: FleetReader | None = None
    fleet_outputs: FleetOutputs | None = None
    prefix: str = ""


def page_routes(rules: AccessRules, shown: Page) -> APIRouter:
    """Return the routes of the page, its session, and what it tells of this machine."""
    routes = APIRouter(tags=["server"])
    page_files = load_page_files()

    # A HEAD is asked by those who look whether the page is there.
    @routes.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(request: Request) -> Response:
        if not asks_for_page(request.headers.get("accept", "")):
            return failure_response(404, _PAGE_IS_FOR_BROWSERS)
        # Pictures of other buckets come through the server: which those will be is not known yet.
        own = await shown.gallery.files.bucket_origin()
        return page_response(request, page_files["index.html"], picture_origin=own)

    @routes.get("/system", summary="The release, the engine, memory, disk, models, and what is owed")
    async def system() -> Response:
        return JsonResponse(await shown.system.to_json())

    @routes.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    async def docs(request: Request) -> Response:
        return page_response(request, page_files["docs.html"])

    @routes.api_route("/page/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def page_file(request: Request, path: str) -> Response:
        page_file = page_files.get(path)
        return (
            failure_response(404, "There is no such file.") if page_file is None else page_response(request, page_file)
        )

    _add_session_routes(routes, rules)
    return routes


def _add_session_routes(routes: APIRouter, rules: AccessRules) -> None:
    @routes.get(SESSION_PATH, summary="Whether this browser is signed in")
    async def session(request: Request) -> Response:
        is_signed_in = rules.session_in(request.headers.get("cookie", "")) is not None
        return JsonResponse(
            {"signed_in": is_signed_in, "token_needed": rules.token is not None, "version": __version__}
        )

    @routes.post(SESSION_PATH, summary="Sign a browser in: its cookie is a session", openapi_extra=_SIGN_IN_BODY)
    async def sign_in(request: Request) -> Response:
        if rules.sessions is None:
            return JsonResponse({"signed_in": True})
        request_body = await request.body()
        if len(request_body) > _MOST_SIGN_IN_BYTES:
            return failure_response(413, "Signing in takes a token or the code of a link, and nothing else.")
        document = parse_json_body(request_body)
        form = document if isinstance(document, dict) else {}
        token, link = form.get("token"), form.get("link")
        if isinstance(link, str) and rules.sessions.redeem_link_code(link):
            return await _begin_session(request, rules)
        if isinstance(token, str) and rules.is_token(token.strip()):
            return await _begin_session(request, rules)
        # Not at once, so that guessing takes its time.
        await asyncio.sleep(_WRONG_TOKEN_S)
        reason = "The link was used already, or is too old." if isinstance(link, str) else "The token is wrong."
        return failure_response(403, reason)

    @routes.delete(SESSION_PATH, summary="Sign this browser out")
    async def sign_out(request: Request) -> Response:
        response = JsonResponse({"signed_in": False})
        session = rules.session_in(request.headers.get("cookie", ""))
        if rules.sessions is not None and session is not None:
            await asyncio.to_thread(rules.sessions.end, session)
            response.delete_cookie(rules.sessions.cookie_name, path=f"{prefix_of(request)}/")
        return response


async def _begin_session(request: Request, rules: AccessRules) -> Response:
    assert rules.sessions is not None
    response = JsonResponse({"signed_in": True})
    response.set_cookie(
        rules.sessions.cookie_name,
        await asyncio.to_thread(rules.sessions.begin),
        max_age=int(SESSION_S),
        path=f"{prefix_of(request)}/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https" or request.headers.get("x-forwarded-proto", "").lower() == "https",
    )
    return response

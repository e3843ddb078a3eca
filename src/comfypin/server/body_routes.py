"""What a server of a fleet keeps for workers and other servers: large inputs and results, by signed addresses."""

import asyncio
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, Response

from comfypin.queue.nats.server_depot import PATH
from comfypin.server.responses import failure_response

if TYPE_CHECKING:
    from pathlib import Path

    from comfypin.queue.nats.server_depot import ServerBodies


def body_routes(bodies: "ServerBodies") -> APIRouter:
    """Return the routes. They need no token: the address is signed, and names one job."""
    routes = APIRouter(include_in_schema=False)

    def find(job_id: str, part: str, request: Request) -> "Path | Response":
        # The whole query is the signature.
        path = bodies.path_of(job_id, part, request.url.query)
        return failure_response(403, "This address is not signed by this server.") if path is None else path

    @routes.get(PATH + "/{job_id}/{part}")
    async def read_body(job_id: str, part: str, request: Request) -> Response:
        located_body = find(job_id, part, request)
        if isinstance(located_body, Response):
            return located_body
        if not await asyncio.to_thread(located_body.is_file):
            return failure_response(404, "This is not kept any more.")
        return FileResponse(located_body, media_type="application/octet-stream")

    @routes.put(PATH + "/{job_id}/{part}")
    async def write_body(job_id: str, part: str, request: Request) -> Response:
        located_body = find(job_id, part, request)
        if isinstance(located_body, Response):
            return located_body
        await asyncio.to_thread(bodies.write, located_body, await request.body())
        return Response(status_code=201)

    @routes.delete(PATH + "/{job_id}/{part}")
    async def remove_body(job_id: str, part: str, request: Request) -> Response:
        located_body = find(job_id, part, request)
        if isinstance(located_body, Response):
            return located_body
        await asyncio.to_thread(located_body.unlink, missing_ok=True)
        return Response(status_code=204)

    return routes

"""Routes of models that the operator brings while the server runs: POST /models, and how they stand."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from comfypin.digest import JsonValue
from comfypin.jobs.errors import JobInvalid
from comfypin.jobs.job_input import parse_model_wish
from comfypin.models.errors import JobModelsRefused
from comfypin.models.gc import BlobUse
from comfypin.models.job_models import JobModels
from comfypin.queue.job_events import JobEvents
from comfypin.server.errors import RequestInvalid
from comfypin.server.model_downloads import ModelDownloads
from comfypin.server.request_bodies import parse_json_body
from comfypin.server.responses import JsonResponse, failure_response
from comfypin.server.server_state import Site

MODEL_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ModelWish"}}},
    }
}
_UNKNOWN = "There is no such download; GET /models lists those that are known."


def model_routes(server_site: Site, events: JobEvents) -> APIRouter:
    """Return the routes below /models: 403 if the operator allows no host, 503 before the engine is ready.

    Followers of all jobs hear how downloads stand.
    """
    routes = APIRouter(tags=["models"])
    downloads = ModelDownloads(tell=lambda download_id, stands: events.publish("model", download_id, stands))

    def require_models() -> JobModels:
        service = server_site.require_service()
        if service.models is None:
            raise JobModelsRefused(release=server_site.release.name)
        return service.models

    @routes.post("/models", summary="Bring a model", status_code=202, openapi_extra=MODEL_BODY)
    async def bring(http_request: Request) -> Response:
        models = require_models()
        document = await asyncio.to_thread(parse_json_body, await http_request.body())
        try:
            wish = parse_model_wish(document)
        except JobInvalid as exc:
            # Nobody sent a job.
            raise RequestInvalid(reason="; ".join(exc.findings)) from exc
        return JsonResponse(downloads.begin(wish, models), status_code=202)

    @routes.get("/models", summary="Downloads of models, and the models that were brought, with their last use")
    async def list_models() -> Response:
        models = require_models()
        stored = await asyncio.to_thread(models.space.list_models)
        return JsonResponse({"downloads": downloads.list_all(), "models": [_stored_to_json(model) for model in stored]})

    @routes.get("/models/{download_id}", summary="How a download stands")
    async def show(download_id: str) -> Response:
        download = downloads.find(download_id)
        return JsonResponse(download) if download is not None else failure_response(404, _UNKNOWN)

    @routes.delete("/models/{download_id}", summary="Stop a download; what has arrived stays for the next one")
    async def cancel(download_id: str) -> Response:
        download = downloads.cancel(download_id)
        return JsonResponse(download) if download is not None else failure_response(404, _UNKNOWN)

    return routes


def _stored_to_json(model: BlobUse) -> JsonValue:
    paths: list[JsonValue] = [path.removeprefix("$MODELS_DIR/") for path in model.targets]
    return {"sha256": model.digest.hex, "size_bytes": model.size_bytes, "paths": paths, "used_at": model.used_at}

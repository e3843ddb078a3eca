"""The routes that show what webhooks have not been told, and try it again."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from comfypin.digest import JsonValue
from comfypin.queue.interface import ServedQueue
from comfypin.queue.status_bodies import shown_time
from comfypin.queue.webhook_records import WebhookFailure
from comfypin.server.responses import JsonResponse

_Limit = Annotated[int, Query(ge=1, le=200)]
_After = Annotated[int | None, Query(ge=0, le=1 << 62, description="The `next` of the answer before.")]
_Failed = Annotated[bool, Query(description="Only what failed.")]
_HIGHEST_NUMBER = 1 << 62


def webhook_routes(queue: ServedQueue) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["webhooks"])

    @routes.get("/webhooks", summary="What webhooks could not be told, newest first, and what waits")
    async def webhooks(*, failed: _Failed = False, after: _After = None, limit: _Limit = 50) -> Response:
        failures = await queue.webhooks.list_failures(before=after, limit=limit + 1)
        answer: dict[str, JsonValue] = {
            "failed": [_failure_to_json(failure) for failure in failures[:limit]],
            "next": failures[limit - 1].number if len(failures) > limit else None,
        }
        if not failed:
            answer["waiting"] = [
                {"job_id": job_id, "host": host, "events": count}
                for job_id, host, count in await queue.webhooks.list_waiting(limit=limit)
            ]
        return JsonResponse(answer)

    @routes.post("/webhooks/{number}/retry", summary="Post once more what failed")
    async def retry(number: int) -> Response:
        problem = await queue.webhooks.retry(min(number, _HIGHEST_NUMBER), queue.read_status)
        return JsonResponse({"id": number, "delivered": problem is None, "reason": problem})

    return routes


def _failure_to_json(failure: WebhookFailure) -> dict[str, JsonValue]:
    """Return a failure without its address and body, which may hold secrets."""
    return {
        "id": failure.number,
        "job_id": failure.job_id,
        "kind": failure.kind,
        "host": failure.host,
        "events": failure.events,
        "reason": failure.reason,
        "failed_at": shown_time(failure.failed_at),
        "can_retry": failure.address is not None,
    }

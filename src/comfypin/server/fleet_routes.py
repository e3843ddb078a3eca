"""The workers of a fleet, and what waits for them, as `comfypin fleet status` shows them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter
from starlette.responses import Response

from comfypin.digest import JsonValue
from comfypin.server.responses import JsonResponse, failure_response

ReadFleet = Callable[[], Awaitable[Mapping[str, JsonValue]]]
"""Asks the queue of a fleet for its workers. Raises `JobsNotStored`."""

# Workers write what they do every ten seconds; a hundred open pages should not each ask the queue.
_READ_AGAIN_S = 2.0


class FleetReader:
    """Asks a fleet's queue once for all who want to know at about the same time."""

    def __init__(self, read_fleet: ReadFleet, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._read_fleet = read_fleet
        self._clock = clock
        self._reading = asyncio.Lock()
        self._known: Mapping[str, JsonValue] | None = None
        self._read_at = 0.0

    async def read(self) -> Mapping[str, JsonValue]:
        """Return the fleet as it was at most two seconds ago. Raises `JobsNotStored`."""
        async with self._reading:
            if self._known is None or self._clock() - self._read_at >= _READ_AGAIN_S:
                self._known = await self._read_fleet()
                self._read_at = self._clock()
            return self._known


def fleet_routes(reader: FleetReader | None) -> APIRouter:
    """Return the route; without a reader the server runs its jobs itself, and has no fleet to show."""
    routes = APIRouter(tags=["server"])

    @routes.get("/fleet", summary="The workers of a fleet, what each has warm and runs, and what waits for them")
    async def fleet() -> Response:
        if reader is None:
            return failure_response(404, "This server runs its jobs itself; only one with --queue has a fleet.")
        return JsonResponse(await reader.read())

    return routes

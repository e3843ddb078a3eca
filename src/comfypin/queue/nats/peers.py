"""Which servers of a fleet keep bodies: each writes its address where workers cannot, who could name any host."""

import contextlib
import hashlib
from typing import TYPE_CHECKING

from nats.errors import Error

from comfypin.queue.nats.pauses import pause
from comfypin.queue.nats.server_depot import ServerBodies

if TYPE_CHECKING:
    from comfypin.queue.nats.fleet import Fleet

_TOLD_EVERY_S = 20.0
# What a server kept is asked for while it is away, and then fails with its name; for good only a day later.
_KEPT_S = 86_400
_SERVER = "server."


class Peers:
    """Tells the other servers of this one, and knows them."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet
        self._known: frozenset[str] = frozenset()
        self._depot = fleet.bodies.depot

    async def run(self) -> None:
        """Tell and ask, for ever; nothing if this server keeps no bodies."""
        depot = self._depot
        if not isinstance(depot, ServerBodies):
            return
        depot.knows_server = lambda server: server in self._known
        while True:
            with contextlib.suppress(Error, TimeoutError, OSError):
                # A key of the bucket takes no slashes and colons, so the address is hashed.
                key = _SERVER + hashlib.sha256(depot.own_url.encode()).hexdigest()[:32]
                await self._fleet.control.put(key, depot.own_url.encode(), kept_s=_KEPT_S)
                self._known = await self._read()
            await pause(_TOLD_EVERY_S)

    async def _read(self) -> frozenset[str]:
        server_urls = set()
        for key in await self._fleet.control.keys():
            if key.startswith(_SERVER) and (value := await self._fleet.control.get(key)) is not None:
                server_urls.add(value.data.decode())
        return frozenset(server_urls)

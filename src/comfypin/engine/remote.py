"""An engine that already runs, by its URL: not ours to start, to stop or to look into."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import aiohttp

from comfypin.engine.client import HttpEngine
from comfypin.engine.errors import EngineCrashed, EngineUnreachable
from comfypin.engine.host import Address
from comfypin.engine.http_transport import Patience, base_url
from comfypin.errors import EngineError

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class RemoteHost:
    """Implements `EngineHost` for an address that somebody else looks after."""

    def __init__(self, address: Address) -> None:
        self._address = address

    async def address(self) -> Address:
        """Always the same."""
        return self._address

    async def died(self, address: Address) -> EngineCrashed:
        """Never: from here a dead engine cannot be told from one that cannot be reached."""
        never: asyncio.Future[EngineCrashed] = asyncio.get_running_loop().create_future()
        return await never

    def log_tail(self) -> tuple[str, ...]:
        """Its log is elsewhere."""
        return ()

    async def explain(self, address: Address, failure: EngineUnreachable) -> EngineError:
        """There is nothing to add."""
        return failure


@contextlib.asynccontextmanager
async def open_remote(
    url: str, *, headers: Mapping[str, str] | None = None, patience: Patience | None = None
) -> AsyncIterator[HttpEngine]:
    """The ComfyUI at a URL (a user and password in it, or `headers`, go with every request; neither is ever shown).

    Raises `EngineUrlInvalid`; an engine that is not there is noticed by the first request (`EngineUnreachable`).
    """
    address = Address(url=base_url(url))
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers=headers, trust_env=address.url.host not in _LOOPBACK
    ) as session:
        engine = HttpEngine(RemoteHost(address), session, patience)
        try:
            yield engine
        finally:
            await engine.close()

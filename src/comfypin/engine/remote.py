"""Opens an engine that already runs, by its URL: not ours to start, stop or look into."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import aiohttp

from comfypin.digest import JsonValue
from comfypin.engine.client import HttpEngine
from comfypin.engine.errors import EngineAnswerInvalid, EngineCrashed, EngineUnreachable
from comfypin.engine.host import EngineAddress
from comfypin.engine.http_transport import EngineTimeouts, EngineTransport, parse_engine_url
from comfypin.errors import EngineError

# A proxy from the environment would be asked for our own machine.
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class RemoteHost:
    """Knows an address that somebody else looks after; implements `EngineHost`."""

    def __init__(self, address: EngineAddress) -> None:
        self._address = address

    async def address(self) -> EngineAddress:
        """Return the same address always."""
        return self._address

    async def wait_for_crash(self, address: EngineAddress) -> EngineCrashed:
        """Wait for ever: from here a dead engine cannot be told from one that cannot be reached."""
        never: asyncio.Future[EngineCrashed] = asyncio.get_running_loop().create_future()
        return await never

    def log_tail(self) -> tuple[str, ...]:
        """Return nothing, because its log is elsewhere."""
        return ()

    async def explain_failure(self, address: EngineAddress, failure: EngineUnreachable) -> EngineError:
        """Return the failure, with nothing to add."""
        return failure


@contextlib.asynccontextmanager
async def open_remote(
    url: str, *, headers: Mapping[str, str] | None = None, timeouts: EngineTimeouts | None = None
) -> AsyncIterator[HttpEngine]:
    """Open the ComfyUI at a URL (its user and password, or `headers`, go with every request and are never shown).

    Raises `EngineUrlInvalid`; if no engine answers, the first request notices it (`EngineUnreachable`).
    """
    address = EngineAddress(url=parse_engine_url(url))
    async with aiohttp.ClientSession(
        # No limit of connections: downloads must not hold up the polls.
        connector=aiohttp.TCPConnector(limit=0),
        headers=headers,
        trust_env=address.url.host not in _LOOPBACK,
    ) as session:
        engine = HttpEngine(RemoteHost(address), session, timeouts)
        try:
            yield engine
        finally:
            await engine.close()


async def read_system(url: str, *, timeouts: EngineTimeouts) -> Mapping[str, JsonValue]:
    """Return what the ComfyUI at a URL tells of its system: its version, Python, torch, command line.

    Raises `EngineUrlInvalid`, `EngineUnreachable`, `EngineAnswerInvalid`.
    """
    address = EngineAddress(url=parse_engine_url(url))
    async with aiohttp.ClientSession(trust_env=address.url.host not in _LOOPBACK) as session:
        response = await EngineTransport(address.url, session, timeouts).get_json("/system_stats")
    system = response.body.get("system") if isinstance(response.body, dict) else None
    if response.status != 200 or not isinstance(system, dict):
        raise EngineAnswerInvalid(request="GET /system_stats", status=response.status, _body=response.text[:2000])
    return system

"""Connects to NATS: its addresses, the login, TLS; what happens to the connection is logged, never printed."""

import asyncio
import logging
import os
import re
import ssl
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from comfypin.queue.nats.errors import QueueAddressInvalid, QueueLoginRefused, QueueUnfit, QueueUnreachable
from comfypin.settings.fleet import FleetSettings

if TYPE_CHECKING:
    from nats.aio.client import Client

log = logging.getLogger(__name__)

_ADDRESS = re.compile(r"(?:nats|tls)://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?/?")
_OLDEST_SERVER = (2, 11)  # older ones do not know `sync_interval: always`: a power cut would lose two minutes of jobs
# Before the next server of the address is tried.
_CONNECT_WITHIN_S = 5
_RECONNECT_EVERY_S = 0.5
# Of an hour without NATS a log needs no 7,200 lines.
_SAID_AGAIN_S = 60.0
# Who starts together with NATS waits for it; who has a wrong address hears so.
_FIRST_WITHIN_S = 15.0
# A network that swallows packets is noticed within 12 s, while a request is still tried; TCP alone would take minutes.
_PING_EVERY_S = 4
_MOST_PINGS_LOST = 2


def parse_queue_address(address_text: str) -> tuple[str, ...]:
    """Return the servers of an address such as `nats://a:4222,nats://b:4222`. Raises `QueueAddressInvalid`."""
    servers = tuple(part.strip() for part in address_text.split(",") if part.strip())
    if not servers or not all(_ADDRESS.fullmatch(server) for server in servers):
        raise QueueAddressInvalid(_address=address_text)
    return servers


@asynccontextmanager
async def open_connection(
    servers: tuple[str, ...], settings: FleetSettings, *, client_name: str
) -> "AsyncIterator[Client]":
    """Yield a connection that comes back by itself whenever it is lost.

    Raises `QueueUnreachable`, `QueueLoginRefused`, `QueueUnfit`."""
    from nats.aio.client import Client

    shown_servers = ", ".join(servers)
    login = _login(settings)
    client, watch = Client(), _Watch(has_login=bool(login))
    connecting = client.connect(
        list(servers),
        name=client_name,
        connect_timeout=_CONNECT_WITHIN_S,
        reconnect_time_wait=_RECONNECT_EVERY_S,  # type: ignore[arg-type]
        max_reconnect_attempts=-1,
        ping_interval=_PING_EVERY_S,
        max_outstanding_pings=_MOST_PINGS_LOST,
        # A server refuses a connection whose first message it waits for: jobs may be large.
        pending_size=64 << 20,
        error_cb=watch.note_error,
        disconnected_cb=watch.note_lost,
        reconnected_cb=watch.note_back,
        **login,
        **_tls(servers, settings, shown_servers),
    )
    try:
        await watch.wait_for_first(connecting, shown_servers)
        _require_version(client.connected_server_version, shown_servers)
        yield client
    finally:
        watch.is_open = False
        # It writes what is left also into a connection that is lost, and fails then: nobody waits for that any more.
        with suppress(OSError):
            await client.close()


class _Watch:
    """What happens to one connection: logged while it is open, and told if it cannot be opened at all."""

    def __init__(self, *, has_login: bool) -> None:
        self.is_open = False
        self._has_login = has_login
        self._logged: tuple[str, float] | None = None
        self._failure: Exception | None = None
        self._refused = asyncio.Event()

    async def wait_for_first(self, connecting: Coroutine[None, None, None], shown: str) -> None:
        """Wait until it is connected for the first time. Raises `QueueUnreachable`, `QueueLoginRefused`.

        By itself nats-py tries for ever, also with a login that is refused, and nobody would hear why.
        """
        first = asyncio.ensure_future(connecting)
        refused = asyncio.ensure_future(self._refused.wait())
        try:
            await asyncio.wait([first, refused], timeout=_FIRST_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
            failure = self._failure or TimeoutError("no answer")
            if first.done() and not first.cancelled():
                failure = first.exception() or failure  # type: ignore[assignment]
                self.is_open = first.exception() is None
        finally:
            for task in (first, refused):
                task.cancel()
            await asyncio.gather(first, refused, return_exceptions=True)
        if self._refused.is_set():
            reason = "it does not know this one" if self._has_login else "none is set"
            raise QueueLoginRefused(servers=shown, reason=reason) from failure
        if not self.is_open:
            raise QueueUnreachable(servers=shown, reason=_reason_of(failure)) from failure

    async def note_error(self, error: Exception) -> None:
        """Hear of a failure."""
        if self.is_open:
            # By itself nats-py prints a traceback for each try, of which there are two a second.
            reason, now_s = _reason_of(error), time.monotonic()
            if self._logged is None or self._logged[0] != reason or now_s - self._logged[1] >= _SAID_AGAIN_S:
                self._logged = (reason, now_s)
                log.warning("queue", extra={"action": "queue_error", "reason": reason})
            return
        self._failure = error
        if "authorization" in str(error).lower():
            self._refused.set()

    async def note_lost(self) -> None:
        """Hear that the connection is gone."""
        if self.is_open:
            log.warning("queue lost", extra={"action": "queue_lost"})

    async def note_back(self) -> None:
        """Hear that the connection is there again."""
        self._logged = None
        log.info("queue is back", extra={"action": "queue_back"})


def _login(settings: FleetSettings) -> dict[str, Any]:
    login: dict[str, Any] = {}
    if settings.token is not None:
        login["token"] = settings.token
    if settings.user is not None:
        login.update(user=settings.user, password=settings.password or "")
    if settings.credentials is not None:
        login["user_credentials"] = str(settings.credentials)
    elif settings.credentials_text is not None:
        from nats.aio.client import RawCredentials

        login["user_credentials"] = RawCredentials(settings.credentials_text)
    if settings.nkey is not None:
        login["nkeys_seed"] = str(settings.nkey)
    elif settings.nkey_text is not None:
        login["nkeys_seed_str"] = settings.nkey_text.strip()
    return login


def _tls(servers: tuple[str, ...], settings: FleetSettings, shown_servers: str) -> dict[str, Any]:
    """Return TLS settings if an address or a file asks for it. Raises `QueueUnfit` if a file cannot be used."""
    has_files = settings.ca is not None or settings.ca_text is not None or settings.certificate is not None
    if not has_files and not any(server_address.startswith("tls:") for server_address in servers):
        return {}
    try:
        ca_text = settings.ca_text if settings.ca is None else None
        context = ssl.create_default_context(cafile=None if settings.ca is None else str(settings.ca), cadata=ca_text)
        if settings.certificate is not None:
            context.load_cert_chain(str(settings.certificate), settings.certificate_key)
    except (OSError, ssl.SSLError) as exc:
        reason = f"its certificates (COMFYPIN_NATS_CA, COMFYPIN_NATS_CERT) cannot be read: {exc}"
        raise QueueUnfit(servers=shown_servers, reason=reason) from exc
    return {"tls": context}


def _require_version(version: Any, shown_servers: str) -> None:
    server_version = (version.major, version.minor)
    if server_version < _OLDEST_SERVER:
        reason = f"it is NATS {version.major}.{version.minor}, and 2.11 or newer is needed, which can write safely"
        raise QueueUnfit(servers=shown_servers, reason=reason)


def _reason_of(error: Exception) -> str:
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)  # asyncio's own words name the address once more
    reason = getattr(error, "strerror", None) or str(error).removeprefix("nats: ")
    return reason or type(error).__name__

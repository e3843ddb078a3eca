"""Limits a server's connections, in number and slowness: half requests keep nobody else waiting.

uvicorn has no time limit for a request's head or body and none for slow readers, and its limit of connections answers
only whole requests. Its HTTP/1.1 protocol is a class that a server may replace, so this is that class with a watch: one
sweep a second looks at all connections. What is over the limit takes the place of one that has not sent a whole
head; if there is none, it is told 503, except for `/ping`, which a load balancer must always be able to ask.
"""

import asyncio
import logging
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from comfypin.server.auth import OPEN_PATHS
from comfypin.server.responses import failure_response

log = logging.getLogger(__name__)

# A page holds two, a client one; more than this at once is an attack or a mistake.
_MOST_CONNECTIONS = 1000
_SPARE = 32  # connections over the limit, which `/ping` needs: with them come only requests of a moment
# A load balancer's `/ping` is one packet.
_SPARE_HEAD_S = 2.0
# A flood of connections would fill the log.
_LOG_EVERY_S = 60.0
# A head that is under way may not have been read yet: among clients that are never idle (half bodies), those that have
# just come would be the only idle ones, and each would be dropped for the next.
_JUST_COME_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Limits for connections: how many, in all and from one address, and how slow they may be.

    A head must be whole after `head_s`; a body, and the reading of an answer, after `body_s` and a second more for each
    `slowest_bytes_s` bytes.
    """

    total: int
    by_address: int
    head_s: float = 10.0
    body_s: float = 30.0
    slowest_bytes_s: int = 16_384

    @classmethod
    def for_total(cls, total_connections: int | None) -> "ConnectionLimits":
        """Return the limits for so many connections; by default a third of the file descriptors, 1000 at most.

        An output that is sent has its file open beside its socket, so half of them would be all of them.
        """
        soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # 1 << 20 stands for no limit.
        most_connections = max(8, (soft_limit if soft_limit != resource.RLIM_INFINITY else 1 << 20) // 3)
        total_connections = min(most_connections, total_connections or _MOST_CONNECTIONS)
        return cls(total=total_connections, by_address=max(1, total_connections // 2))


class OnceAMinuteLog(logging.Filter):
    """Logs what clients do to a server once a minute, with how often it happened: the log is not theirs to fill."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[str] = Counter()
        self._logged_at_s: dict[str, float] = {}

    def log_event(self, action: str, message: str) -> None:
        """Log it, if it was not logged within the last minute."""
        if (count := self._count_if_due(action)) is not None:
            log.warning(message, extra={"action": action, "count": count})

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a warning of another's logger pass once a minute: uvicorn warns of every malformed request."""
        if record.levelno != logging.WARNING:
            return True
        return self._count_if_due(str(record.msg)) is not None

    def accept_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Note a connection that the kernel would not give, of which asyncio logs a traceback each time."""
        if "socket.accept()" in str(context.get("message")):
            self.log_event("accept_failed", f"no connections can be accepted now: {context.get('exception')}")
        else:
            loop.default_exception_handler(context)

    def _count_if_due(self, event_key: str) -> int | None:
        """Return how often this happened since it was logged, or None if that is less than a minute ago."""
        self._counts[event_key] += 1
        now_s = time.monotonic()
        if now_s - self._logged_at_s.get(event_key, float("-inf")) < _LOG_EVERY_S:
            return None
        self._logged_at_s[event_key] = now_s
        return self._counts.pop(event_key)


@dataclass(slots=True, eq=False)
class _Transfer:
    """Since when a client has owed something, and how many bytes have come or gone of it."""

    since_s: float
    moved_bytes: int = 0

    def is_too_slow(self, now_s: float, limits: ConnectionLimits) -> bool:
        return now_s - self.since_s > limits.body_s + self.moved_bytes / limits.slowest_bytes_s


@dataclass(slots=True)
class Connections:
    """All connections of a server."""

    limits: ConnectionLimits
    clock: Callable[[], float] = time.monotonic
    log_once: OnceAMinuteLog = field(default_factory=OnceAMinuteLog)
    _open: dict["LimitedProtocol", None] = field(default_factory=dict)
    _by_address: Counter[str] = field(default_factory=Counter)

    def admit_connection(self, protocol: "LimitedProtocol") -> bool:
        """Take a connection; returns whether it may ask anything, or only for `/ping`."""
        address = protocol.address
        if is_crowded := self._is_crowded(address):
            self.log_once.log_event("connections_full", "too many connections; the oldest that sent no whole head went")
            # A client that is served sends its whole head at once.
            while is_crowded and self._drop_idle(address if self._has_most(address) else None):
                is_crowded = self._is_crowded(address)
        if len(self._open) >= self.limits.total + _SPARE:
            self._drop_idle(None, but_new=False)
        if len(self._open) >= self.limits.total + 2 * _SPARE:
            protocol.abort()
            return False
        self._open[protocol] = None
        self._by_address[address] += 1
        return not is_crowded

    def __len__(self) -> int:
        return len(self._open)

    def remove_connection(self, protocol: "LimitedProtocol") -> None:
        """Forget a connection that is closed."""
        if protocol in self._open:
            del self._open[protocol]
            self._by_address[protocol.address] -= 1
            if not self._by_address[protocol.address]:
                del self._by_address[protocol.address]

    def end_slow_connections(self) -> None:
        """End the connections that are too slow."""
        now_s = self.clock()
        for protocol in list(self._open):
            if (slow_reason := protocol.slow_reason(now_s)) is not None:
                self.log_once.log_event("connection_slow", f"ended connections that were too slow: {slow_reason}")
                protocol.abort()

    async def sweep_forever(self) -> None:
        """Sweep once a second until cancelled."""
        while True:
            await asyncio.sleep(1)
            self.end_slow_connections()

    def _is_crowded(self, address: str) -> bool:
        return self._has_most(address) or len(self._open) >= self.limits.total

    def _has_most(self, address: str) -> bool:
        return self._by_address[address] >= self.limits.by_address

    def _drop_idle(self, address: str | None, *, but_new: bool = True) -> bool:
        """Drop the oldest that has not sent a whole head, by default none that has just come; returns if one was."""
        just_now_s = self.clock() - _JUST_COME_S
        for protocol in self._open:
            is_new = protocol.silent_since_s is not None and protocol.silent_since_s > just_now_s
            if protocol.is_idle and address in (None, protocol.address) and not (but_new and is_new):
                protocol.abort()
                return True
        return False


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with a watch on how slow its client is."""

    def __init__(self, *, connections: Connections, **uvicorn_arguments: Any) -> None:
        super().__init__(**uvicorn_arguments)
        self._connections = connections
        self._limits = connections.limits
        self._admitted = True
        self._clock = connections.clock
        self._awaited_since_s = self._clock()
        self.silent_since_s: float | None = self._awaited_since_s
        """Since when it has not sent a byte; None once it has."""
        self._body: _Transfer | None = None
        self._unread: _Transfer | None = None
        self._unread_bytes = 0
        self.address = ""

    @property
    def is_idle(self) -> bool:
        """Return whether no complete head has come yet, or the last request is answered completely."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and self.transport.get_write_buffer_size() == 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self._admitted = self._connections.admit_connection(self)
        if not self._admitted:
            self.app = _CrowdedApp(self.app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it no more."""
        self._connections.remove_connection(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; note what the client owes from here on."""
        self.silent_since_s = None
        if self._body is not None:
            self._body.moved_bytes += len(data)
        elif self.is_idle and self.timeout_keep_alive_task is not None:
            self._awaited_since_s = self._clock()  # the first bytes of the next request
        super().data_received(data)

    def handle_events(self) -> None:
        """Read what has come; note whether a body is still to come."""
        super().handle_events()
        if self.conn.their_state is h11.SEND_BODY:
            self._body = self._body or _Transfer(self._clock())
        else:
            self._body = None

    def slow_reason(self, now_s: float) -> str | None:
        """Return what the client is too slow with, or None."""
        unread_bytes = self.transport.get_write_buffer_size()
        if unread_bytes == 0:
            self._unread = None
        elif self._unread is None:
            self._unread = _Transfer(now_s)
        else:
            self._unread.moved_bytes += max(0, self._unread_bytes - unread_bytes)
        self._unread_bytes = unread_bytes
        if self._unread is not None and self._unread.is_too_slow(now_s, self._limits):
            return "reading an answer"
        if self._body is not None and self._body.is_too_slow(now_s, self._limits):
            return "sending a body"
        head_s = self._limits.head_s if self._admitted else _SPARE_HEAD_S
        if self.is_idle and self.timeout_keep_alive_task is None and now_s - self._awaited_since_s > head_s:
            return "sending a head"
        return None

    def abort(self) -> None:
        """End the connection now, whatever is still to be sent. It is counted no more from here on."""
        self._connections.remove_connection(self)
        self.transport.abort()


class _CrowdedApp:
    """Answers a connection over the limit: `/ping` as ever, 503 for all else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            refused = failure_response(
                503,
                "The server has as many connections as it takes; try again in 5 s.",
                headers={"Retry-After": "5", "Connection": "close"},
            )
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)

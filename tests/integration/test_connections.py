"""How slow a client may be, and how many there may be, on a server in this process."""

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from comfypin.server.connections import ConnectionLimits, Connections, LimitedProtocol, OnceAMinuteLog

PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
OTHER = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
HALF_BODY = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345"


@dataclass
class App:
    """Reads the body, waits if it is told to, and answers with so many bytes."""

    answer: bytes = b"ok"
    hold: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive()).get("more_body"):
            pass
        if scope["path"] == "/hold":
            await self.hold.wait()
        if message["type"] == "http.disconnect":
            return
        length = str(len(self.answer)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": self.answer})


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def status(self, sent: bytes) -> int | None:
        """The status of an answer, or None where the connection ends without one."""
        try:
            self.writer.write(sent)
            line = await asyncio.wait_for(self.reader.readline(), 5)
        except ConnectionError:
            return None
        return int(line.split()[1]) if line else None

    async def is_ended(self) -> bool:
        try:
            return await asyncio.wait_for(self.reader.read(), 0.3) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


@dataclass
class Limited:
    """A server with few and impatient connections; a test sweeps when it wants."""

    app: App
    connections: Connections
    port: int
    stack: contextlib.AsyncExitStack
    now_s: list[float]

    def sweep_after(self, seconds: float) -> None:
        self.now_s[0] += seconds
        self.connections.end_slow_connections()

    async def connect(self, sent: bytes = b"") -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2048)
        self.stack.callback(writer.close)
        writer.write(sent)
        await writer.drain()
        await asyncio.sleep(0.02)
        return Client(reader, writer)


@contextlib.asynccontextmanager
async def limited(answer: bytes = b"ok", **limits: Any) -> AsyncIterator[Limited]:
    app = App(answer)
    now_s = [1000.0]
    given = ConnectionLimits(**{"total": 4, "by_address": 4, "head_s": 10.0, "body_s": 10.0, **limits})
    connections = Connections(given, clock=lambda: now_s[0])
    protocol: Any = functools.partial(LimitedProtocol, connections=connections)
    server = uvicorn.Server(uvicorn.Config(app, port=0, http=protocol, ws="none", lifespan="off", log_config=None))
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment, method-assign]
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    async with contextlib.AsyncExitStack() as stack:
        yield Limited(app, connections, server.servers[0].sockets[0].getsockname()[1], stack, now_s)
        app.hold.set()
    server.should_exit = True
    await running


async def test_a_client_that_keeps_to_the_limits_is_served_again_and_again() -> None:
    async with limited() as server:
        client = await server.connect()
        for _ in range(3):
            assert await client.status(OTHER) == 200
            while await client.reader.readline() != b"\r\n":
                pass
            assert await client.reader.readexactly(2) == b"ok"
            server.sweep_after(3)


@pytest.mark.parametrize("sent", [b"", b"GET /x HTTP/1.1\r\n", HALF_BODY], ids=["nothing", "half head", "half body"])
async def test_half_a_request_is_ended(sent: bytes) -> None:
    async with limited() as server:
        client = await server.connect(sent)
        server.sweep_after(9)
        assert not await client.is_ended()
        server.sweep_after(2)
        assert await client.is_ended()


async def test_bytes_that_come_fast_enough_give_a_body_more_time() -> None:
    async with limited(slowest_bytes_s=1) as server:
        client = await server.connect(HALF_BODY[:-4])
        client.writer.write(b"234")
        await asyncio.sleep(0.1)
        server.sweep_after(12)
        assert await client.status(b"567890") == 200


async def test_an_answer_that_nobody_reads_is_ended() -> None:
    async with limited(answer=b"x" * 30_000_000) as server:
        client = await server.connect(OTHER)
        await asyncio.sleep(0.3)
        server.sweep_after(0)
        await asyncio.sleep(0.3)
        server.sweep_after(1000)
        server.sweep_after(1000)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.reader.readexactly(30_000_000)


async def test_a_job_that_is_waited_for_is_not_a_slow_client() -> None:
    async with limited() as server:
        client = await server.connect(OTHER.replace(b"/x", b"/hold"))
        server.sweep_after(100)
        server.app.hold.set()
        assert await client.status(b"") == 200


async def test_a_new_connection_takes_the_place_of_the_oldest_that_sent_no_head() -> None:
    async with limited() as server:
        silent = [await server.connect() for _ in range(4)]
        server.sweep_after(1)
        assert await (await server.connect()).status(OTHER) == 200
        assert [await client.is_ended() for client in silent] == [True, False, False, False]


async def test_a_connection_that_has_just_come_is_not_taken_for_one_that_sends_nothing() -> None:
    async with limited(by_address=2, total=20) as server:
        for _ in range(2):
            await server.connect(HALF_BODY)
        pinging = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        for client in pinging:  # all are there before the server looks
            client.sendall(PING)
        statuses = [await Client(*await asyncio.open_connection(sock=client)).status(b"") for client in pinging]
        assert statuses == [200] * 5


@pytest.mark.parametrize("limits", [{"total": 3}, {"by_address": 3}])
async def test_over_the_limit_only_ping_is_answered(limits: dict[str, int]) -> None:
    async with limited(**limits) as server:
        for _ in range(3):
            await server.connect(OTHER.replace(b"/x", b"/hold"))
        assert await (await server.connect()).status(PING) == 200
        assert await (await server.connect()).status(OTHER) == 503
        server.app.hold.set()
        await asyncio.sleep(0.05)
        assert await (await server.connect()).status(OTHER) == 200


async def test_no_number_of_connections_gets_past_the_reserve() -> None:
    async with limited() as server:
        for _ in range(4):
            await server.connect(OTHER.replace(b"/x", b"/hold"))
        for _ in range(100):
            await server.connect()
        assert len(server.connections) <= 4 + 32
        assert await (await server.connect()).status(PING) == 200


def test_what_clients_do_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    once = OnceAMinuteLog()
    record = logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, "Invalid HTTP request received.", (), None)
    assert [once.filter(record) for _ in range(3)] == [True, False, False]
    for _ in range(3):
        once.log_event("connections_full", "too many connections")
    assert len(caplog.records) == 1


def test_the_limit_is_well_below_the_descriptors() -> None:
    assert ConnectionLimits.for_total(1_000_000).total < 1_000_000
    assert ConnectionLimits.for_total(10) == ConnectionLimits(total=10, by_address=5)

"""An HTTP proxy of ours between a client and a real server, that does to a request what networks and servers do."""

import http.client
import itertools
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from tests.support.background import QuietHandler, QuietServer, serving

Fault = Literal[
    "drop",  # the connection ends before the server hears of the request
    "drop-answer",  # the server does it, and the client never learns
    "delay",
    "truncate",  # the server gets half of the body
    "truncate-answer",
    "corrupt",  # the server gets other bytes of the same length
    "lie",  # the answer names other checksums than the server's
    "500",
    "503",
    "429",
]
FAULTS: tuple[Fault, ...] = (
    "drop", "drop-answer", "delay", "truncate", "truncate-answer", "corrupt", "lie", "500", "503", "429"
)  # fmt: skip
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Seen:
    """A request as the proxy saw it. `number` counts from 0."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class FalseAnswer:
    """An answer in place of the server's. `is_done`: the server does what it was asked to all the same.

    Of the server's own answer `keep` are the headers that the false one has, too.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    is_done: bool = True


Rule = Callable[[Seen], Fault | FalseAnswer | None]


def no_faults(seen: Seen) -> None:
    return None


def at_random(rate: float, *, seed: int, faults: tuple[Fault, ...] = FAULTS) -> Rule:
    """This share of all requests meets a fault, the same ones in every run with the same order of requests."""
    dice = random.Random(seed)
    lock = threading.Lock()

    def rule(seen: Seen) -> Fault | None:
        with lock:
            return dice.choice(faults) if dice.random() < rate else None

    return rule


def first(count: int, fault: Fault, *, where: Callable[[Seen], bool] = lambda seen: True) -> Rule:
    """The first requests that fit meet this fault, the others none."""
    left = itertools.repeat(fault, count)
    return lambda seen: next(left, None) if where(seen) else None


class FaultProxy:
    """Forwards to `upstream`; what `rule` says of a request happens to it. `seen` lists all requests.

    `base` is a path of its own beneath which it has what the server has.
    """

    def __init__(self, upstream: str, rule: Rule = no_faults, *, base: str = "") -> None:
        self.upstream = upstream
        self.rule = rule
        self.base = base
        self.seen: list[Seen] = []
        self.is_behind_tls = False  # then the addresses that the server gives are those of the TLS before it
        self.lock = threading.Lock()
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.proxy = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def count(self, method: str) -> int:
        return sum(seen.method == method for seen in self.seen)


@contextmanager
def fault_proxy(upstream: str, rule: Rule = no_faults, *, base: str = "") -> Iterator[FaultProxy]:
    proxy = FaultProxy(upstream, rule, base=base)
    with serving(proxy.server):
        yield proxy


class _Server(QuietServer):
    proxy: FaultProxy


class _Handler(QuietHandler):
    server: _Server

    def _handle(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with proxy.lock:
            seen = Seen(len(proxy.seen), self.command, self.path, dict(self.headers.items()), body)
            proxy.seen.append(seen)
            fault = proxy.rule(seen)
        match fault:
            case FalseAnswer():
                self._lie(fault, body)
                return
            case "drop":
                self.close_connection = True
                return
            case "delay":
                time.sleep(0.05)
            case "500" | "503" | "429":
                self._answer(int(fault), {"Content-Type": "text/plain"}, b"")
                return
            case "truncate":
                self._forward_half(body)
                self.close_connection = True
                return
            case "corrupt":
                body = _corrupted(body)
        status, headers, answer = self._forward(body)
        if fault == "drop-answer":
            self.close_connection = True
            return
        if fault == "lie":
            headers, answer = _lies(headers, answer)
        if fault == "truncate-answer":
            self._answer(status, headers, answer, send_bytes=len(answer) // 2)
            self.close_connection = True
            return
        self._answer(status, headers, answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = _handle

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = self._upstream()
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            headers["Content-Length"] = str(len(body))
            connection.request(self.command, self._target(), body=body, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            if self.server.proxy.is_behind_tls and "Location" in kept:
                kept["Location"] = kept["Location"].replace("http://", "https://", 1)
            if self.command == "HEAD" and (length := answer.getheader("Content-Length")):
                kept["Content-Length"] = length
            return answer.status, kept, data
        finally:
            connection.close()

    def _lie(self, told: FalseAnswer, body: bytes) -> None:
        headers = self._forward(body)[1] if told.is_done else {}
        kept = {name: value for name, value in headers.items() if name.lower() in told.keep}
        self._answer(told.status, {**kept, **told.headers}, told.body)

    def _forward_half(self, body: bytes) -> None:
        connection = self._upstream()
        connection.putrequest(self.command, self._target(), skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        connection.send(body[: len(body) // 2])
        connection.close()

    def _target(self) -> str:
        base = self.server.proxy.base
        return self.path.removeprefix(base) if self.path.startswith(f"{base}/") else f"/nothing-is-here{self.path}"

    def _upstream(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.server.proxy.upstream)
        return http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)

    def _answer(self, status: int, headers: dict[str, str], data: bytes, *, send_bytes: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers and status != 204:
            # A truncated answer of nothing would be a whole one: it promises a byte more than it has.
            self.send_header("Content-Length", str(len(data) + (send_bytes is not None)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if send_bytes is None else data[:send_bytes])


def _corrupted(body: bytes) -> bytes:
    if len(body) < 64:
        return body
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]


def _lies(headers: dict[str, str], answer: bytes) -> tuple[dict[str, str], bytes]:
    told = {
        name: '"00000000000000000000000000000000"' if name.lower() == "etag" else value
        for name, value in headers.items()
    }
    told |= {name: "AAAAAAAAAAAAAAAAAAAAAA==" for name in headers if name.lower() == "content-md5"}
    text = re.sub(rb'("crc32c":\s*")[^"]+"', rb'\1AAAAAA=="', answer)
    return told, re.sub(rb"(<ETag>)[^<]*(</ETag>)", rb"\1&#34;00000000000000000000000000000000-1&#34;\2", text)

"""A file server that errs on purpose: each path is a file, and a script says what happens to each request for it."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as the server saw it; `number` counts the requests for this path from 0."""

    path: str
    number: int
    headers: Mapping[str, str]

    @property
    def range(self) -> tuple[int, int | None] | None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        return (int(match[1]), int(match[2]) if match[2] else None) if match else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is sent: a status, headers, a body, and where the connection is cut or falls silent."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None
    cut_after: int | None = None
    silent_after: int | None = None
    chunked: bool = False
    bytes_per_s: int | None = None


def ranged(data: bytes, request: Request, *, etag: str = '"one"', **more: object) -> Reply:
    """What a good server answers."""
    if request.range is None or request.headers.get("if-range", etag) != etag:
        return Reply(body=data, headers={"ETag": etag}, **more)  # type: ignore[arg-type]
    start, end = request.range
    if start >= len(data):
        return Reply(status=416, headers={"Content-Range": f"bytes */{len(data)}"})
    last = min(len(data) - 1, len(data) - 1 if end is None else end)
    headers = {"Content-Range": f"bytes {start}-{last}/{len(data)}", "ETag": etag, "Accept-Ranges": "bytes"}
    return Reply(status=206, headers=headers, body=data[start : last + 1], **more)  # type: ignore[arg-type]


Script = Callable[[Request], Reply]


class FaultyServer:
    """Runs on loopback; `requests` is what came in, in order."""

    def __init__(self, script: Script) -> None:
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._ending = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self, script)

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def _answer(self, handler: BaseHTTPRequestHandler, script: Script) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            number = sum(request.path == handler.path for request in self.requests)
            request = Request(path=handler.path, number=number, headers=headers)
            self.requests.append(request)
        reply = script(request)
        body = reply.body
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        if reply.chunked:
            handler.send_header("Transfer-Encoding", "chunked")
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        else:
            handler.send_header("Content-Length", str(len(body) if reply.length is None else reply.length))
        handler.end_headers()
        try:
            self._send(handler, reply, body)
        except OSError:
            handler.close_connection = True

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply, body: bytes) -> None:
        stop = min(value for value in (reply.cut_after, reply.silent_after, len(body)) if value is not None)
        step = stop if reply.bytes_per_s is None else max(1, reply.bytes_per_s // 20)
        for start in range(0, stop, max(1, step)):
            handler.wfile.write(body[start : min(stop, start + step)])
            if reply.bytes_per_s is not None and self._ending.wait(0.05):
                break
        handler.wfile.flush()
        if reply.silent_after is not None:
            handler.close_connection = True
            self._ending.wait(60)
        elif stop < len(body) or (reply.length or 0) > len(body):
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        self._ending.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def faulty_server(script: Script) -> Iterator[FaultyServer]:
    """Serve for a block."""
    server = FaultyServer(script)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Wait for something to become true; an AssertionError where it does not."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)

"""A server that draws everything out: it sends what it has to say byte by byte, for ever if it is let."""

import contextlib
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
PAUSE_S = 0.005


def endless_head() -> Iterator[bytes]:
    """A response whose head never ends."""
    yield b"HTTP/1.1 200 OK\r\nX-Long: "
    yield from itertools.repeat(b"x")


def endless_headers() -> Iterator[bytes]:
    """A response with one informational head after the other."""
    yield from itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n")


def endless_body() -> Iterator[bytes]:
    """A response whose body comes byte by byte."""
    yield HEAD
    yield from itertools.repeat(b"x")


def endless_chunks() -> Iterator[bytes]:
    """A response whose body comes in chunks of a byte."""
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield from itertools.repeat(b"1\r\nx\r\n")


def endless_redirect_body() -> Iterator[bytes]:
    """A redirect whose own body never ends."""
    yield b"HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 1000000\r\n\r\n"
    yield from itertools.repeat(b"x")


def endless_refusal() -> Iterator[bytes]:
    """A refusal that never gets to the point."""
    yield b"HTTP/1.1 503 Busy\r\nContent-Length: 1000000\r\n\r\n"
    yield from itertools.repeat(b"x")


def silence() -> Iterator[bytes]:
    """Nothing at all."""
    yield from itertools.repeat(b"")


ENDLESS: dict[str, Callable[[], Iterable[bytes]]] = {
    "head": endless_head,
    "headers": endless_headers,
    "body": endless_body,
    "chunks": endless_chunks,
    "redirect": endless_redirect_body,
    "refusal": endless_refusal,
    "silence": silence,
}


class DripServer:
    """`sent` counts the pieces, `open` the requests that are being answered, `begun` all of them."""

    def __init__(self, answer: Callable[[str], Iterable[bytes]], *, context: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self._context = context
        self.sent = 0
        self.open = 0
        self.begun = 0
        self.changed = threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self.listener.getsockname()[1])
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"

    def wait_for(self, number: int, *, within_s: float = 30.0) -> bool:
        """Wait until so many requests are open."""
        with self.changed:
            return self.changed.wait_for(lambda: self.open == number, within_s)

    def wait_for_requests(self, number: int, *, within_s: float = 30.0) -> bool:
        """Wait until so many requests have come; the first may have been given up by then."""
        with self.changed:
            return self.changed.wait_for(lambda: self.begun >= number, within_s)

    def _count(self, change: int) -> None:
        with self.changed:
            self.open += change
            self.begun += max(change, 0)
            self.changed.notify_all()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connected, _ = self.listener.accept()
                threading.Thread(target=self._drip, args=(connected,), daemon=True).start()

    def _drip(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.closing(plain):
            client = self._context.wrap_socket(plain, server_side=True) if self._context else plain
            request = client.recv(65536)
            self._count(1)
            try:
                client.settimeout(PAUSE_S)
                for piece in self._answer(request.split(b" ")[1].decode()):
                    if piece:
                        client.sendall(piece)
                        self.sent += 1
                    with contextlib.suppress(TimeoutError):
                        if not client.recv(1):
                            break
            finally:
                self._count(-1)
                if client is not plain:
                    client.close()


@contextmanager
def drip_server(
    answer: Callable[[str], Iterable[bytes]], *, context: ssl.SSLContext | None = None
) -> Iterator[DripServer]:
    """A server on loopback until the block ends."""
    server = DripServer(answer, context=context)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        with contextlib.suppress(OSError):
            server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
        thread.join(10)

"""HTTP/1.1 to one server, over connections that stay open and with as few steps as uploads need.

Ours, because a small upload costs the standard library's client more than all else does: its answers go through a
parser of e-mail, and its bodies through memory, where the kernel can send a file by itself.
"""

import contextlib
import re
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from comfypin.storage.body import NOTHING, Body
from comfypin.storage.dial import PATIENCE_S, Dial, limit_time
from comfypin.storage.proxy import PROXY_WANTS_LOGIN, ProxyFailed

HURRY_S = 30.0
_MOST_IDLE = 32
_MOST_HEAD_BYTES = 256 * 1024
_MOST_ANSWER_BYTES = 4 << 20
_MOST_LINES = 1000
_BLOCK_BYTES = 64 * 1024
_HEAD_ENDS = b"\r\n\r\n"
_MSG_MORE = getattr(socket, "MSG_MORE", 0)
_WITH_BODY = {"PUT", "POST"}


class AnswerBroken(ConnectionError):
    """What came is no answer, or not all of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer; its headers by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    data: bytes = field(default=b"", repr=False)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.data.decode(errors="replace")


class Wire:
    """A server's connections. Safe for threads: each request has a connection to itself."""

    def __init__(self, dial: Dial) -> None:
        self.host = urlsplit(dial.endpoint).netloc
        self.is_encrypted = dial.is_encrypted
        self._dial = dial
        self._proxy = dial.proxy
        # Of plain requests a proxy is told where they go; it does not see those within a tunnel.
        self._before_targets = dial.endpoint if dial.proxy is not None and not dial.is_encrypted else ""
        self.patience_s = PATIENCE_S
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: Body = NOTHING) -> Answer:
        """Send a request and have the whole answer, whatever it is. Raises `OSError`."""
        connection, coming = self._asked(method, target, headers, body)
        try:
            answer = Answer(status=coming.status, headers=coming.headers, data=coming.whole())
        except BaseException:
            connection.close()
            raise
        self._done_with(connection, coming)
        return answer

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """Within, the server has seconds for each of its answers, not minutes: nobody waits so long to begin."""
        self.patience_s = HURRY_S
        try:
            yield
        finally:
            self.patience_s = PATIENCE_S

    @contextmanager
    def sent(
        self, method: str, target: str, headers: Mapping[str, str], body: Body = NOTHING
    ) -> Iterator["ComingAnswer"]:
        """Send a request and have the answer's beginning. Its connection is kept if all of it was read.

        `Host` is among the headers, the length is not. Raises `OSError`.
        """
        connection, coming = self._asked(method, target, headers, body)
        try:
            yield coming
        except BaseException:
            connection.close()
            raise
        self._done_with(connection, coming)

    def _asked(
        self, method: str, target: str, headers: Mapping[str, str], body: Body
    ) -> "tuple[_Connection, ComingAnswer]":
        if self._proxy is not None and self._before_targets:
            target = f"{self._before_targets}{target}"
            headers = {**headers, **self._proxy.headers, "Connection": "close"}
        head = _head_of(method, target, headers, body)
        connection = self._connection()
        try:
            connection.send(head, body)
            answer = connection.answer(method)
            if self._proxy is not None and answer.status == PROXY_WANTS_LOGIN:
                raise ProxyFailed.of_status(self._proxy, answer.status)
            return connection, answer
        except BaseException:
            connection.close()
            raise

    def _done_with(self, connection: "_Connection", answer: "ComingAnswer") -> None:
        """Keep the connection if all of the answer was read."""
        # Some proxies answer no second plain request on a connection, and do not say so (tinyproxy 1.11).
        if answer.is_over and answer.keeps_open and not self._before_targets:
            self._keep(connection)
        else:
            connection.close()

    def _connection(self) -> "_Connection":
        """One that was kept and still lives, else a new one."""
        while True:
            with self._lock:
                kept = self._idle.pop() if self._idle else None
            if kept is None:
                kept = _Connection(self._dial())
            elif kept.has_ended():
                kept.close()
                continue
            if kept.patience_s != self.patience_s:
                kept.wait_at_most(self.patience_s)
            return kept

    def _keep(self, connection: "_Connection") -> None:
        with self._lock:
            if len(self._idle) < _MOST_IDLE:
                self._idle.append(connection)
                return
        connection.close()


class _Connection:
    """One connection: a request, its answer, the next request."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.patience_s = PATIENCE_S
        self._came = b""
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)
        # Under TLS the bytes must pass through memory.
        self.descriptor = sock.fileno() if type(sock) is socket.socket else None

    def close(self) -> None:
        """Close it, whatever state it is in."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def wait_at_most(self, seconds: float) -> None:
        """For anything that the server has to do."""
        limit_time(self._socket, seconds)
        self.patience_s = seconds

    def has_ended(self) -> bool:
        """Whether a connection that nobody uses has something to say: that it was closed."""
        return bool(self._poller.poll(0))

    def send(self, head: bytes, body: Body) -> None:
        """Send a request."""
        try:
            # Linux holds the head back for the file that follows; TLS knows no such thing.
            more = _MSG_MORE if body.size_bytes and self.descriptor is not None else 0
            self._socket.sendall(head, more)
            body.go_out(self)
        except BlockingIOError as exc:
            raise _too_late() from exc
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses a request may answer, and close, before it has read all of it.
            if not self._poller.poll(200):
                raise

    def write(self, piece: bytes | memoryview) -> None:
        """Send some bytes of a body."""
        self._socket.sendall(piece)

    def answer(self, method: str) -> "ComingAnswer":
        """The beginning of the answer."""
        for _ in range(_MOST_LINES):
            status, headers, keeps_open = _parsed(self._head())
            if status >= 200:
                return ComingAnswer(self, method, status, headers, keeps_open=keeps_open)
        raise AnswerBroken("hints came, and no answer")

    def _head(self) -> bytes:
        came, self._came = self._came, b""
        while _HEAD_ENDS not in came:
            more = self.receive(_BLOCK_BYTES)
            if not more or len(came) > _MOST_HEAD_BYTES:
                raise AnswerBroken("no answer came")
            came += more
        head, _, self._came = came.partition(_HEAD_ENDS)
        return head

    def receive(self, count: int) -> bytes:
        """Up to so many bytes; none at the end."""
        if self._came:
            came, self._came = self._came[:count], self._came[count:]
            return came
        try:
            return self._socket.recv(count)
        except BlockingIOError as exc:
            raise _too_late() from exc

    def line(self) -> bytes:
        """A line, without its end."""
        came = b""
        while b"\r\n" not in came:
            more = self.receive(_BLOCK_BYTES)
            if not more or len(came) > _MOST_HEAD_BYTES:
                raise AnswerBroken("the answer was cut off")
            came += more
        line, _, rest = came.partition(b"\r\n")
        self._came = rest + self._came
        return line


class ComingAnswer:
    """An answer whose head is there. `is_over` when all of its body was read."""

    def __init__(
        self, connection: _Connection, method: str, status: int, headers: Mapping[str, str], *, keeps_open: bool
    ) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection
        self._chunked = headers.get("transfer-encoding", "").lower().endswith("chunked")
        length = headers.get("content-length", "")
        if not self._chunked and length and not re.fullmatch(r"[0-9]{1,18}", length):
            raise AnswerBroken("the answer's length is no number")
        self._length = int(length) if length and not self._chunked else None
        bodiless = method == "HEAD" or status in {204, 304} or self._length == 0
        self.is_over = bodiless
        # Without a length, the end of the connection is the end of the answer.
        self.keeps_open = keeps_open and (bodiless or self._chunked or self._length is not None)

    def whole(self) -> bytes:
        """All of the body, which is no object's: what stores have to say is short. Raises `AnswerBroken`."""
        if self.is_over:
            return b""
        came, size = [], 0
        for chunk in self.chunks(_BLOCK_BYTES):
            size += len(chunk)
            if size > _MOST_ANSWER_BYTES:
                raise AnswerBroken("the answer does not end")
            came.append(chunk)
        return b"".join(came)

    def chunks(self, most_bytes: int) -> Iterator[bytes]:
        """The body, as it comes. Raises `AnswerBroken` where it is cut off."""
        if self.is_over:
            return
        if self._chunked:
            while length := _chunk_length(self._connection.line()):
                yield from self._exactly(length, most_bytes)
                self._connection.line()
            if all(self._connection.line() for _ in range(_MOST_LINES)):
                raise AnswerBroken("the answer does not end")
        elif self._length is not None:
            yield from self._exactly(self._length, most_bytes)
        else:
            while chunk := self._connection.receive(most_bytes):
                yield chunk
        self.is_over = True

    def _exactly(self, length: int, most_bytes: int) -> Iterator[bytes]:
        while length:
            chunk = self._connection.receive(min(length, most_bytes))
            if not chunk:
                raise AnswerBroken("the answer was cut off")
            length -= len(chunk)
            yield chunk


def _head_of(method: str, target: str, headers: Mapping[str, str], body: Body) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body.size_bytes or method in _WITH_BODY:
        lines.append(f"Content-Length: {body.size_bytes}")
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
        raise ValueError("a header holds a line break")
    return f"{head}\r\n\r\n".encode()


def _parsed(head: bytes) -> tuple[int, dict[str, str], bool]:
    """Status, headers, and whether the server keeps the connection open."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
        raise AnswerBroken("this is no answer of HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise AnswerBroken("a header has no name")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    said = headers.get("connection", "").lower()
    return int(rest[:3]), headers, "close" not in said and (version == "HTTP/1.1" or "keep-alive" in said)


def _chunk_length(line: bytes) -> int:
    length = line.partition(b";")[0].strip()
    if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", length):
        raise AnswerBroken("a chunk has no length")
    return int(length, 16)


def _too_late() -> TimeoutError:
    """The kernel says `EAGAIN` where its time limit is over."""
    return TimeoutError("the server did not answer in time")

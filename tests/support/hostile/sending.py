"""Sends hostile requests over sockets of its own, and says what came of each."""

import http.client
import io
import json
import select
import socket
import time
from dataclasses import dataclass, field

from tests.support.hostile.request import Hostile

_ANSWER_WITHIN_S = 15.0
_WAITS_AFTER_S = 0.5
_SECOND_ANSWER_WITHIN_S = 0.1
_PIECE_BYTES = 1 << 16


@dataclass(frozen=True)
class Answer:
    """What a request got: the outcomes that describe it, its bytes, and after how long."""

    outcomes: frozenset[str]
    data: bytes = field(repr=False)
    seconds: float


@dataclass(frozen=True)
class Sender:
    """Sends to one server. `marks` are what the marks in the requests stand for."""

    port: int
    marks: dict[bytes, bytes]

    def send(self, hostile: Hostile) -> Answer:
        """Send it on a connection of its own, and wait for what comes of it."""
        began_s = time.monotonic()
        data = self._exchange(self._filled(hostile.sends), can_wait="waits" in hostile.right)
        took_s = time.monotonic() - began_s
        return Answer(frozenset({"waits"}) if data is None else _outcomes(data), data or b"", took_s)

    def _filled(self, sends: tuple[bytes, ...]) -> bytes:
        data = b"".join(sends)
        for mark, value in self.marks.items():
            data = data.replace(mark, value)
        if b"@LENGTH@" in data:
            data = data.replace(b"@LENGTH@", b"%d" % len(data.partition(b"\r\n\r\n")[2]))
        return data

    def _exchange(self, data: bytes, *, can_wait: bool) -> bytes | None:
        """Write and read at once, as an answer may come before the end; None if the server only waits."""
        heard = b""
        deadline = time.monotonic() + (_WAITS_AFTER_S if can_wait else _ANSWER_WITHIN_S)
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.setblocking(False)
            unsent = memoryview(data)
            while time.monotonic() < deadline:
                readable, writable, _ = select.select(
                    [connection], [connection] if unsent else [], [], deadline - time.monotonic()
                )
                try:
                    if writable:
                        unsent = unsent[connection.send(unsent[:_PIECE_BYTES]) :]
                    if readable:
                        piece = connection.recv(_PIECE_BYTES)
                        heard += piece
                        if not piece:
                            return heard
                        if len(_parsed(heard)) == 1:
                            deadline = time.monotonic() + _SECOND_ANSWER_WITHIN_S
                except (ConnectionResetError, BrokenPipeError):
                    if not readable:
                        unsent = memoryview(b"")
                        continue
                    return heard
        return heard or None


def _parsed(data: bytes) -> list[tuple[int, bytes]]:
    """Return the whole answers that the bytes begin with: their statuses and bodies."""
    stream = _Unclosed(data)
    answers = []
    while data[stream.tell() :]:
        response = http.client.HTTPResponse(_Socket(stream))  # type: ignore[arg-type]
        try:
            response.begin()
            body = response.read()
        except (http.client.HTTPException, ValueError):
            break
        answers.append((response.status, body))
    return answers


def _outcomes(data: bytes) -> frozenset[str]:
    answers = _parsed(data)
    if not answers and b"\r\n\r\n" in data:
        # The server hung up on a body under way, which takes what is not yet read of the answer with it.
        return frozenset({data[9:12].decode("latin-1")})
    if not answers:
        return frozenset({"closed" if not data else "broken"})
    if len(answers) > 1:
        return frozenset({f"{len(answers)} answers"})
    ((status, body),) = answers
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if status == 200 and isinstance(document, dict) and isinstance(document.get("status"), str):
        return frozenset({str(status), document["status"]})
    return frozenset({str(status)})


class _Unclosed(io.BytesIO):
    def close(self) -> None:
        """Stay open for the next answer."""


class _Socket:
    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def makefile(self, _mode: str) -> io.BytesIO:
        return self._stream

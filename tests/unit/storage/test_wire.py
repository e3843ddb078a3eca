"""What servers may answer, and what becomes of a connection then."""

import contextlib
import errno
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from comfypin.errors.storage import PayloadUnreadable
from comfypin.storage.body import FilePart, Text
from comfypin.storage.dial import Dial
from comfypin.storage.wire import Answer, AnswerBroken, Wire

HEADERS = {"Host": "here"}


class Scripted:
    """Answers each request with the next of its texts; closes the connection where a text is followed by `None`."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0

    def serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._serve(listener)

    def _serve(self, listener: socket.socket) -> None:
        while self.answers:
            connection, _ = listener.accept()
            self.connections += 1
            with connection, connection.makefile("rb") as file:
                while self.answers and self.answers[0] is not None and self._take(file):
                    connection.sendall(self.answers.pop(0) or b"")
                if self.answers and self.answers[0] is None:
                    self.answers.pop(0)

    def _take(self, file: object) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = file.readline()  # type: ignore[attr-defined]
            if not line:
                return False
            head += line
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0)
        self.heads.append(head)
        self.bodies.append(file.read(length))  # type: ignore[attr-defined]
        return True


@contextmanager
def serving(server: Scripted) -> Iterator[Wire]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield Wire(Dial(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
            thread.join(10)


def asked(*answers: bytes | None, method: str = "GET") -> Answer:
    return asked_of(Scripted(*answers), method=method)


def asked_of(server: Scripted, *, method: str = "GET") -> Answer:
    with serving(server) as wire:
        return wire.exchange(method, "/", HEADERS)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ],
    ids=["length", "chunks", "until the end", "old", "after a hint"],
)
def test_every_way_to_end_an_answer_is_understood(answer: bytes) -> None:
    heard = asked(answer, None)
    assert (heard.status, heard.data) == (200, b"hello")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nhello",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 2",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 2000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 20000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 9_999_999,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 9_999_999,
    ],
    ids=map(str, itertools.count()),
)
def test_what_is_no_whole_answer_is_not_taken_for_one(answer: bytes) -> None:
    with pytest.raises(AnswerBroken):
        asked(answer, None)


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("DELETE", "204 No Content"), ("GET", "304 Not Modified")]
)
def test_answers_without_a_body_are_over_with_their_head(method: str, status: str) -> None:
    server = Scripted(*[f"HTTP/1.1 {status}\r\nContent-Length: 7\r\n\r\n".encode()] * 2)
    with serving(server) as wire:
        assert [wire.exchange(method, "/", HEADERS).data for _ in range(2)] == [b"", b""]
    assert server.connections == 1


def test_a_connection_is_used_again_unless_the_server_says_that_it_closes() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
    server = Scripted(whole + b"\r\n", whole + b"Connection: close\r\n\r\n", None, whole + b"\r\n")
    with serving(server) as wire:
        for _ in range(3):
            wire.exchange("GET", "/", HEADERS)
    assert server.connections == 2


def test_a_head_may_come_in_pieces_after_a_hint() -> None:
    class Hesitating(Scripted):
        def _take(self, file: object) -> bool:
            time.sleep(0.05)
            return bool(self.heads) or super()._take(file)

    hint = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 20"
    heard = asked_of(Hesitating(hint, b"0 OK\r\nContent-Length: 5\r\n", b"\r\nhe", b"llo", None))
    assert (heard.status, heard.data) == (200, b"hello")


def test_header_names_are_in_lower_case_and_repeated_ones_are_joined() -> None:
    heard = asked(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a:2\r\nContent-Length: 0\r\n\r\n")
    assert heard.headers["x-a"] == "1, 2"


def test_a_line_break_in_a_header_is_never_sent() -> None:
    server = Scripted(b"")
    with serving(server) as wire, pytest.raises(ValueError, match="line break"):
        wire.exchange("GET", "/", {"Host": "here", "x-amz-meta-a": "b\r\nEvil: 1"})


def a_part(path: Path, *, offset: int, size_bytes: int) -> FilePart:
    path.write_bytes(bytes(range(256)) * 8192)
    return FilePart(os.open(path, os.O_RDONLY), offset=offset, size_bytes=size_bytes, path=str(path))


@pytest.mark.parametrize("can_sendfile", [True, False])
def test_a_part_of_a_file_goes_out_by_the_kernel_or_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_sendfile: bool
) -> None:
    def refuse(*args: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    if not can_sendfile:  # as on some network file systems
        monkeypatch.setattr(os, "sendfile", refuse)
    server = Scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    part = a_part(tmp_path / "f", offset=1000, size_bytes=1_500_000)
    told: list[int] = []
    part.pace = told.append
    with serving(server) as wire:
        wire.exchange("PUT", "/", HEADERS, part)
    assert server.bodies == [(tmp_path / "f").read_bytes()[1000:1_501_000]]
    assert sum(told) == (1_500_000 if can_sendfile else 1_500_000 + (1 << 20))


def test_a_file_that_became_shorter_is_named(tmp_path: Path) -> None:
    part = a_part(tmp_path / "f", offset=2_000_000, size_bytes=200_000)
    with serving(Scripted(b"")) as wire, pytest.raises(PayloadUnreadable, match="shorter"):
        wire.exchange("PUT", "/", HEADERS, part)


def test_a_text_is_sent_with_its_length() -> None:
    server = Scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    with serving(server) as wire:
        wire.exchange("POST", "/x?y=z", HEADERS, Text.of(b"hello"))
    assert server.heads == [b"POST /x?y=z HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\n"]
    assert server.bodies == [b"hello"]

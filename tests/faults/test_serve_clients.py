"""Clients that send half of what they should, or read nothing: others are served, and the log stays short."""

import contextlib
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.server import TOKEN, Server, serving

CLIENTS = 1100
HALF_HEAD = b"POST /run HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
HALF_BODY = (
    b"POST /run HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
    b'Content-Length: 1000\r\n\r\n{"input": '
)
UNREAD = b"GET /outputs/big HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Enough of them for all clients in this one process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < CLIENTS + 200:
        pytest.skip(f"needs ulimit -Hn {CLIENTS + 200}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], CLIENTS + 200), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def many_clients(server: Server, sent: bytes, *, clients: int = CLIENTS) -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    try:
        for _ in range(clients):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(10)
            client.connect(("127.0.0.1", server.port))
            with contextlib.suppress(OSError):  # the server may have dropped it by now
                client.sendall(sent)
            opened.append(client)
        yield opened
    finally:
        for client in opened:
            client.close()


def pings(server: Server, count: int = 20) -> list[int | None]:
    answers = []
    for _ in range(count):
        answers.append(server.ping())
        time.sleep(0.05)
    return answers


def descriptors_of(server: Server) -> int:
    assert server.process is not None
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


@pytest.mark.parametrize("sent", [b"", HALF_HEAD], ids=["nothing", "half a head"])
def test_clients_that_send_no_whole_head_keep_nobody_waiting(tmp_path: Path, sent: bytes) -> None:
    with serving(tmp_path, descriptors=1024) as server, many_clients(server, sent):
        assert pings(server) == [200] * 20
        job = server.post("/runsync", {"input": {"workflow": {}}})
        assert job["status"] == "COMPLETED"
        assert descriptors_of(server) < 700
        said = server.log.read_text()
        assert said.count("too many connections") == 1
        assert "Traceback" not in said


def test_clients_that_send_half_a_body_leave_ping_its_share(tmp_path: Path) -> None:
    with serving(tmp_path, descriptors=1024) as server, many_clients(server, HALF_BODY):
        assert pings(server) == [200] * 20
        assert descriptors_of(server) < 700
        assert "Traceback" not in server.log.read_text()


def test_clients_that_do_not_read_leave_ping_its_share(tmp_path: Path) -> None:
    with serving(tmp_path, descriptors=1024) as server:
        (server.outputs / "big").write_bytes(b"x" * 20_000_000)
        with many_clients(server, UNREAD, clients=400):
            assert pings(server) == [200] * 20
            assert "Traceback" not in server.log.read_text()


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_what_is_too_slow_is_ended_and_all_are_served_again(tmp_path: Path) -> None:
    with serving(tmp_path, descriptors=1024) as server:
        (server.outputs / "big").write_bytes(b"x" * 20_000_000)
        with many_clients(server, UNREAD, clients=400), many_clients(server, HALF_BODY, clients=400):
            deadline = time.monotonic() + 90
            while descriptors_of(server) < 150:  # they are being taken
                assert time.monotonic() < deadline
                time.sleep(0.05)
            while descriptors_of(server) > 60:
                assert server.ping() == 200
                assert time.monotonic() < deadline
                time.sleep(1)
            assert server.post("/runsync", {"input": {"workflow": {}}})["status"] == "COMPLETED"
            assert server.log.stat().st_size < 100_000


def test_clients_that_send_half_a_body_have_no_others_dropped_that_come_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, descriptors=1024) as server, many_clients(server, HALF_BODY, clients=400):
        with ThreadPoolExecutor(16) as pool:
            answers = [answer for asked in pool.map(lambda _: pings(server, 10), range(16)) for answer in asked]
        assert Counter(answers) == {200: 160}

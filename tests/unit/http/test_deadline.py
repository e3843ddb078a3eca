"""A deadline holds for the whole of a fetch, whichever part of it a server draws out."""

import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from comfypin.http.client import HttpClient, HttpTransport
from comfypin.http.deadline import Deadline
from comfypin.http.errors import HttpError, RequestDeadlineExceeded
from comfypin.http.proxies import Proxies
from comfypin.http.sockets import tls_context
from tests.support.drip_server import ENDLESS, DripServer, drip_server
from tests.support.tls import Certificate

DIRECT = HttpTransport(proxies=Proxies())


def counting(server: DripServer, pieces: int) -> Deadline:
    """A deadline that passes when the server has sent so many pieces, however long that takes."""
    return Deadline(pieces, clock=lambda: float(server.sent))


@pytest.mark.parametrize("part", ["head", "headers", "body", "chunks", "redirect", "refusal"])
def test_every_part_that_is_drawn_out_ends_at_the_deadline(part: str) -> None:
    with drip_server(lambda path: ENDLESS[part]()) as server:
        client = HttpClient(transport=DIRECT, deadline=counting(server, 20))
        with pytest.raises(RequestDeadlineExceeded):
            client.get(server.url).read_bytes(1 << 20)
        assert server.wait_for(0), "the connection is closed"


def test_it_holds_under_tls(tmp_path: Path) -> None:
    certificate = Certificate.made(tmp_path)
    transport = HttpTransport(proxies=Proxies(), tls=lambda: tls_context((certificate.path,)))
    with drip_server(lambda path: ENDLESS["head"](), context=certificate.of_server()) as server:
        with pytest.raises(RequestDeadlineExceeded):
            HttpClient(transport=transport, deadline=counting(server, 20)).get(server.url)
        assert server.wait_for(0)


def test_it_holds_for_redirects_that_are_each_quick() -> None:
    def answer(path: str) -> Iterable[bytes]:
        yield b"HTTP/1.1 302 Found\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n"

    with drip_server(answer) as server:
        client = HttpClient(transport=DIRECT, deadline=counting(server, 5))
        with pytest.raises(RequestDeadlineExceeded):
            client.get(server.url)
        assert server.sent <= 6


def test_without_one_a_head_may_not_take_for_ever() -> None:
    with drip_server(lambda path: ENDLESS["head"]()) as server:
        client = HttpClient(transport=HttpTransport(proxies=Proxies(), head_s=0.2))
        with pytest.raises(HttpError, match="did not end in time"):
            client.get(server.url)


@pytest.mark.parametrize("part", ["body", "chunks", "refusal"])
def test_without_one_a_text_may_not_take_for_ever(part: str) -> None:
    with drip_server(lambda path: ENDLESS[part]()) as server:
        client = HttpClient(transport=HttpTransport(proxies=Proxies(), head_s=0.2))
        assert set(client.get(server.url).read_text()) == {"x"}, "as far as it came"
        with pytest.raises(RequestDeadlineExceeded):
            client.get(server.url).read_bytes(1 << 20)
        assert server.wait_for(0)


def test_a_file_without_one_may_take_as_long_as_it_likes() -> None:
    def answer(path: str) -> Iterable[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
        for _ in range(100):
            yield b"x"

    with drip_server(answer) as server:
        client = HttpClient(transport=HttpTransport(proxies=Proxies(), head_s=0.2))
        assert b"".join(client.get(server.url).iter_bytes()) == b"x" * 100


@pytest.mark.parametrize("part", ENDLESS)
def test_one_that_is_cancelled_gives_its_thread_back(part: str) -> None:
    ended: list[BaseException] = []
    deadline = Deadline(3600)

    def fetch() -> None:
        try:
            HttpClient(transport=DIRECT, deadline=deadline).get(server.url).read_bytes(1 << 20)
        except HttpError as error:
            ended.append(error)

    with drip_server(lambda path: ENDLESS[part]()) as server:
        thread = threading.Thread(target=fetch)
        thread.start()
        assert server.wait_for(1)
        deadline.cancel()
        thread.join(30)
        assert not thread.is_alive()
        assert [type(error) for error in ended] == [RequestDeadlineExceeded]
        assert server.wait_for(0)


def test_one_that_has_passed_asks_nobody() -> None:
    with drip_server(lambda path: ENDLESS["silence"]()) as server:
        with pytest.raises(RequestDeadlineExceeded):
            HttpClient(transport=DIRECT, deadline=Deadline(0)).get(server.url)
        assert server.open == 0


def test_a_connection_that_is_used_again_keeps_to_its_new_deadline() -> None:
    def answer(path: str) -> Iterable[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
        yield from ENDLESS["silence"]()

    with drip_server(answer) as server:
        client = HttpClient(transport=DIRECT)
        assert client.request("GET", server.url, deadline=Deadline(3600)).read_bytes(10) == b"x"
        # The server does not answer a second request on the connection.
        with pytest.raises(RequestDeadlineExceeded):
            client.request("GET", server.url, deadline=Deadline(0.2))


def test_a_resolver_that_hangs_ends_at_the_deadline() -> None:
    released = threading.Event()

    class Hangs:
        def resolve(self, host: str, port: int) -> list[str]:
            released.wait(60)
            return ["127.0.0.1"]

        def connect(self, unconnected: object, address: str, port: int) -> None:
            raise AssertionError("nobody connects")

    try:
        client = HttpClient(transport=HttpTransport(network=Hangs(), proxies=Proxies()), deadline=Deadline(0.05))
        with pytest.raises(RequestDeadlineExceeded):
            client.get("http://slow.example/")
    finally:
        released.set()

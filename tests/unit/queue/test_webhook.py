"""Webhooks: three tries, and no private address unless it is allowed."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from comfypin.http.proxies import Proxies
from comfypin.http.url import HttpUrl
from comfypin.queue.webhook import Webhooks
from comfypin.retry import NO_RETRIES, RetryPolicy
from tests.support.connect_proxy import connect_proxy

AT_ONCE = RetryPolicy(retries=2, base_s=0)


class Receiver:
    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.heard = 0

    async def __call__(self, _request: web.Request) -> web.Response:
        self.heard += 1
        return web.Response(status=self.statuses.pop(0))


@pytest.fixture
async def listening() -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver(500, 302, 200)
    app = web.Application()
    app.router.add_post("/hook", receiver)
    async with TestServer(app) as server:
        yield receiver, str(server.make_url("/hook"))


async def test_it_is_told_until_it_answers_200(listening: tuple[Receiver, str]) -> None:
    receiver, url = listening
    webhooks = Webhooks(secret=None, allow_private=True, retry_policy=AT_ONCE)
    assert await webhooks.post_status("job", url, b"{}") is None
    assert receiver.heard == 3


async def test_it_is_given_up_after_three_tries(listening: tuple[Receiver, str]) -> None:
    receiver, url = listening
    receiver.statuses = [500] * 4
    assert (
        await Webhooks(secret=None, allow_private=True, retry_policy=AT_ONCE).post_status("job", url, b"{}") is not None
    )
    assert receiver.heard == 3


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "①②⑦.⓪.⓪.①", "１２７.0.0.1", "127。0。0。1", "127｡0｡0｡1",
     "2130706433", "127.1",
     "0x7f.1", "0177.0.0.1", "127.0.0.1.", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "user@127.0.0.1",
     "public.example@127.0.0.1",
     "0", "[::]", "loca\u00adlhost", "LOCALHOST."],
)  # fmt: skip
async def test_private_addresses_are_never_asked(listening: tuple[Receiver, str], host: str) -> None:
    receiver, url = listening
    webhooks = Webhooks(secret=None, allow_private=False, retry_policy=AT_ONCE)
    assert await webhooks.post_status("job", url.replace("127.0.0.1", host), b"{}") is not None
    assert receiver.heard == 0


@pytest.mark.parametrize(
    "text", ["", "x", "ftp://example.com/", "http://", "http://a b/", "http://[::1/", "http://x:99999/"]
)
async def test_what_is_not_an_address_is_not_told(text: str) -> None:
    assert (
        await Webhooks(secret=None, allow_private=True, retry_policy=AT_ONCE).post_status("job", text, b"{}")
        is not None
    )


async def test_a_name_is_resolved_once_and_pinned(listening: tuple[Receiver, str]) -> None:
    class Rebinds:
        """Says a public address when it is checked, and a private one from then on."""

        asked = 0

        def resolve(self, host: str, port: int) -> list[str]:
            self.asked += 1
            return ["127.0.0.1"] if self.asked > 1 else ["203.0.114.1"]

    receiver, url = listening
    resolver = Rebinds()
    webhooks = Webhooks(secret=None, allow_private=False, retry_policy=NO_RETRIES, resolver=resolver)
    connector = await webhooks._make_connector(HttpUrl.parse(url.replace("127.0.0.1", "rebind.example")), None)
    found = await connector._resolve_host("rebind.example", 80)
    await connector.close()
    assert [one["host"] for one in found] == ["203.0.114.1"]
    assert (resolver.asked, receiver.heard) == (1, 0)


async def test_a_receiver_that_asks_to_come_back_tomorrow_is_given_up_at_once() -> None:
    async def busy(_request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "86400"})

    app = web.Application()
    app.router.add_post("/hook", busy)
    async with TestServer(app) as server:
        webhooks = Webhooks(secret=None, allow_private=True)
        assert await webhooks.post_status("job", str(server.make_url("/hook")), b"{}") is not None


@pytest.mark.parametrize("is_allowed", [True, False])
async def test_webhooks_go_by_the_proxy_unless_they_are_private(
    listening: tuple[Receiver, str], *, is_allowed: bool
) -> None:
    receiver, url = listening
    receiver.statuses = [200]
    with connect_proxy(login="user:p@ss") as proxy:
        proxies = Proxies.from_variables({"HTTP_PROXY": proxy.url})
        webhooks = Webhooks(secret=None, allow_private=is_allowed, retry_policy=AT_ONCE, proxies=proxies)
        assert (await webhooks.post_status("job", url, b"{}") is None) is is_allowed
        assert proxy.asked == ([f"POST {url}"] if is_allowed else [])

"""Webhooks: three tries, and no private address unless it is allowed."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from comfypin.serve.webhook import Webhooks


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
    webhooks = Webhooks(secret=None, allow_private=True, pause_s=(0, 0))
    assert await webhooks.tell("job", url, b"{}")
    assert receiver.heard == 3


async def test_it_is_given_up_after_three_tries(listening: tuple[Receiver, str]) -> None:
    receiver, url = listening
    receiver.statuses = [500] * 4
    assert not await Webhooks(secret=None, allow_private=True, pause_s=(0, 0)).tell("job", url, b"{}")
    assert receiver.heard == 3


async def test_private_addresses_are_never_asked(listening: tuple[Receiver, str]) -> None:
    receiver, url = listening
    webhooks = Webhooks(secret=None, allow_private=False, pause_s=(0, 0))
    for address in (url, url.replace("127.0.0.1", "localhost"), url.replace("127.0.0.1", "[::ffff:127.0.0.1]")):
        assert not await webhooks.tell("job", address, b"{}")
    assert receiver.heard == 0

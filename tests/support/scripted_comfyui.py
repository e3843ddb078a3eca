"""A scripted ComfyUI with a client that waits briefly: what the tests of its facts share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from comfypin.engine.client import HttpEngine
from comfypin.engine.http_transport import EngineTimeouts
from comfypin.engine.interface import EngineEvent, Prompt
from comfypin.engine.remote import open_remote
from tests.support.fake_comfyui import FakeComfyUI, fake_comfyui

QUICK = EngineTimeouts(
    poll_s=0.05, lost_s=0.1, history_s=0.5, unreachable_s=0.4, cancel_s=1.0, websocket_s=1.0, request_s=2.0
)


@asynccontextmanager
async def engine_at(**script: Any) -> AsyncIterator[tuple[FakeComfyUI, HttpEngine]]:
    async with fake_comfyui(**script) as fake, open_remote(fake.url, timeouts=QUICK) as engine:
        yield fake, engine


async def follow(engine: HttpEngine, prompt: Prompt) -> list[EngineEvent]:
    await engine.submit(prompt)
    return [event async for event in engine.events(prompt.prompt_id)]


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

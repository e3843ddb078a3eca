"""Progress: in order, throttled, all told before the result."""

import asyncio
from collections.abc import Mapping
from typing import Any

from comfypin.runpod.progress_sender import ProgressSender


class Platform:
    def __init__(self, *, refuses: int = 0) -> None:
        self.heard: list[Any] = []
        self._refuses = refuses

    async def __call__(self, progress: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        if self._refuses:
            self._refuses -= 1
            raise OSError("the platform is away")
        self.heard.append(progress["n"])


async def test_the_newest_is_told_and_what_it_replaced_is_not() -> None:
    platform = Platform()
    reporter = ProgressSender(platform, every_s=60)
    for number in range(100):
        reporter({"n": number})
        await asyncio.sleep(0)
    await reporter.close()
    assert platform.heard == sorted(platform.heard)
    assert platform.heard[-1] == 99
    assert len(platform.heard) == 2


async def test_nothing_is_told_after_the_end() -> None:
    platform = Platform()
    reporter = ProgressSender(platform, every_s=0)
    reporter({"n": 1})
    await reporter.close()
    reporter({"n": 2})
    await asyncio.sleep(0.01)
    assert platform.heard == [1]


async def test_a_platform_that_refuses_costs_no_job() -> None:
    platform = Platform(refuses=1)
    reporter = ProgressSender(platform, every_s=0)
    reporter({"n": 1})
    await asyncio.sleep(0.01)
    reporter({"n": 2})
    await reporter.close()
    assert platform.heard == [2]

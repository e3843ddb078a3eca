"""Sends progress to a platform: in order, throttled, and all of it before the result. No thread a call.

Runpod's own `progress_update` starts a thread for each call, so that updates overtake each other and the result.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping

from comfypin.digest import JsonValue

log = logging.getLogger(__name__)

# The SDK starts a thread for each report; one a second keeps them in order.
REPORT_EVERY_S = 1.0
# The result matters more than the last progress before it.
_FLUSH_WITHIN_S = 5.0
SendProgress = Callable[[Mapping[str, JsonValue]], Awaitable[None]]


class ProgressSender:
    """Sends the newest progress at most every `every_s` seconds; what it replaces is never sent."""

    def __init__(self, send: SendProgress, *, every_s: float = REPORT_EVERY_S) -> None:
        self._send = send
        self._every_s = every_s
        self._newest: Mapping[str, JsonValue] | None = None
        self._changed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._send_forever())

    def __call__(self, progress: Mapping[str, JsonValue]) -> None:
        """Note the newest progress. Call it on the loop that made the reporter."""
        self._newest = progress
        self._changed.set()

    async def close(self) -> None:
        """Send what is owed and stop; after it nothing is sent any more. A platform that hangs is given up."""
        # Before the last progress is sent, so that nothing can overtake it.
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._newest is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_WITHIN_S):
                    await self._send_newest()

    async def _send_forever(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            # A send that has begun is finished also when we are told to stop: the order must hold.
            await asyncio.shield(asyncio.ensure_future(self._send_newest()))
            await asyncio.sleep(self._every_s)

    async def _send_newest(self) -> None:
        newest, self._newest = self._newest, None
        if newest is None:
            return
        try:
            await self._send(newest)
        except Exception as exc:  # noqa: BLE001 - the platform's client raises what it likes; progress is not worth a job
            log.warning("progress not sent", extra={"action": "progress_not_sent", "reason": type(exc).__name__})

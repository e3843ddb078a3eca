"""Lets one server of a fleet do what only one should: the holder of a key that is kept for 10 s."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from nats.errors import Error

from comfypin.queue.nats.buckets import Bucket
from comfypin.queue.nats.errors import LeaseTaken
from comfypin.queue.nats.layout import LEASE_S
from comfypin.queue.nats.pauses import pause

log = logging.getLogger(__name__)

# Three tries within the lease.
_RENEW_EVERY_S = 3.0
CHORES = "chores"


class FleetLease:
    """One server's claim on a lease."""

    def __init__(self, bucket: Bucket, key: str, holder: str) -> None:
        self._bucket = bucket
        self._key = key
        self._holder = holder.encode()
        self._revision: int | None = None
        self._renewed_at_s = float("-inf")

    @property
    def is_held(self) -> bool:
        """Return whether this server holds the lease now, as far as it can know."""
        return self._revision is not None and time.monotonic() - self._renewed_at_s < LEASE_S

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work whenever the lease is held, and cancel it when it is lost; for ever."""
        working: asyncio.Task[None] | None = None
        try:
            while True:
                await self._renew()
                if self.is_held and (working is None or working.done()):
                    log.info("chores are ours", extra={"action": "lease_held", "lease": self._key})
                    working = asyncio.ensure_future(_as_task(work))
                elif not self.is_held and working is not None:
                    working.cancel()
                    await asyncio.gather(working, return_exceptions=True)
                    working = None
                await pause(_RENEW_EVERY_S)
        finally:
            if working is not None:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
            if self.is_held:
                with contextlib.suppress(Error, TimeoutError):
                    await self._bucket.drop([self._key])

    @contextlib.asynccontextmanager
    async def keep(self) -> AsyncIterator[None]:
        """Hold the lease while the block runs, as far as the queue is reached. Raises `LeaseTaken` if another does."""
        await self._renew()
        self.require_held()
        renewing = asyncio.create_task(self._renew_forever())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            # One that was lost is another's by now.
            if self.is_held:
                with contextlib.suppress(Error, TimeoutError):
                    await self._bucket.drop([self._key])

    def require_held(self) -> None:
        """Raise `LeaseTaken` unless the lease is held now: a machine that slept, or was cut off, has lost it."""
        if not self.is_held:
            raise LeaseTaken(what=self._key)

    async def _renew_forever(self) -> None:
        while True:
            await pause(_RENEW_EVERY_S)
            await self._renew()

    async def _renew(self) -> None:
        asked_at_s = time.monotonic()
        try:
            if self._revision is None:
                self._revision = await self._bucket.create(self._key, self._holder)
            else:
                self._revision = await self._bucket.change(self._key, self._holder, revision=self._revision)
        except (Error, TimeoutError):
            return  # held for as long as the last renewal lasts
        if self._revision is not None:
            self._renewed_at_s = asked_at_s


async def _as_task(work: Callable[[], Awaitable[None]]) -> None:
    await work()

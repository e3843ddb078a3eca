"""Idempotency keys, each for one request: what comes again under a key is refused, and never run again.

A key is claimed by a request that reaches submission, and committed together with what it made. It is released if that
definitely failed. If nobody knows (the process was killed, or the write was not answered), the disk says what was made.
"""

import contextlib
from collections.abc import AsyncIterator, Callable

from comfypin.queue.interface import SharedKeys
from comfypin.queue.job_changes import JobChange
from comfypin.queue.job_notes import key_claimed
from comfypin.server.comfy_api import records
from comfypin.server.comfy_api.errors import ApiFailure, invalid_request
from comfypin.server.comfy_api.records import Records

# The description says 24 hours.
KEPT_S = 86_400.0
# The description names no limit; a UUID, which it recommends, has 36.
_LONGEST_KEY = 255


class IdempotencyKeys:
    """The keys of one server; `load` reads those that earlier lives of it claimed.

    `shared` are those of all servers of a fleet.
    """

    def __init__(self, records_: Records, *, clock: Callable[[], float], shared: SharedKeys | None = None) -> None:
        self._records = records_
        self._clock = clock
        self._shared = shared
        self._claimed: dict[str, float] = {}

    async def load(self) -> None:
        """Read the keys that are kept. Raises `JobsNotStored`."""
        self._claimed = await self._records.keys()

    async def check(self, key: str | None) -> None:
        """Refuse a key that is claimed or not valid. Raises `ApiFailure`, `JobsNotStored`."""
        if key is None:
            return
        self._check_own(key)
        if self._shared is not None and await self._shared.is_claimed(key):
            raise _used_already()

    def _check_own(self, key: str) -> None:
        if not key or len(key) > _LONGEST_KEY or not key.isascii() or not key.isprintable():
            raise invalid_request(f"Idempotency-Key must be 1 to {_LONGEST_KEY} printable ASCII characters")
        claimed_at = self._claimed.get(key)
        if claimed_at is not None and self._clock() - claimed_at < KEPT_S:
            raise _used_already()

    @contextlib.asynccontextmanager
    async def claim(self, key: str | None, job_id: str | None = None) -> AsyncIterator[None]:
        """Claim a key while the block submits, which keeps it; a failure in the block releases it.

        Raises `ApiFailure`, `JobsNotStored` as `check` does.
        """
        if key is None:
            yield
            return
        self._check_own(key)
        # At once, before anything is waited for: another request with it may be on its way.
        self._claimed[key] = self._clock()
        try:
            if self._shared is not None and not await self._shared.claim(key, job_id):
                raise _used_already()
            try:
                yield
            except Exception:
                if self._shared is not None:
                    await self._shared.release(key)
                raise
        except Exception:
            # Changes that were refused are not on the disk: the request has made nothing.
            self._claimed.pop(key, None)
            raise

    def changes(self, key: str | None) -> tuple[JobChange, ...]:
        """Return the changes that keep a claimed key with what its request makes, if that is not a job."""
        return () if key is None else (key_claimed(key, self._clock(), None),)

    async def sweep(self) -> None:
        """Forget the keys that were kept long enough. Raises `JobsNotStored`."""
        before = self._clock() - KEPT_S
        await self._records.write(records.keys_forgotten(before))
        self._claimed = {key: at for key, at in self._claimed.items() if at >= before}


def _used_already() -> ApiFailure:
    return ApiFailure(
        422,
        "idempotency_key_reuse",
        "This Idempotency-Key was used already, and its request is not run again; look for what it made.",
    )

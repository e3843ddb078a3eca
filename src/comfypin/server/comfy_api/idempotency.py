"""Idempotency keys, each for one request: what comes again under a key is refused, and never run again.

A key is claimed by a request that reaches submission, and committed together with what it made. It is released if that
definitely failed. If nobody knows (the process was killed, or the write was not answered), the disk says what was made.
"""

import contextlib
from collections.abc import Callable, Iterator

from comfypin.queue.job_changes import JobChange
from comfypin.server.comfy_api import records
from comfypin.server.comfy_api.errors import ApiFailure, invalid_request
from comfypin.server.comfy_api.records import Records

# The description says 24 hours.
KEPT_S = 86_400.0
# The description names no limit; a UUID, which it recommends, has 36.
_LONGEST_KEY = 255


class IdempotencyKeys:
    """The keys of one server; `load` reads those that earlier lives of it claimed."""

    def __init__(self, records_: Records, *, clock: Callable[[], float]) -> None:
        self._records = records_
        self._clock = clock
        self._claimed: dict[str, float] = {}

    async def load(self) -> None:
        """Read the keys that are kept. Raises `JobsNotStored`."""
        self._claimed = await self._records.keys()

    def check(self, key: str | None) -> None:
        """Refuse a key that is claimed, or that is none. Raises `ApiFailure`."""
        if key is None:
            return
        if not key or len(key) > _LONGEST_KEY or not key.isascii() or not key.isprintable():
            raise invalid_request(f"Idempotency-Key must be 1 to {_LONGEST_KEY} printable ASCII characters")
        claimed_at = self._claimed.get(key)
        if claimed_at is not None and self._clock() - claimed_at < KEPT_S:
            raise ApiFailure(
                422,
                "idempotency_key_reuse",
                "This Idempotency-Key was used already, and its request is not run again; look for what it made.",
            )

    @contextlib.contextmanager
    def claim(self, key: str | None, job_id: str | None = None) -> Iterator[tuple[JobChange, ...]]:
        """Claim a key while the block submits, with the changes that keep it; a failure in the block releases it.

        Raises `ApiFailure` as `check` does.
        """
        if key is None:
            yield ()
            return
        self.check(key)
        at = self._claimed[key] = self._clock()
        try:
            yield (records.key_claimed(key, at, job_id),)
        except Exception:
            # Changes that were refused are not on the disk: the request has made nothing.
            self._claimed.pop(key, None)
            raise

    async def sweep(self) -> None:
        """Forget the keys that were kept long enough. Raises `JobsNotStored`."""
        before = self._clock() - KEPT_S
        await self._records.write(records.keys_forgotten(before))
        self._claimed = {key: at for key, at in self._claimed.items() if at >= before}

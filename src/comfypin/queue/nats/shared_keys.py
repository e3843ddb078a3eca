"""The idempotency keys of a fleet: each is a key of the bucket `comfypin_keys`, which forgets it after a day."""

import contextlib
import json

from nats.errors import Error

from comfypin.digest import Digest
from comfypin.queue.nats.buckets import Bucket
from comfypin.queue.nats.failures import as_storage_failure


class FleetKeys:
    """Implements `SharedKeys`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def is_claimed(self, key: str) -> bool:
        """Return whether a request has used this key. Raises `JobsNotStored`."""
        with as_storage_failure():
            return await self._bucket.get(_key_of(key)) is not None

    async def claim(self, key: str, job_id: str | None) -> bool:
        """Claim a key; return whether it was free. Raises `JobsNotStored`."""
        with as_storage_failure():
            return await self._bucket.create(_key_of(key), json.dumps({"job": job_id}).encode()) is not None

    async def release(self, key: str) -> None:
        """Give a key back whose request made nothing; if the queue does not answer, it stays claimed."""
        with contextlib.suppress(Error, TimeoutError):
            await self._bucket.drop([_key_of(key)])


def _key_of(key: str) -> str:
    # Clients' keys may hold what the names of NATS may not.
    return Digest.of(key.encode()).hex

"""Keys and values in a stream of NATS, laid out as its KV buckets are (`nats kv` reads them), changed by revision.

nats-py's own buckets read from any replica, which may be behind: whoever changes a value by its revision would be
refused again and again. These ask the leader.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from nats.js.errors import APIError, NotFoundError

from comfypin.queue.nats.failures import WRONG_REVISION, is_api_error, until_clear
from comfypin.queue.nats.subjects import list_subjects

if TYPE_CHECKING:
    from nats.js.client import JetStreamContext

# A cluster chooses a new leader within a few seconds.
REQUEST_WITHIN_S = 5.0
_MARKER_KEPT_S = 3600
"""How long a removed key's marker stays, for followers that were away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What a key holds, the revision to name when it is changed, and when it was written (seconds since 1970)."""

    data: bytes
    revision: int
    at: float = 0.0


class Bucket:
    """One bucket. What JetStream refuses or does not answer is raised as nats-py raises it."""

    def __init__(self, stream: "JetStreamContext", bucket_name: str) -> None:
        self._stream = stream
        self.name = bucket_name

    @property
    def stream_name(self) -> str:
        """Return the name of the stream behind it."""
        return f"KV_{self.name}"

    def subject(self, key: str) -> str:
        """Return the subject that a key's values are published to."""
        return f"$KV.{self.name}.{key}"

    async def get(self, key: str) -> Value | None:
        """Return a key's value, or None."""
        try:
            stored_entry = await self._stream.get_last_msg(self.stream_name, self.subject(key))
        except NotFoundError:
            return None
        if stored_entry.headers and "KV-Operation" in stored_entry.headers:
            return None
        at = 0.0 if stored_entry.time is None else stored_entry.time.timestamp()
        return Value(data=stored_entry.data or b"", revision=stored_entry.seq or 0, at=at)

    async def put(self, key: str, data: bytes, *, kept_s: int | None = None) -> int:
        """Write a value whatever was there; return its revision. Tried again while nobody knows whether it was.

        With `kept_s` it goes by itself after so many seconds.
        """
        headers = None if kept_s is None else {"Nats-TTL": f"{kept_s}s"}
        publish = partial(self._stream.publish, self.subject(key), data, timeout=REQUEST_WITHIN_S, headers=headers)
        return (await until_clear(publish)).seq

    async def change(self, key: str, data: bytes, *, revision: int) -> int | None:
        """Write a value if the key is still at this revision (0: if it is free); None if it is not.

        An unclear outcome is raised: the caller looks at what is there.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        try:
            acknowledged = await self._stream.publish(
                self.subject(key), data, timeout=REQUEST_WITHIN_S, headers=headers
            )
        except APIError as exc:
            if is_api_error(exc, WRONG_REVISION):
                return None
            raise
        return acknowledged.seq

    async def create(self, key: str, data: bytes) -> int | None:
        """Write the value of a key that is free, or was removed; None if it holds one."""
        revision = await self.change(key, data, revision=0)
        if revision is not None:
            return revision
        try:
            last = await self._stream.get_last_msg(self.stream_name, self.subject(key))
        except NotFoundError:
            return await self.change(key, data, revision=0)
        if not (last.headers and "KV-Operation" in last.headers):
            return None
        return await self.change(key, data, revision=last.seq or 0)

    async def remove(self, key: str, *, revision: int | None = None) -> None:
        """Remove a key, if it is still at this revision; followers who were away for less than an hour hear of it."""
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": f"{_MARKER_KEPT_S}s"}
        if revision is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(revision)
        await self._stream.publish(self.subject(key), b"", timeout=REQUEST_WITHIN_S, headers=headers)

    async def drop(self, keys: Sequence[str]) -> None:
        """Remove keys that nobody follows, or all that match a pattern, without a trace."""
        for key in keys:
            await self._stream.purge_stream(self.stream_name, subject=self.subject(key))

    async def keys(self) -> list[str]:
        """Return the keys, perhaps with some that were removed."""
        prefix = self.subject("")
        found = await list_subjects(self._stream, self.stream_name, self.subject(">"))
        return [subject.removeprefix(prefix) for subject in found]

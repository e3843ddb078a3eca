"""The releases of a fleet: the first worker of each tells which nodes it has, so that servers need no engine."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import zstandard
from nats.errors import Error

from comfypin.engine.interface import Catalogue, EngineEvent, Prompt, PromptOutputs
from comfypin.queue.nats.bodies import LARGEST_BYTES
from comfypin.queue.nats.buckets import Bucket
from comfypin.queue.nats.errors import CatalogueUnknown
from comfypin.queue.nats.unpacking import unpack

log = logging.getLogger(__name__)

_LARGEST_CATALOGUE = 256 << 20
_NAMES = "name."
_LOCKS = "lock."


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRecord:
    """A release that a worker has served: its name, the digest of its lock, and the nodes of its engine."""

    name: str
    digest: str
    catalogue: Catalogue

    def dump(self) -> bytes:
        """Return the record as it is stored. Slow: a catalogue has megabytes."""
        document = {"name": self.name, "digest": self.digest, "catalogue": dict(self.catalogue)}
        return zstandard.compress(json.dumps(document).encode(), 10)

    @classmethod
    def load(cls, record_bytes: bytes) -> "ReleaseRecord":
        """Read a record. Slow, too. Raises `ValueError` or `TypeError` for what is none."""
        return cls(**json.loads(unpack(record_bytes, most=_LARGEST_CATALOGUE)))


async def announce_release(bucket: Bucket, release: str, record: ReleaseRecord, carried_lock: str) -> None:
    """Write down a release that this worker serves. A worker runs just as well if that does not work."""
    record_bytes = await asyncio.to_thread(record.dump)
    if len(record_bytes) > LARGEST_BYTES * 2 - 100_000:
        facts = {"action": "catalogue_too_large", "release": record.name, "bytes": len(record_bytes)}
        log.warning("servers will not know the nodes of the release", extra=facts)
        return
    try:
        stored_entry = await bucket.get(release)
        if stored_entry is None or stored_entry.data != record_bytes:
            await bucket.put(release, record_bytes)
            await bucket.put(f"{_NAMES}{release}", record.name.encode())
            await keep_lock(bucket, release, carried_lock)
    except (Error, TimeoutError) as exc:
        log.warning("release not told", extra={"action": "release_not_told", "reason": str(exc)})


async def keep_lock(bucket: Bucket, release: str, carried_lock: str) -> None:
    """Keep a release's lock as text, so that whoever starts its workers need not have it. Raises what nats-py raises.

    One that is too large for a message is not kept.
    """
    if len(carried_lock) > LARGEST_BYTES:
        log.warning("lock too large", extra={"action": "lock_not_kept", "release": release, "bytes": len(carried_lock)})
        return
    await bucket.put(f"{_LOCKS}{release}", carried_lock.encode())


async def read_lock(bucket: Bucket, release: str) -> str | None:
    """Return the lock of a release as text, if it is kept. Raises what nats-py raises."""
    stored_entry = await bucket.get(f"{_LOCKS}{release}")
    return None if stored_entry is None else stored_entry.data.decode()


async def release_names(bucket: Bucket) -> dict[str, str]:
    """Return the names of the releases that workers have served, by release. Raises what nats-py raises."""
    names_by_release = {}
    for key in await bucket.keys():
        if key.startswith(_NAMES) and (value := await bucket.get(key)) is not None:
            names_by_release[key.removeprefix(_NAMES)] = value.data.decode()
    return names_by_release


class FleetEngine:
    """Implements `Engine` for a server of a fleet, which runs nothing: it knows the nodes of a release.

    `current` returns the release that takes jobs now; `release` and `release_name` are the server's own.
    """

    def __init__(self, bucket: Bucket, release: str, release_name: str, current: Callable[[], str]) -> None:
        self._bucket = bucket
        self._release = release
        self._name = release_name
        self._current = current
        self._known: tuple[str, Catalogue] | None = None

    async def catalogue(self) -> Catalogue:
        """Return the node classes of the release's workers. Raises `CatalogueUnknown` before the first of them."""
        # A release that was rolled before any worker had it: the one before it is the nearest that is known.
        for release in (self._current(), self._release):
            if self._known is not None and self._known[0] == release:
                return self._known[1]
            try:
                stored_entry = await self._bucket.get(release)
            except (Error, TimeoutError) as exc:
                raise CatalogueUnknown(release=self._name) from exc
            if stored_entry is not None:
                try:
                    catalogue = (await asyncio.to_thread(ReleaseRecord.load, stored_entry.data)).catalogue
                except (ValueError, TypeError) as exc:
                    raise CatalogueUnknown(release=self._name) from exc
                self._known = (release, catalogue)
                return catalogue
        raise CatalogueUnknown(release=self._name)

    async def submit(self, prompt: Prompt) -> None:
        """Refuse: jobs run on workers."""
        raise CatalogueUnknown(release=self._name)

    async def events(self, prompt_id: str) -> AsyncGenerator[EngineEvent, None]:
        """Refuse: jobs run on workers."""
        raise CatalogueUnknown(release=self._name)
        yield

    async def outputs(self, prompt_id: str) -> PromptOutputs:
        """Refuse: jobs run on workers."""
        raise CatalogueUnknown(release=self._name)

    async def cancel(self, prompt_id: str) -> None:
        """Do nothing: no prompt runs here."""

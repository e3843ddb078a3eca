"""Assets: records over bytes that are stored once, however often they come; kept a while, and while jobs need them."""

import asyncio
import contextlib
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from comfypin.queue.errors import JobsNotStored
from comfypin.queue.job_changes import JobChange
from comfypin.server.comfy_api import records
from comfypin.server.comfy_api.blobs import BlobFolder, Incoming, IncomingFile
from comfypin.server.comfy_api.errors import ApiFailure, not_found
from comfypin.server.comfy_api.records import Asset, Records

log = logging.getLogger(__name__)

# Assets expire after hours; a minute more is noticed by nobody.
_SWEEP_EVERY_S = 60.0
_FRESH_S = 300.0
"""Uploads stay so long however little room there is: their job is about to come."""
_OUTPUT_IDS = uuid.UUID("6f2b7b0c-52c5-4a0e-9d0b-7f3f6b6b1c11")


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetLabel:
    """What a client says about bytes: their media type, a file name or path, tags, and how long they are kept."""

    content_type: str
    file_path: str | None = None
    tags: tuple[str, ...] = ()
    expires_in_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A file that a job left, at a `path` of this machine or at a `location` in a bucket.

    `position` counts the job's outputs; `size_bytes` is needed for what is in a bucket.
    """

    path: Path | None
    position: int
    node_id: str
    kind: str
    media_type: str
    name: str
    location: str | None = None
    size_bytes: int = 0


class Assets:
    """The assets of one server. The bytes come first and the record last: what has a record is whole."""

    def __init__(
        self,
        records_: Records,
        folder: Path,
        *,
        keep_s: float,
        clock: Callable[[], float],
        keep_bytes: int | None = None,
        on_job_removed: Callable[[str], object] | None = None,
    ) -> None:
        self._records = records_
        self._blobs = BlobFolder(folder)
        self._keep_s = keep_s
        self._clock = clock
        self._keep_bytes = keep_bytes
        self._on_job_removed = on_job_removed
        # Between bytes that get their name and the record that keeps them, no sweep may come.
        self._placing = asyncio.Lock()
        self._held: Counter[str] = Counter()

    async def begin(self) -> IncomingFile:
        """Begin an upload. Raises `OSError`."""
        return await asyncio.to_thread(self._blobs.open)

    async def mint(self, incoming: Incoming, label: AssetLabel, *beside: JobChange) -> tuple[Asset, bool]:
        """Make a record over bytes that came in, with changes `beside` it; returns it, and whether the bytes are new.

        Raises `OSError`, `JobsNotStored`.
        """
        async with self._placing:
            is_new = await asyncio.to_thread(self._blobs.place, incoming)
            asset = self._new(incoming.hash, incoming.size_bytes, label)
            known = None if is_new else await self._records.asset_of(incoming.hash)
            if known is not None:
                # Bytes that are uploaded again live as long as the longest of their records says.
                asset = replace(asset, expires_at=_later(known.expires_at, asset.expires_at))
            await self._records.write(records.asset_added(asset, tags=label.tags), *beside)
        return asset, known is None

    async def mint_over(self, hash_: str, label: AssetLabel) -> tuple[Asset, bool]:
        """Make a record over bytes that are here, unless one says the same; returns it, and whether it is new.

        Raises `ApiFailure` (blob_not_found), `JobsNotStored`.
        """
        async with self._placing:
            known = await self._records.asset_of(hash_)
            if known is None or self._has_expired(known):
                raise ApiFailure(404, "blob_not_found", "There are no bytes of this hash here; upload them.")
            made = self._new(hash_, known.size_bytes, replace(label, content_type=known.content_type))
            expires_at = _later(known.expires_at, made.expires_at)
            if (same := await self._records.same_asset(hash_, label.file_path, label.tags)) is not None:
                await self._records.write(records.asset_extended(same.id, expires_at))
                return replace(same, expires_at=expires_at), False
            made = replace(made, expires_at=expires_at)
            await self._records.write(records.asset_added(made, tags=label.tags))
        return made, True

    async def get(self, asset_id: str) -> Asset:
        """Return an asset. Raises `ApiFailure` (not_found)."""
        asset = await self._records.asset(asset_id)
        if asset is None or (self._has_expired(asset) and not await self._records.is_in_use(asset_id)):
            raise not_found("asset", asset_id)
        return asset

    async def has(self, hash_: str) -> bool:
        """Return whether an asset can be made of bytes that are here."""
        asset = await self._records.asset_of(hash_)
        return asset is not None and not self._has_expired(asset)

    async def delete(self, asset_id: str) -> None:
        """Remove a record, and its bytes if they have no other. Raises `ApiFailure` (not_found, asset_in_use)."""
        asset = await self.get(asset_id)
        await self._records.write(records.asset_removed(asset_id))
        # The statement leaves assets alone that are in use: whether it did is read back, in one truth with the jobs.
        if await self._records.asset(asset_id) is not None:
            raise ApiFailure(409, "asset_in_use", "The asset is in use and cannot be deleted now.")
        if await self._records.asset_of(asset.hash) is None:
            await self._collect()

    @contextlib.contextmanager
    def holding(self, hashes: Iterable[str]) -> Iterator[None]:
        """Keep bytes while a job that needs them is being taken."""
        held = tuple(hashes)
        self._held.update(held)
        try:
            yield
        finally:
            self._held.subtract(held)
            self._held += Counter()  # drops those that nobody holds

    def path(self, asset: Asset) -> Path:
        """Return where an asset's bytes are."""
        return self._blobs.path(asset.hash)

    def read(self, hash_: str) -> Iterator[bytes]:
        """Read bytes by their hash, in pieces; blocks. Raises `OSError`."""
        return self._blobs.read(hash_)

    async def store_outputs(self, job_id: str, files: Sequence[JobFile], *beside: JobChange) -> list[Asset]:
        """Make assets of what a job left, with the changes `beside` them. Raises `OSError`, `JobsNotStored`.

        What an earlier attempt of the job left at the same positions is replaced.
        """
        # Outside the lock: copying gigabytes must not hold up every upload.
        copied = [
            await asyncio.to_thread(self._blobs.copy, job_file.path) if job_file.path else None for job_file in files
        ]
        async with self._placing:
            await asyncio.to_thread(self._blobs.place_all, [incoming for incoming in copied if incoming is not None])
            made = [
                _output_asset(job_id, job_file, incoming, self._clock())
                for job_file, incoming in zip(files, copied, strict=True)
            ]
            await self._records.write(*beside, *map(records.asset_added, made))
        return made

    async def recover(self) -> None:
        """Remove what was coming in when the last server ended; to be called before anything comes in."""
        await asyncio.to_thread(self._blobs.forget_incoming)

    async def sweep_forever(self) -> None:
        """Remove what was kept long enough, once a minute, until cancelled."""
        while True:
            try:
                await self.sweep()
            except JobsNotStored as exc:
                log.warning("assets not swept", extra={"action": "assets_not_swept", "reason": exc.message})
            await asyncio.sleep(_SWEEP_EVERY_S)

    async def sweep(self) -> None:
        """Remove what was kept long enough. Raises `JobsNotStored`."""
        # The records first, the bytes last: bytes without a record are swept again, a record without bytes would be a
        # lie.
        await self._records.write(records.expired_removed(self._clock()))
        await self._make_room()
        await self._collect()

    async def _make_room(self) -> None:
        """Remove the oldest results with their outputs, and the oldest uploads, of what takes more than may be kept."""
        if self._keep_bytes is None:
            return
        kept_bytes, counted = 0, set[str]()
        jobs, uploads = dict[str, None](), list[str]()
        for job_id, asset_id, hash_, size_bytes, _ in await self._records.kept_by_age(self._clock() - _FRESH_S):
            # Bytes are stored once, however many assets have them.
            kept_bytes += 0 if hash_ in counted else size_bytes
            if hash_:
                counted.add(hash_)
            # Newest first: all that comes after the limit is older.
            if kept_bytes > self._keep_bytes and job_id is not None:
                jobs[job_id] = None
            elif kept_bytes > self._keep_bytes and asset_id is not None:
                uploads.append(asset_id)
        if jobs or uploads:
            await self._records.write(*map(records.ended_job_removed, jobs), *map(records.asset_removed, uploads))
        for job_id in jobs:
            if self._on_job_removed is not None:
                self._on_job_removed(job_id)

    async def _collect(self) -> None:
        """Remove the bytes that have no record."""
        async with self._placing:
            kept_hashes = await self._records.hashes() | set(self._held)
            removed = await asyncio.to_thread(self._blobs.keep_only, kept_hashes)
        if removed:
            log.info("assets removed", extra={"action": "assets_removed", "count": removed})

    def _new(self, hash_: str, size_bytes: int, label: AssetLabel) -> Asset:
        now = self._clock()
        return Asset(
            id=str(uuid.uuid4()),
            hash=hash_,
            size_bytes=size_bytes,
            content_type=label.content_type,
            file_path=label.file_path,
            created_at=now,
            expires_at=now + (label.expires_in_s or self._keep_s),
        )

    def _has_expired(self, asset: Asset) -> bool:
        return asset.expires_at is not None and asset.expires_at < self._clock()


def _later(one: float | None, other: float | None) -> float | None:
    # None is for ever.
    return None if one is None or other is None else max(one, other)


def _output_asset(job_id: str, job_file: JobFile, incoming: Incoming | None, now: float) -> Asset:
    """Return the asset of an output; its id is the same when the job runs again after a crash."""
    return Asset(
        id=str(uuid.uuid5(_OUTPUT_IDS, f"{job_id}:{job_file.position}")),
        hash="" if incoming is None else incoming.hash,
        size_bytes=job_file.size_bytes if incoming is None else incoming.size_bytes,
        content_type=job_file.media_type,
        file_path=job_file.name,
        created_at=now,
        job_id=job_id,
        position=job_file.position,
        node_id=job_file.node_id,
        kind=job_file.kind,
        location=job_file.location,
    )

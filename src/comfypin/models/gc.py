"""Collecting: which blobs may go, least recently used first, and how they go without hurting anybody at work."""

import contextlib
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from comfypin.digest import Digest
from comfypin.lock.model import ModelPin
from comfypin.models.errors import TargetRefused
from comfypin.models.store import BlobStore
from comfypin.models.target_paths import Places

# An unfinished file that nobody went on with for so long is given up.
STALE_PARTIAL_S = 7 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobUse:
    """A blob with the releases that name it, when one of them was last used, and the paths that lead to it."""

    digest: Digest
    size_bytes: int
    used_at: float
    releases: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """What was removed (or would be), what was left because somebody works on it, and what remains."""

    removed: tuple[BlobUse, ...]
    busy: tuple[BlobUse, ...]
    kept_bytes: int
    freed_bytes: int


def survey(store: BlobStore) -> list[BlobUse]:
    """Every blob of the store, the least recently used first. A blob of no release counts as used when it was made."""
    releases = store.releases.all()
    found = []
    for digest, path in store.blobs():
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            using = [release for release in releases if digest in release.blobs]
            found.append(
                BlobUse(
                    digest=digest,
                    size_bytes=status.st_size,
                    used_at=max((release.used_at for release in using), default=status.st_mtime),
                    releases=tuple(release.name for release in using),
                    targets=tuple(sorted({target for release in using for target in release.blobs[digest]})),
                )
            )
    return sorted(found, key=lambda blob: (blob.used_at, blob.digest))


def choose(
    blobs: Sequence[BlobUse], *, keep: Collection[str], budget_bytes: int | None, even_kept: bool = False
) -> list[BlobUse]:
    """Which blobs go. Without a budget: all that no kept release names. With one: the least recently used of them until
    the rest fits; what kept releases name goes only with `even_kept`, and after all others.
    """
    spare = [blob for blob in blobs if not set(blob.releases) & set(keep)]
    if budget_bytes is None:
        return spare
    kept = [blob for blob in blobs if set(blob.releases) & set(keep)] if even_kept else []
    total = sum(blob.size_bytes for blob in blobs)
    chosen = []
    for blob in [*spare, *kept]:
        if total <= budget_bytes:
            break
        chosen.append(blob)
        total -= blob.size_bytes
    return chosen


def collect(store: BlobStore, places: Places, chosen: Iterable[BlobUse], *, keep: Collection[str]) -> GcReport:
    """Remove the chosen blobs, the links to them and the copies of them. A blob that somebody works on, or that a kept
    release has come to name since, stays.
    """
    removed, busy, freed_bytes = [], [], 0
    for blob in chosen:
        lease = store.try_lease(blob.digest.hex)
        if lease is None:
            busy.append(blob)
            continue
        with lease:
            now = {release.name for release in store.releases.all() if blob.digest in release.blobs}
            if now & set(keep) - set(blob.releases):
                busy.append(blob)
                continue
            freed_bytes += _remove(store, places, blob)
            removed.append(blob)
    _forget_empty_releases(store, keep)
    store.sweep()
    _drop_stale_partials(store)
    return GcReport(
        removed=tuple(removed),
        busy=tuple(busy),
        freed_bytes=freed_bytes,
        kept_bytes=sum(blob.size_bytes for blob in survey(store)),
    )


def _remove(store: BlobStore, places: Places, blob: BlobUse) -> int:
    """How many bytes that frees."""
    freed_bytes = blob.size_bytes
    for target in blob.targets:
        with contextlib.suppress(TargetRefused, OSError):
            path = places.target(ModelPin(name=target, target_path=target))
            if store.placed(blob.digest, path):
                path.unlink()
            elif store.is_copy(blob.digest, path):
                path.unlink()
                freed_bytes += blob.size_bytes
    store.blob(blob.digest).unlink(missing_ok=True)
    return freed_bytes


def _forget_empty_releases(store: BlobStore, keep: Collection[str]) -> None:
    """A release of which nothing is left needs no record."""
    for release in store.releases.all():
        if release.name not in keep and not any(store.blob(digest).exists() for digest in release.blobs):
            store.releases.forget(release.name)


def _drop_stale_partials(store: BlobStore) -> None:
    for key, changed_at in store.partials():
        if time.time() - changed_at > STALE_PARTIAL_S:
            lease = store.try_lease(key)
            if lease is not None:
                with lease:
                    store.partial(key).discard()

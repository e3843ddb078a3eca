"""Collects garbage: chooses the blobs to remove, least recently used first, without disturbing anybody at work."""

import contextlib
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from comfypin.digest import Digest
from comfypin.lock.model import ModelPin
from comfypin.models.errors import TargetRefused
from comfypin.models.store import BlobStore
from comfypin.models.target_paths import TargetRoots

# An unfinished file that no pull has continued for this long is given up.
STALE_PARTIAL_S = 7 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobUse:
    """A blob with the releases that name it, its last use by one of them, and the paths that lead to it."""

    digest: Digest
    size_bytes: int
    used_at: float
    releases: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """What was removed (or would be), what stayed because somebody uses it, and what remains."""

    removed: tuple[BlobUse, ...]
    busy: tuple[BlobUse, ...]
    kept_bytes: int
    freed_bytes: int


def list_blob_uses(blob_store: BlobStore) -> list[BlobUse]:
    """List every blob of the store, the least recently used first. A blob of no release counts as used when it was
    made.
    """
    releases = blob_store.releases.list_releases()
    blob_uses = []
    for digest, blob_path in blob_store.list_blobs():
        # Another collector may have removed it since it was listed.
        with contextlib.suppress(FileNotFoundError):
            file_status = blob_path.stat()
            using_releases = [release_use for release_use in releases if digest in release_use.blobs]
            blob_uses.append(
                BlobUse(
                    digest=digest,
                    size_bytes=file_status.st_size,
                    used_at=max((release_use.used_at for release_use in using_releases), default=file_status.st_mtime),
                    releases=tuple(release_use.name for release_use in using_releases),
                    targets=tuple(
                        sorted(
                            {target_path for release_use in using_releases for target_path in release_use.blobs[digest]}
                        )
                    ),
                )
            )
    return sorted(blob_uses, key=lambda blob_use: (blob_use.used_at, blob_use.digest))


def choose_blobs(
    blobs: Sequence[BlobUse], *, kept_releases: Collection[str], budget_bytes: int | None, even_kept: bool = False
) -> list[BlobUse]:
    """Choose the blobs to remove. Without a budget: all that no kept release names. With one: the least recently used
    of them until the rest fits; blobs of kept releases go only with `even_kept`, and after all others.
    """
    spare_blobs = [blob for blob in blobs if not set(blob.releases) & set(kept_releases)]
    # Nobody asked for a size, so nothing that a kept release names has to go.
    if budget_bytes is None:
        return spare_blobs
    kept_blobs = [blob for blob in blobs if set(blob.releases) & set(kept_releases)] if even_kept else []
    total_bytes = sum(blob.size_bytes for blob in blobs)
    chosen_blobs = []
    for blob_use in [*spare_blobs, *kept_blobs]:
        if total_bytes <= budget_bytes:
            break
        chosen_blobs.append(blob_use)
        total_bytes -= blob_use.size_bytes
    return chosen_blobs


def collect_garbage(
    blob_store: BlobStore, places: TargetRoots, chosen: Iterable[BlobUse], *, kept_releases: Collection[str]
) -> GcReport:
    """Remove the chosen blobs, the links to them and the copies of them. A blob stays if somebody works on it, if a job
    uses it, or if a kept release has come to name it since.
    """
    removed_blobs, busy_blobs, freed_bytes = [], [], 0
    for blob_use in chosen:
        # A pull that is about to link the blob holds this lease: it must not find the blob gone.
        blob_lease = blob_store.try_lease(blob_use.digest.hex)
        if blob_lease is None:
            busy_blobs.append(blob_use)
            continue
        with blob_lease:
            # A release may have come to name the blob since the choice was made.
            naming_now = {
                release_use.name
                for release_use in blob_store.releases.list_releases()
                if blob_use.digest in release_use.blobs
            }
            if naming_now & set(kept_releases) - set(blob_use.releases) or blob_store.is_used(blob_use.digest):
                busy_blobs.append(blob_use)
                continue
            freed_bytes += _remove_blob(blob_store, places, blob_use)
            removed_blobs.append(blob_use)
    _forget_empty_releases(blob_store, kept_releases)
    # Leftovers of killed pulls are garbage as well, and this is when a user looks at the free space.
    blob_store.sweep_leftovers()
    _drop_stale_partials(blob_store)
    return GcReport(
        removed=tuple(removed_blobs),
        busy=tuple(busy_blobs),
        freed_bytes=freed_bytes,
        kept_bytes=sum(blob.size_bytes for blob in list_blob_uses(blob_store)),
    )


def _remove_blob(blob_store: BlobStore, target_roots: TargetRoots, blob_use: BlobUse) -> int:
    """Remove a blob with its links and copies; return how many bytes that frees."""
    # Links free nothing by themselves; copies do.
    freed_bytes = blob_use.size_bytes
    for target_path in blob_use.targets:
        with contextlib.suppress(TargetRefused, OSError):
            blob_path = target_roots.target_path(ModelPin(name=target_path, target_path=target_path))
            if blob_store.leads_to_blob(blob_use.digest, blob_path):
                blob_path.unlink()
            elif blob_store.is_copy(blob_use.digest, blob_path):
                blob_path.unlink()
                freed_bytes += blob_use.size_bytes
    blob_store.blob_path(blob_use.digest).unlink(missing_ok=True)
    return freed_bytes


def _forget_empty_releases(blob_store: BlobStore, keep: Collection[str]) -> None:
    """Forget releases of which no blob is left."""
    for release_use in blob_store.releases.list_releases():
        if release_use.name not in keep and not any(
            blob_store.blob_path(digest).exists() for digest in release_use.blobs
        ):
            blob_store.releases.forget_release(release_use.name)


def _drop_stale_partials(blob_store: BlobStore) -> None:
    for key, changed_at in blob_store.list_partials():
        if time.time() - changed_at > STALE_PARTIAL_S:
            blob_lease = blob_store.try_lease(key)
            if blob_lease is not None:
                with blob_lease:
                    blob_store.partial_file(key).discard()

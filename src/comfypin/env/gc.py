"""Finds and removes what nobody needs: builds of no kept lock, leftovers of killed runs, and cached files for them.

Plans, then acts.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from comfypin.digest import JsonValue
from comfypin.env.cache.package_cache import remove_package
from comfypin.env.cache.package_gc import LinkCounts, find_unneeded_packages, remove_from_uv
from comfypin.env.cache.source_gc import (
    find_unneeded_archives,
    find_unneeded_commits,
    find_unneeded_notes,
    remove_source,
)
from comfypin.env.install.sources import SourceLocations
from comfypin.env.layout import PACKING_PREFIX, RECEIPT_FILE, TEMPORARY_PREFIX, Home
from comfypin.folder_use import alone_with
from comfypin.lease import Lease, is_dead, lease_holder, try_acquire_lease
from comfypin.lock.codec import env_digest
from comfypin.lock.model import Lock

GarbageKind = Literal["left-over", "env", "package", "download", "commit", "archive", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvGarbage:
    """Describes one thing that would go: its path, its kind, a phrase for people, and how many bytes become free.

    The bytes hold if a list is removed in order: what items share is freed by the last of them.
    `name` is a package's, for a `download` in uv's cache.
    """

    path: Path
    kind: GarbageKind
    what: str
    size_bytes: int
    name: str = ""

    def to_json(self) -> dict[str, JsonValue]:
        return {"path": str(self.path), "kind": self.kind, "what": self.what, "size_bytes": self.size_bytes}


def find_garbage(
    home: Home, kept_locks: Sequence[Lock], locations: SourceLocations, *, with_caches: bool = True
) -> list[EnvGarbage]:
    """Return what can go; changes nothing.

    Those are builds of no kept lock that nobody uses (the current one stays), leftovers of killed runs, and, with
    `with_caches`, cached packages that no kept lock pins and no remaining env shares, and sources of no kept lock.
    """
    needed_digests = {env_digest(lock).hex for lock in kept_locks}
    current_name = home.current_link.readlink().name if home.current_link.is_symlink() else None
    garbage_found, link_counts = [], LinkCounts()
    for folder_path in sorted(home.builds_folder.iterdir()) if home.builds_folder.is_dir() else ():
        if folder_path.name.startswith(TEMPORARY_PREFIX):
            if _is_abandoned(home, folder_path.name) and not _is_used(folder_path):
                freed_bytes = link_counts.count_freed_bytes(folder_path)
                garbage_found.append(
                    EnvGarbage(path=folder_path, kind="left-over", what="left by a killed run", size_bytes=freed_bytes)
                )
        # The first 64 characters of a build's name are its env digest; a target may follow.
        elif (
            folder_path.name != current_name
            and folder_path.name[:64] not in needed_digests
            and not _is_used(folder_path)
        ):
            freed_bytes = link_counts.count_freed_bytes(folder_path)
            garbage_found.append(
                EnvGarbage(path=folder_path, kind="env", what="an env of no kept lock", size_bytes=freed_bytes)
            )
    if not with_caches:
        return garbage_found
    unneeded_packages = find_unneeded_packages(locations, kept_locks, link_counts)
    for folder_path in unneeded_packages.installed:
        freed_bytes = link_counts.count_freed_bytes(folder_path)
        garbage_found.append(
            EnvGarbage(path=folder_path, kind="package", what="a package of no kept lock", size_bytes=freed_bytes)
        )
    for package_name, folders in unneeded_packages.in_uv.items():
        freed_bytes = sum(link_counts.count_freed_bytes(folder) for folder in folders)
        description = f"{package_name}, which uv downloaded for no kept lock"
        garbage_found.append(
            EnvGarbage(
                path=locations.uv_cache, kind="download", what=description, size_bytes=freed_bytes, name=package_name
            )
        )
    return [*garbage_found, *_find_source_garbage(locations, kept_locks, link_counts)]


def _find_source_garbage(
    locations: SourceLocations, kept_locks: Sequence[Lock], link_counts: LinkCounts
) -> Iterator[EnvGarbage]:
    source_groups: tuple[tuple[GarbageKind, str, Sequence[Path]], ...] = (
        ("commit", "a commit of no kept lock", find_unneeded_commits(locations, kept_locks)),
        ("archive", "a node's archive of no kept lock", find_unneeded_archives(locations, kept_locks)),
        ("note", "the note that an env of no kept lock has started", find_unneeded_notes(locations, kept_locks)),
    )
    for garbage_kind, description, source_paths in source_groups:
        for source_path in source_paths:
            freed_bytes = (
                link_counts.count_freed_bytes(source_path) if source_path.is_dir() else source_path.stat().st_size
            )
            yield EnvGarbage(path=source_path, kind=garbage_kind, what=description, size_bytes=freed_bytes)


def collect_garbage(home: Home, garbage: Iterable[EnvGarbage], locations: SourceLocations) -> int:
    """Remove what was found and return how many bytes that freed; a build in use is left."""
    freed_bytes = 0
    downloads = []
    for garbage_item in garbage:
        if garbage_item.kind == "env" and not _remove_build(home, garbage_item.path):
            continue
        # A temporary folder has no receipt and no lease to take.
        if garbage_item.kind == "left-over":
            shutil.rmtree(garbage_item.path, ignore_errors=True)
        elif garbage_item.kind == "package":
            remove_package(garbage_item.path)
        elif garbage_item.kind == "download":
            downloads.append(garbage_item.name)
        elif garbage_item.kind in {"commit", "archive", "note"}:
            remove_source(garbage_item.path)
        freed_bytes += garbage_item.size_bytes
    if downloads:
        remove_from_uv(locations, downloads)
    return freed_bytes


def _remove_build(home: Home, build_folder: Path) -> bool:
    held_lease = try_acquire_lease(home.lease_path(build_folder.name), purpose="remove an env")
    if not isinstance(held_lease, Lease):
        return False
    with held_lease, alone_with(build_folder) as is_alone:
        # Others may have made it the current one since it was found to be garbage.
        if not is_alone or (home.current_link.is_symlink() and home.current_link.readlink().name == build_folder.name):
            return False
        # The receipt goes first: if we are killed after that, the rest is not mistaken for a complete env.
        (build_folder / RECEIPT_FILE).unlink(missing_ok=True)
        shutil.rmtree(build_folder, ignore_errors=True)
    return True


def _is_used(folder: Path) -> bool:
    """Return whether an engine runs from the folder."""
    with alone_with(folder) as is_alone:
        return not is_alone


def _is_abandoned(home: Home, folder_name: str) -> bool:
    """Return whether the run that made a temporary folder is over: it died here, or nobody holds its key's lease."""
    build_key, _, process_name = folder_name.removeprefix(TEMPORARY_PREFIX).partition("@")
    # Packing takes no lease, so the process alone decides.
    if folder_name.startswith(PACKING_PREFIX):
        return is_dead(process_name)
    return is_dead(process_name) or lease_holder(home.lease_path(build_key)) is None

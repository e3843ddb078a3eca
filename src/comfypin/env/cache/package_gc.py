"""Finds packages in the caches that no kept lock pins and no env shares any more, and removes them.

An env keeps its files whatever goes here. A package goes from the cache of installed ones and from uv's own, or its
bytes would stay. uv's cache is ours only if UV_CACHE_DIR does not name another. uv can only remove a name as a whole,
so a name stays if removing it would cost a kept lock a download.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.env.cache.package_cache import list_cached_folders, package_key
from comfypin.env.install.sources import SourceLocations
from comfypin.env.package_selection import normalize_name, platform_for_python
from comfypin.lock.model import Lock
from comfypin.tools.uv import run_uv

# Device and inode.
Inode = tuple[int, int]


@dataclass
class LinkCounts:
    """Counts the names that each file still has as folders go one by one: its bytes are free with the last."""

    remaining: dict[Inode, int] = field(default_factory=dict)

    def count_freed_bytes(self, candidate_folder: Path) -> int:
        """Take a folder's names away, and say how many bytes that frees."""
        freed_bytes = 0
        # By inode, because a hard link frees nothing as long as another name exists.
        for file_status in _walk_files(candidate_folder):
            inode_key = (file_status.st_dev, file_status.st_ino)
            self.remaining[inode_key] = self.remaining.get(inode_key, file_status.st_nlink) - 1
            freed_bytes += file_status.st_size if self.remaining[inode_key] <= 0 else 0
        return freed_bytes

    def has_other_links(self, candidate_folder: Path, going_links: Mapping[Inode, int]) -> bool:
        """Return whether a file of the folder has more names than those that are going."""
        return any(
            self.remaining.get(inode_key := (file_status.st_dev, file_status.st_ino), file_status.st_nlink)
            > going_links[inode_key]
            for file_status in _walk_files(candidate_folder)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnneededPackages:
    """Holds what can go from the caches: folders of installed packages, and names in uv's cache with their folders."""

    installed: tuple[Path, ...]
    in_uv: Mapping[str, tuple[Path, ...]]


def find_unneeded_packages(
    locations: SourceLocations, kept_locks: Sequence[Lock], link_counts: LinkCounts
) -> UnneededPackages:
    """Look through the caches; `link_counts` knows what goes beside. Changes nothing."""
    folders = list_cached_folders(locations.package_cache)
    needed_pins = {
        package_key(package_pin, platform_for_python(str(kept_lock.python.version))): package_pin
        for kept_lock in kept_locks
        for package_pin in kept_lock.python.packages
    }
    candidates = [package_folder for package_folder in folders if package_folder.name not in needed_pins]
    # What a kept lock pins and is not among the installed ones would have to be downloaded again.
    kept_names = {package_folder.name for package_folder in folders}
    uv_archives = _list_uv_archives(
        locations,
        {normalize_name(package_pin.name) for key, package_pin in needed_pins.items() if key not in kept_names},
    )
    going_links: Counter[Inode] = Counter()
    for candidate_folder in (
        *candidates,
        *(candidate_folder for folders in uv_archives.values() for candidate_folder in folders),
    ):
        going_links.update((file_status.st_dev, file_status.st_ino) for file_status in _walk_files(candidate_folder))
    return UnneededPackages(
        installed=tuple(
            candidate_folder
            for candidate_folder in candidates
            if not link_counts.has_other_links(candidate_folder, going_links)
        ),
        in_uv={
            package_name: folders
            for package_name, folders in uv_archives.items()
            if not all(link_counts.has_other_links(candidate_folder, going_links) for candidate_folder in folders)
        },
    )


def remove_from_uv(locations: SourceLocations, package_names: Iterable[str]) -> None:
    """Take names out of uv's cache; uv itself waits for others that use it."""
    run_uv(["cache", "clean", "--quiet", *package_names], cache=locations.uv_cache)


def _list_uv_archives(locations: SourceLocations, staying_names: Collection[str]) -> dict[str, tuple[Path, ...]]:
    """Return the wheels that are unpacked in uv's cache by normalized name, without those that stay."""
    if locations.named_uv_cache is not None:
        return {}
    archives_by_name: dict[str, tuple[Path, ...]] = {}
    for dist_info in sorted((locations.uv_cache / "archive-v0").glob("*/*.dist-info")):
        package_name = normalize_name(dist_info.name.removesuffix(".dist-info").rpartition("-")[0])
        if package_name not in staying_names:
            archives_by_name[package_name] = (*archives_by_name.get(package_name, ()), dist_info.parent)
    return archives_by_name


def _walk_files(candidate_folder: Path) -> Iterator[os.stat_result]:
    for parent_folder, _, file_names in os.walk(candidate_folder):
        for file_name in file_names:
            with contextlib.suppress(FileNotFoundError):
                yield Path(parent_folder, file_name).lstat()

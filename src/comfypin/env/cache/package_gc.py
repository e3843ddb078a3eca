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

    def count_freed_bytes(self, folder: Path) -> int:
        """Take a folder's names away, and say how many bytes that frees."""
        freed = 0
        # By inode, because a hard link frees nothing as long as another name exists.
        for status in _walk_files(folder):
            inode = (status.st_dev, status.st_ino)
            self.remaining[inode] = self.remaining.get(inode, status.st_nlink) - 1
            freed += status.st_size if self.remaining[inode] <= 0 else 0
        return freed

    def has_other_links(self, folder: Path, going: Mapping[Inode, int]) -> bool:
        """Return whether a file of the folder has more names than those that are going."""
        return any(
            self.remaining.get(inode := (status.st_dev, status.st_ino), status.st_nlink) > going[inode]
            for status in _walk_files(folder)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnneededPackages:
    """Holds what can go from the caches: folders of installed packages, and names in uv's cache with their folders."""

    installed: tuple[Path, ...]
    in_uv: Mapping[str, tuple[Path, ...]]


def find_unneeded_packages(places: SourceLocations, kept: Sequence[Lock], links: LinkCounts) -> UnneededPackages:
    """Look through the caches; `links` knows what goes beside. Changes nothing."""
    folders = list_cached_folders(places.package_cache)
    needed = {
        package_key(pin, platform_for_python(str(lock.python.version))): pin
        for lock in kept
        for pin in lock.python.packages
    }
    candidates = [path for path in folders if path.name not in needed]
    # What a kept lock pins and is not among the installed ones would have to be downloaded again.
    there = {path.name for path in folders}
    archives = _list_uv_archives(places, {normalize_name(pin.name) for key, pin in needed.items() if key not in there})
    going: Counter[Inode] = Counter()
    for folder in (*candidates, *(folder for folders in archives.values() for folder in folders)):
        going.update((status.st_dev, status.st_ino) for status in _walk_files(folder))
    return UnneededPackages(
        installed=tuple(folder for folder in candidates if not links.has_other_links(folder, going)),
        in_uv={
            name: folders
            for name, folders in archives.items()
            if not all(links.has_other_links(folder, going) for folder in folders)
        },
    )


def remove_from_uv(places: SourceLocations, names: Iterable[str]) -> None:
    """Take names out of uv's cache; uv itself waits for others that use it."""
    run_uv(["cache", "clean", "--quiet", *names], cache=places.uv_cache)


def _list_uv_archives(places: SourceLocations, staying: Collection[str]) -> dict[str, tuple[Path, ...]]:
    """Return the wheels that are unpacked in uv's cache by normalized name, without those that stay."""
    if places.named_uv_cache is not None:
        return {}
    found: dict[str, tuple[Path, ...]] = {}
    for info in sorted((places.uv_cache / "archive-v0").glob("*/*.dist-info")):
        name = normalize_name(info.name.removesuffix(".dist-info").rpartition("-")[0])
        if name not in staying:
            found[name] = (*found.get(name, ()), info.parent)
    return found


def _walk_files(folder: Path) -> Iterator[os.stat_result]:
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield Path(parent, name).lstat()

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
from comfypin.lease import Lease, holder_of, is_dead, try_acquire
from comfypin.lock.codec import env_digest
from comfypin.lock.model import Lock

GarbageKind = Literal["left-over", "env", "package", "download", "commit", "archive", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvGarbage:
    """Describes one thing that would go: its path, its kind, a phrase for people, and how many bytes become free.

    The bytes hold in the order of a list: what goes later frees what it shares. `name` is a package's, for a `download`
    in uv's cache.
    """

    path: Path
    kind: GarbageKind
    what: str
    size_bytes: int
    name: str = ""

    def to_json(self) -> dict[str, JsonValue]:
        return {"path": str(self.path), "kind": self.kind, "what": self.what, "size_bytes": self.size_bytes}


def find_garbage(home: Home, kept: Sequence[Lock], places: SourceLocations) -> list[EnvGarbage]:
    """Return what can go; changes nothing.

    Those are builds of no kept lock (the current one stays), leftovers of killed runs, cached packages that no kept
    lock pins and no remaining env shares, and sources of no kept lock.
    """
    needed = {env_digest(lock).hex for lock in kept}
    current = home.current_link.readlink().name if home.current_link.is_symlink() else None
    found, links = [], LinkCounts()
    for path in sorted(home.builds_folder.iterdir()) if home.builds_folder.is_dir() else ():
        if path.name.startswith(TEMPORARY_PREFIX):
            if _is_abandoned(home, path.name):
                freed = links.count_freed_bytes(path)
                found.append(EnvGarbage(path=path, kind="left-over", what="left by a killed run", size_bytes=freed))
        # The first 64 characters of a build's name are its env digest; a target may follow.
        elif path.name != current and path.name[:64] not in needed:
            freed = links.count_freed_bytes(path)
            found.append(EnvGarbage(path=path, kind="env", what="an env of no kept lock", size_bytes=freed))
    unneeded = find_unneeded_packages(places, kept, links)
    for path in unneeded.installed:
        freed = links.count_freed_bytes(path)
        found.append(EnvGarbage(path=path, kind="package", what="a package of no kept lock", size_bytes=freed))
    for name, folders in unneeded.in_uv.items():
        freed = sum(links.count_freed_bytes(folder) for folder in folders)
        what = f"{name}, which uv downloaded for no kept lock"
        found.append(EnvGarbage(path=places.uv_cache, kind="download", what=what, size_bytes=freed, name=name))
    return [*found, *_find_source_garbage(places, kept, links)]


def _find_source_garbage(places: SourceLocations, kept: Sequence[Lock], links: LinkCounts) -> Iterator[EnvGarbage]:
    groups: tuple[tuple[GarbageKind, str, Sequence[Path]], ...] = (
        ("commit", "a commit of no kept lock", find_unneeded_commits(places, kept)),
        ("archive", "a node's archive of no kept lock", find_unneeded_archives(places, kept)),
        ("note", "the note that an env of no kept lock has started", find_unneeded_notes(places, kept)),
    )
    for kind, what, paths in groups:
        for path in paths:
            freed = links.count_freed_bytes(path) if path.is_dir() else path.stat().st_size
            yield EnvGarbage(path=path, kind=kind, what=what, size_bytes=freed)


def collect_garbage(home: Home, garbage: Iterable[EnvGarbage], places: SourceLocations) -> int:
    """Remove what was found, and say how many bytes went; a build that somebody works on now is left."""
    freed = 0
    downloads = []
    for item in garbage:
        if item.kind == "env" and not _remove_build(home, item.path):
            continue
        # A temporary folder has no receipt and no lease to take.
        if item.kind == "left-over":
            shutil.rmtree(item.path, ignore_errors=True)
        elif item.kind == "package":
            remove_package(item.path)
        elif item.kind == "download":
            downloads.append(item.name)
        elif item.kind in {"commit", "archive", "note"}:
            remove_source(item.path)
        freed += item.size_bytes
    if downloads:
        remove_from_uv(places, downloads)
    return freed


def _remove_build(home: Home, build: Path) -> bool:
    held = try_acquire(home.lease_path(build.name), purpose="remove an env")
    if not isinstance(held, Lease):
        return False
    with held:
        # The receipt goes first: killed here, what is left is not taken for whole.
        (build / RECEIPT_FILE).unlink(missing_ok=True)
        shutil.rmtree(build, ignore_errors=True)
    return True


def _is_abandoned(home: Home, name: str) -> bool:
    """Return whether the run that made a temporary folder is over: it died here, or nobody holds its key's lease."""
    key, _, token = name.removeprefix(TEMPORARY_PREFIX).partition("@")
    # Packing takes no lease, so the process alone decides.
    if name.startswith(PACKING_PREFIX):
        return is_dead(token)
    return is_dead(token) or holder_of(home.lease_path(key)) is None

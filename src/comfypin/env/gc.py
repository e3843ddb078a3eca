"""What nobody needs any more: builds that no kept lock means, what killed runs left, and what the caches keep for them.

Plans, then acts.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from comfypin.digest import JsonValue
from comfypin.env.cache.package_cache import remove_folder
from comfypin.env.cache.package_gc import Links, find_unneeded, remove_from_uv
from comfypin.env.cache.source_gc import remove_source, unneeded_archives, unneeded_commits, unneeded_notes
from comfypin.env.install.sources import SourcePlaces
from comfypin.env.layout import PACKING, RECEIPT, TEMPORARY, Home
from comfypin.lease import Lease, is_dead, lease_holder, try_acquire_lease
from comfypin.lock.codec import env_digest
from comfypin.lock.model import Lock

Kind = Literal["left-over", "env", "package", "download", "commit", "archive", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """One thing that would go: where it is, what it is, and how many bytes that frees, in the order of a list of them.

    `name` is that of a package, for a `download` in uv's cache.
    """

    path: Path
    kind: Kind
    what: str
    size_bytes: int
    name: str = ""

    def to_json(self) -> dict[str, JsonValue]:
        return {"path": str(self.path), "kind": self.kind, "what": self.what, "size_bytes": self.size_bytes}


def find_garbage(home: Home, kept: Sequence[Lock], places: SourcePlaces) -> list[Garbage]:
    """Builds that neither a kept lock nor the link `current` means, what unfinished runs left, cached packages that
    neither a kept lock pins nor a remaining env shares, and sources of no kept lock. Changes nothing.
    """
    needed = {env_digest(lock).hex for lock in kept}
    current = home.current.readlink().name if home.current.is_symlink() else None
    found, links = [], Links()
    for path in sorted(home.builds.iterdir()) if home.builds.is_dir() else ():
        if path.name.startswith(TEMPORARY):
            if _abandoned(home, path.name):
                freed = links.freed_by(path)
                found.append(Garbage(path=path, kind="left-over", what="left by a killed run", size_bytes=freed))
        elif path.name != current and path.name[:64] not in needed:
            freed = links.freed_by(path)
            found.append(Garbage(path=path, kind="env", what="an env of no kept lock", size_bytes=freed))
    unneeded = find_unneeded(places, kept, links)
    for path in unneeded.installed:
        freed = links.freed_by(path)
        found.append(Garbage(path=path, kind="package", what="a package of no kept lock", size_bytes=freed))
    for name, folders in unneeded.in_uv.items():
        freed = sum(links.freed_by(folder) for folder in folders)
        what = f"{name}, which uv downloaded for no kept lock"
        found.append(Garbage(path=places.uv_cache, kind="download", what=what, size_bytes=freed, name=name))
    return [*found, *_sources(places, kept, links)]


def _sources(places: SourcePlaces, kept: Sequence[Lock], links: Links) -> Iterator[Garbage]:
    groups: tuple[tuple[Kind, str, Sequence[Path]], ...] = (
        ("commit", "a commit of no kept lock", unneeded_commits(places, kept)),
        ("archive", "a node's archive of no kept lock", unneeded_archives(places, kept)),
        ("note", "the note that an env of no kept lock has started", unneeded_notes(places, kept)),
    )
    for kind, what, paths in groups:
        for path in paths:
            freed = links.freed_by(path) if path.is_dir() else path.stat().st_size
            yield Garbage(path=path, kind=kind, what=what, size_bytes=freed)


def collect(home: Home, garbage: Iterable[Garbage], places: SourcePlaces) -> int:
    """Remove what was found, and say how many bytes went; a build that somebody works on now is left."""
    freed = 0
    downloads = []
    for item in garbage:
        if item.kind == "env" and not _remove_build(home, item.path):
            continue
        if item.kind == "left-over":
            shutil.rmtree(item.path, ignore_errors=True)
        elif item.kind == "package":
            remove_folder(item.path)
        elif item.kind == "download":
            downloads.append(item.name)
        elif item.kind in {"commit", "archive", "note"}:
            remove_source(item.path)
        freed += item.size_bytes
    if downloads:
        remove_from_uv(places, downloads)
    return freed


def _remove_build(home: Home, build: Path) -> bool:
    held = try_acquire_lease(home.lease(build.name), purpose="remove an env")
    if not isinstance(held, Lease):
        return False
    with held:
        # The receipt goes first: killed here, what is left is not taken for whole.
        (build / RECEIPT).unlink(missing_ok=True)
        shutil.rmtree(build, ignore_errors=True)
    return True


def _abandoned(home: Home, name: str) -> bool:
    """Whether the run that made a temporary folder is over: it died here, or nobody holds the lease of its key."""
    key, _, token = name.removeprefix(TEMPORARY).partition("@")
    if name.startswith(PACKING):
        return is_dead(token)
    return is_dead(token) or lease_holder(home.lease(key)) is None

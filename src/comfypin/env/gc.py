"""What of a home nobody needs any more: builds that no kept lock means, and what killed runs left. Plans, then acts."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from comfypin.digest import JsonValue
from comfypin.env.layout import RECEIPT, TEMPORARY, Home
from comfypin.lease import Lease, holder_of, is_dead, try_acquire
from comfypin.lock.codec import env_digest
from comfypin.lock.model import Lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """One thing that would go: where it is, what it is, and its size in bytes."""

    path: Path
    what: str
    size_bytes: int

    def to_json(self) -> dict[str, JsonValue]:
        return {"path": str(self.path), "what": self.what, "size_bytes": self.size_bytes}


def find_garbage(home: Home, kept: Iterable[Lock]) -> list[Garbage]:
    """Builds that neither a kept lock nor the link `current` means, and what unfinished runs left. Changes nothing."""
    needed = {env_digest(lock).hex for lock in kept}
    current = home.current.readlink().name if home.current.is_symlink() else None
    found = []
    for path in sorted(home.builds.iterdir()) if home.builds.is_dir() else ():
        if path.name.startswith(TEMPORARY):
            if _abandoned(home, path.name):
                found.append(Garbage(path=path, what="left by a run that was killed", size_bytes=_size(path)))
        elif path.name != current and path.name[:64] not in needed:
            found.append(Garbage(path=path, what="an env of no kept lock", size_bytes=_size(path)))
    return found


def collect(home: Home, garbage: Iterable[Garbage]) -> int:
    """Remove what was found, and say how many bytes went; a build that somebody works on now is left."""
    freed = 0
    for item in garbage:
        key = item.path.name
        if key.startswith(TEMPORARY):
            shutil.rmtree(item.path, ignore_errors=True)
            freed += item.size_bytes
            continue
        held = try_acquire(home.lease(key), purpose="remove an env")
        if isinstance(held, Lease):
            with held:
                # The receipt goes first: killed here, what is left is not taken for whole.
                (item.path / RECEIPT).unlink(missing_ok=True)
                shutil.rmtree(item.path, ignore_errors=True)
            freed += item.size_bytes
    return freed


def _abandoned(home: Home, name: str) -> bool:
    """Whether the run that made a temporary build is over: it died here, or nobody holds a lease of its key."""
    key, _, token = name.removeprefix(TEMPORARY).partition("@")
    return is_dead(token) or holder_of(home.lease(key)) is None


def _size(folder: Path) -> int:
    """What removing the folder frees: files that a cache or another env shares stay, and count nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            status = Path(parent, name).lstat()
            total += status.st_size if status.st_nlink == 1 else 0
    return total

"""Which releases use which blobs, and when last: one small file a release in the store, whose mtime is the last use."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from comfypin.digest import Digest, canonical_json
from comfypin.models.temp_files import Scratch


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseUse:
    """A release's name, when it was last used (seconds since 1970), and its blobs with the paths that lead to them."""

    name: str
    used_at: float
    blobs: dict[Digest, tuple[str, ...]]


class Releases:
    """The records below `<store>/releases`."""

    def __init__(self, folder: Path, scratch: Scratch) -> None:
        self._folder = folder
        self._scratch = scratch

    def record(self, name: str, blobs: dict[Digest, tuple[str, ...]]) -> None:
        """Say that a release uses these blobs, now."""
        path = self._path(name)
        data = release_record(name, blobs)
        try:
            if path.read_bytes() == data:
                os.utime(path)
                return
        except OSError:
            pass
        self._scratch.write(path, data)

    def all(self) -> list[ReleaseUse]:
        """Every release on record; records that cannot be read are left out."""
        found = []
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []:
            try:
                value = json.loads(path.read_bytes())
                blobs = {Digest(key): tuple(map(str, paths)) for key, paths in value["blobs"].items()}
                found.append(ReleaseUse(name=str(value["name"]), used_at=path.stat().st_mtime, blobs=blobs))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
        return found

    def forget(self, name: str) -> None:
        """Remove a release's record."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / record_name(name)


def release_record(name: str, blobs: Mapping[Digest, Sequence[str]]) -> bytes:
    """The bytes of a release's record."""
    return canonical_json(
        {"name": name, "blobs": {digest.hex: sorted(paths) for digest, paths in sorted(blobs.items())}}
    )


def record_name(name: str) -> str:
    """The file name of a release's record."""
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)[:80]
    return f"{safe}.{Digest.of(name.encode()).hex[:8]}.json"

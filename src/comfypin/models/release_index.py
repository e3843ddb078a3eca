"""Records which releases use which blobs, and when last: one small file per release, whose mtime is the last use."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from comfypin.digest import Digest, canonical_json
from comfypin.models.temp_files import TempFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseUse:
    """A release's name, when it was last used (seconds since 1970), and its blobs with the paths that lead to them."""

    name: str
    used_at: float
    blobs: dict[Digest, tuple[str, ...]]


class ReleaseIndex:
    """The records below `<store>/releases`."""

    def __init__(self, folder: Path, scratch: TempFiles) -> None:
        self._folder = folder
        self._scratch = scratch

    def record_release(self, release_name: str, blobs: dict[Digest, tuple[str, ...]]) -> None:
        """Record that a release uses these blobs now."""
        record_path = self._record_path(release_name)
        record_bytes = encode_release(release_name, blobs)
        try:
            if record_path.read_bytes() == record_bytes:
                # The mtime is the last use; rewriting equal bytes would only wear the volume.
                os.utime(record_path)
                return
        except OSError:
            pass
        self._scratch.write_file(record_path, record_bytes)

    def list_releases(self) -> list[ReleaseUse]:
        """Return every release on record; unreadable records are left out."""
        release_uses = []
        for record_path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []:
            try:
                record_json = json.loads(record_path.read_bytes())
                blobs = {
                    Digest(digest_hex): tuple(map(str, target_paths))
                    for digest_hex, target_paths in record_json["blobs"].items()
                }
                release_uses.append(
                    ReleaseUse(name=str(record_json["name"]), used_at=record_path.stat().st_mtime, blobs=blobs)
                )
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
        return release_uses

    def forget_release(self, release_name: str) -> None:
        """Remove a release's record."""
        self._record_path(release_name).unlink(missing_ok=True)

    def _record_path(self, release_name: str) -> Path:
        return self._folder / record_file_name(release_name)


def encode_release(release_name: str, blobs: Mapping[Digest, Sequence[str]]) -> bytes:
    """Return the bytes of a release's record."""
    return canonical_json(
        {
            "name": release_name,
            "blobs": {digest.hex: sorted(target_paths) for digest, target_paths in sorted(blobs.items())},
        }
    )


def record_file_name(release_name: str) -> str:
    """Return the file name of a release's record."""
    # Names are for people who look into the folder; the digest keeps similar ones apart.
    safe_name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in release_name)[:80]
    return f"{safe_name}.{Digest.of(release_name.encode()).hex[:8]}.json"

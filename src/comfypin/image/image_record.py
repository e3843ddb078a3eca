"""What is written beside a lock when its image was pushed: where the image is, by digest, and what is in it."""

import json
from dataclasses import dataclass
from pathlib import Path

from comfypin.atomic_files import write_atomically
from comfypin.digest import JsonValue
from comfypin.lock.export import export_lock
from comfypin.lock.model import Lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """An image on a registry, and the lock it was built from."""

    reference: str
    digest: str
    release: str
    lock: str

    @property
    def by_digest(self) -> str:
        """The reference that always means these bytes: `ghcr.io/you/wan22@sha256:...`."""
        name, colon, tag = self.reference.rpartition(":")
        return f"{name if colon and '/' not in tag else self.reference}@{self.digest}"

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "image": self.by_digest,
            "reference": self.reference,
            "digest": self.digest,
            "release": self.release,
            "lock": self.lock,
        }


def record_beside(lock_path: Path, pushed: Pushed, lock: Lock) -> tuple[Path, Path]:
    """Write `comfy-<name>.image.json` and the CycloneDX list beside a lock; the files."""
    stem = lock_path.name.removesuffix(".json").removesuffix(".lock")
    image, contents = lock_path.with_name(f"{stem}.image.json"), lock_path.with_name(f"{stem}.cdx.json")
    write_atomically(image, (json.dumps(pushed.to_json(), indent=2, sort_keys=True) + "\n").encode())
    write_atomically(contents, export_lock(lock, "cyclonedx").encode())
    return image, contents

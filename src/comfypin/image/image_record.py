"""Writes a record beside a lock after its image was pushed: the image's reference by digest, and its contents."""

import json
from dataclasses import dataclass
from pathlib import Path

from comfypin.atomic_files import write_atomically
from comfypin.digest import JsonValue
from comfypin.image.errors import ContentsMissing
from comfypin.image.interface import ContainerBuilder


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedImage:
    """Describes an image on a registry, and the lock it was built from."""

    reference: str
    digest: str
    release: str
    lock: str

    @property
    def digest_reference(self) -> str:
        """Return the reference that always means these bytes: `ghcr.io/you/wan22@sha256:...`."""
        repository_name, colon, image_tag = self.reference.rpartition(":")
        return f"{repository_name if colon and '/' not in image_tag else self.reference}@{self.digest}"

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "image": self.digest_reference,
            "reference": self.reference,
            "digest": self.digest,
            "release": self.release,
            "lock": self.lock,
        }


def write_image_record(lock_path: Path, pushed_image: PushedImage, contents: bytes) -> tuple[Path, Path]:
    """Write `comfy-<name>.image.json` and the image's CycloneDX list beside a lock; return both paths."""
    # `comfy-x.lock.json` gives `comfy-x`.
    lock_stem = lock_path.name.removesuffix(".json").removesuffix(".lock")
    record_path, contents_path = (
        lock_path.with_name(f"{lock_stem}.image.json"),
        lock_path.with_name(f"{lock_stem}.cdx.json"),
    )
    write_atomically(record_path, (json.dumps(pushed_image.to_json(), indent=2, sort_keys=True) + "\n").encode())
    # The same bytes as in the image, so that the two can be compared.
    write_atomically(contents_path, contents)
    return record_path, contents_path


def read_contents(builder: ContainerBuilder, image_tag: str, release: str) -> bytes:
    """Return the CycloneDX list that an image holds. Raises `NoSuchImage`, `ContentsMissing`."""
    contents_path = f"/app/sbom/comfy-{release}.cdx.json"
    contents = builder.read_file(image_tag, contents_path)
    if contents is None:
        raise ContentsMissing(tag=image_tag, path=contents_path)
    return contents

"""Where env packs are kept: a folder, a volume or a bucket, each pack by a name that is its content's address."""

from pathlib import Path
from typing import Protocol

from comfypin.env.receipt import Receipt


class Shelf(Protocol):
    """Keeps env packs."""

    def find(self, name: str) -> str | None:
        """The address of the pack of this name, or None. Raises `StorageError`."""

    def unpack(self, name: str, folder: Path, *, key: str) -> Receipt:
        """Unpack into an empty folder, verified; the receipt it carries, not written. Raises `PackDamaged`."""

    def publish(self, build: Path, name: str) -> str:
        """Pack a build and store it, unless it is there; its address. Raises `StorageError`."""

"""Where env packs are kept: a folder, a volume or a bucket, each pack under a name made of what is in it."""

import errno
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from comfypin.digest import Digest
from comfypin.env.errors import DiskFull
from comfypin.env.layout import packing_folder
from comfypin.env.pack.unpack import open_pack, unpack_pack
from comfypin.env.pack.write import write_pack
from comfypin.env.receipt import Receipt
from comfypin.storage.interface import ObjectStore, Payload

# A bucket answers a range in tens of milliseconds; several readers hide that.
BUCKET_READERS = 12


class PackStore(Protocol):
    """Keeps env packs."""

    def find_pack(self, name: str) -> str | None:
        """Return the address of the pack of this name, or None. Raises `StorageError`."""

    def unpack_env(self, name: str, folder: Path, *, key: str) -> Receipt:
        """Unpack into an empty folder and verify; return the pack's receipt, which is not written.

        Raises `PackDamaged`, `PackUnfit`, `NoRoomForEnv`, `StorageError`.
        """

    def publish_env(self, build: Path, name: str, *, replace: bool = False) -> str:
        """Pack a build and store it unless it is stored already; return its address.

        Raises `StorageError`, `BuildChanged`, `DiskFull`.
        """


@dataclass(frozen=True, slots=True)
class FolderPackStore:
    """Packs as files of a folder, which may be on a volume that others use too."""

    root: Path

    def find_pack(self, name: str) -> str | None:
        path = self.root / name
        return str(path) if path.is_file() else None

    def unpack_env(self, name: str, folder: Path, *, key: str) -> Receipt:
        with open_pack(self.root / name) as source:
            return unpack_pack(source, folder, key=key)

    def publish_env(self, build: Path, name: str, *, replace: bool = False) -> str:
        path = self.root / name
        if replace or not path.is_file():
            # Written beside its place and renamed: of two that publish at once, both succeed with a whole pack.
            try:
                write_pack(build, path)
            except OSError as exc:
                if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
                    raise DiskFull(where=self.root) from exc  # not the home's disk, where the env is complete
                raise
        return str(path)


@dataclass(frozen=True, slots=True)
class _BucketPack:
    """Reads a pack in a bucket by ranges."""

    store: ObjectStore
    key: str
    where: str
    size_bytes: int
    readers: int = BUCKET_READERS

    def read(self, offset: int, size: int) -> bytes:
        parts, left = [], size
        chunks = self.store.read(self.key, offset=offset)
        for chunk in chunks:
            # A store may send more than was asked for.
            parts.append(chunk[:left])
            left -= len(parts[-1])
            if left <= 0:
                break
        if isinstance(chunks, Generator):
            chunks.close()  # the connection is given back now, not when memory is tidied up
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class BucketPackStore:
    """Packs as objects of a bucket."""

    store: ObjectStore

    def find_pack(self, name: str) -> str | None:
        found = self.store.head(name)
        return found.uri if found else None

    def unpack_env(self, name: str, folder: Path, *, key: str) -> Receipt:
        found = self.store.head(name)
        size = found.size_bytes if found else 0
        return unpack_pack(_BucketPack(self.store, name, found.uri if found else name, size), folder, key=key)

    def publish_env(self, build: Path, name: str, *, replace: bool = False) -> str:
        found = None if replace else self.store.head(name)
        if found is not None:
            return found.uri
        with packing_folder(build) as scratch:
            # Packed to a file first: an upload needs its size and digest before the first byte.
            path = scratch / "pack"
            write_pack(build, path)
            payload = Payload(path=path, size_bytes=path.stat().st_size, sha256=Digest.of_file(path))
            return self.store.put(name, payload).uri

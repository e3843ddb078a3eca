"""Where env packs are kept: a folder, a volume or a bucket, each pack under a name made of what is in it."""

import errno
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from comfypin.digest import Digest
from comfypin.env.errors import DiskFull
from comfypin.env.layout import packing_folder
from comfypin.env.pack.progress import ByteCounter, ByteReport, ignore_bytes
from comfypin.env.pack.unpack import open_pack, unpack_pack
from comfypin.env.pack.write import write_pack
from comfypin.env.receipt import Receipt
from comfypin.storage.interface import ObjectStore, Payload

# A bucket answers a range in tens of milliseconds; several readers hide that.
BUCKET_READERS = 12


class PackStore(Protocol):
    """Keeps env packs."""

    def find_pack(self, pack_name: str) -> str | None:
        """Return the address of the pack of this name, or None. Raises `StorageError`."""

    def unpack_env(
        self, pack_name: str, target_folder: Path, *, key: str, report_bytes: ByteReport = ignore_bytes
    ) -> Receipt:
        """Unpack into an empty folder and verify; return the pack's receipt, which is not written.

        Raises `PackDamaged`, `PackUnfit`, `NoRoomForEnv`, `StorageError`.
        """

    def publish_env(
        self, build_folder: Path, pack_name: str, *, replace: bool = False, report_bytes: ByteReport = ignore_bytes
    ) -> str:
        """Pack a build and store it unless it is stored already; return its address.

        Raises `StorageError`, `BuildChanged`, `DiskFull`.
        """


@dataclass(frozen=True, slots=True)
class FolderPackStore:
    """Packs as files of a folder, which may be on a volume that others use too."""

    root: Path

    def find_pack(self, pack_name: str) -> str | None:
        pack_path = self.root / pack_name
        return str(pack_path) if pack_path.is_file() else None

    def unpack_env(
        self, pack_name: str, target_folder: Path, *, key: str, report_bytes: ByteReport = ignore_bytes
    ) -> Receipt:
        with open_pack(self.root / pack_name) as pack_source:
            return unpack_pack(pack_source, target_folder, key=key, report_bytes=report_bytes)

    def publish_env(
        self, build_folder: Path, pack_name: str, *, replace: bool = False, report_bytes: ByteReport = ignore_bytes
    ) -> str:
        pack_path = self.root / pack_name
        if replace or not pack_path.is_file():
            # Written beside its place and renamed: of two that publish at once, both succeed with a whole pack.
            try:
                write_pack(build_folder, pack_path, report_bytes=report_bytes)
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    raise DiskFull(where=self.root) from error  # not the home's disk, where the env is complete
                raise
        return str(pack_path)


@dataclass(frozen=True, slots=True)
class _BucketPack:
    """Reads a pack in a bucket by ranges."""

    store: ObjectStore
    key: str
    where: str
    size_bytes: int
    readers: int = BUCKET_READERS

    def read(self, offset: int, size_bytes: int) -> bytes:
        chunk_parts, remaining_bytes = [], size_bytes
        content_chunks = self.store.read(self.key, offset=offset)
        for content_chunk in content_chunks:
            # A store may send more than was asked for.
            chunk_parts.append(content_chunk[:remaining_bytes])
            remaining_bytes -= len(chunk_parts[-1])
            if remaining_bytes <= 0:
                break
        if isinstance(content_chunks, Generator):
            content_chunks.close()  # the connection is given back now, not when memory is tidied up
        return b"".join(chunk_parts)


@dataclass(frozen=True, slots=True)
class BucketPackStore:
    """Packs as objects of a bucket."""

    store: ObjectStore

    def find_pack(self, pack_name: str) -> str | None:
        stored_pack = self.store.head(pack_name)
        return stored_pack.uri if stored_pack else None

    def unpack_env(
        self, pack_name: str, target_folder: Path, *, key: str, report_bytes: ByteReport = ignore_bytes
    ) -> Receipt:
        stored_pack = self.store.head(pack_name)
        size_bytes = stored_pack.size_bytes if stored_pack else 0
        return unpack_pack(
            _BucketPack(self.store, pack_name, stored_pack.uri if stored_pack else pack_name, size_bytes),
            target_folder,
            key=key,
            report_bytes=report_bytes,
        )

    def publish_env(
        self, build_folder: Path, pack_name: str, *, replace: bool = False, report_bytes: ByteReport = ignore_bytes
    ) -> str:
        stored_pack = None if replace else self.store.head(pack_name)
        if stored_pack is not None:
            return stored_pack.uri
        with packing_folder(build_folder) as temporary_folder:
            # Packed to a file first: an upload needs its size and digest before the first byte.
            pack_path = temporary_folder / "pack"
            write_pack(build_folder, pack_path, report_bytes=report_bytes)
            size_bytes = pack_path.stat().st_size
            payload = Payload(
                path=pack_path,
                size_bytes=size_bytes,
                sha256=Digest.of_file(pack_path),
                pace=ByteCounter("Uploading", size_bytes, report_bytes),
            )
            return self.store.put(pack_name, payload).uri

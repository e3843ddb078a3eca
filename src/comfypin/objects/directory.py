"""A folder as a store of objects: a laptop's or a volume's stand-in for a bucket."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from comfypin.digest import CHUNK_BYTES, Digest
from comfypin.errors.storage import (
    KeyInvalid,
    ObjectMissing,
    PayloadUnreadable,
    SigningImpossible,
    StoreFull,
)
from comfypin.files import FileStamp, atomic_file, contained_path, write_atomically
from comfypin.objects.interface import Payload, StoredObject
from comfypin.objects.keys import checked_key

# Media type and metadata, which files do not have, lie in a folder beside the objects, one small file each.
SIDECARS = ".comfypin-metadata"


class DirectoryStore:
    """Objects as files below a root. Bytes and metadata appear by rename; a reader never sees half of an object.

    Without `sidecars` the folder holds the objects and nothing else: their only metadata is the sha256 of their bytes,
    read from the bytes themselves.
    """

    def __init__(self, root: Path, *, sidecars: bool = True) -> None:
        self._root = root
        self._has_sidecars = sidecars

    def put(self, key: str, payload: Payload) -> StoredObject:
        """Copy the file to its place, hashed on the way."""
        path = self._path(key)
        with self._failures_named(key):
            # The object is the promise: it comes after its metadata, so that no object is ever without them.
            if self._has_sidecars:
                sidecar = {"media_type": payload.media_type, "metadata": dict(payload.metadata)}
                write_atomically(self._sidecar(key), json.dumps(sidecar, sort_keys=True).encode())
            with atomic_file(path) as file:
                if copy_hashed(payload, file) != payload.sha256:
                    raise changed(payload)
        return self._described(key, payload.size_bytes, dict(payload.metadata))

    def head(self, key: str) -> StoredObject | None:
        """Size and metadata of the file, or None."""
        path = self._path(key)
        with self._failures_named(key):
            if not path.is_file():
                return None
            return self._described(key, path.stat().st_size, self._metadata(key))

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        """The file's bytes, in chunks of 1 MiB."""
        path = self._path(key)
        with self._failures_named(key):
            try:
                file = path.open("rb", buffering=0)
            except (FileNotFoundError, IsADirectoryError) as exc:
                raise ObjectMissing(uri=self._uri(key)) from exc
            with file:
                file.seek(offset)
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """Folders have no signatures: always `SigningImpossible`."""
        raise SigningImpossible(store=str(self._root), reason="a folder has no signed URLs")

    def _path(self, key: str) -> Path:
        if checked_key(key).split("/")[0] == SIDECARS:
            raise KeyInvalid(key=key, reason="this folder keeps the metadata of the objects")
        try:
            return contained_path(self._root, key)
        except ValueError as exc:
            raise KeyInvalid(key=key, reason="it leaves the folder") from exc

    def _sidecar(self, key: str) -> Path:
        return self._root / SIDECARS / f"{Digest.of(key.encode()).hex}.json"

    def _metadata(self, key: str) -> dict[str, str]:
        if not self._has_sidecars:
            return {"sha256": Digest.of_file(self._path(key)).hex}
        try:
            sidecar = json.loads(self._sidecar(key).read_bytes())
        except FileNotFoundError:
            return {}
        return {str(name): str(value) for name, value in sidecar["metadata"].items()}

    def _described(self, key: str, size_bytes: int, metadata: dict[str, str]) -> StoredObject:
        return StoredObject(key=key, size_bytes=size_bytes, uri=self._uri(key), metadata=metadata)

    def _uri(self, key: str) -> str:
        return str(self._root / key)

    @contextmanager
    def _failures_named(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            full = "the disk is full" if exc.errno in {errno.ENOSPC, errno.EDQUOT} else None
            raise StoreFull(uri=self._uri(key), reason=full or (exc.strerror or str(exc)).lower()) from exc


def copy_hashed(payload: Payload, file: BinaryIO) -> Digest:
    """Copy a payload's bytes and return their sha256. Raises `PayloadUnreadable`."""
    hasher = hashlib.sha256()
    with open_payload(payload) as source:
        while chunk := source.read(CHUNK_BYTES):
            if payload.pace is not None:
                payload.pace(len(chunk))
            hasher.update(chunk)
            file.write(chunk)
    return Digest(hasher.hexdigest())


def read_whole(payload: Payload, file: BinaryIO) -> bytes:
    """A small payload's bytes, which must be those that were hashed. Raises `PayloadUnreadable`."""
    file.seek(0)
    data = file.read()
    same = Digest.of(data) == payload.sha256 if payload.stamp is None else FileStamp.of(file.fileno()) == payload.stamp
    if not same:
        raise changed(payload)
    return data


def require_as_hashed(payload: Payload, file: BinaryIO) -> None:
    """Make sure that the file still is what was hashed: by its stamp, else by hashing it again.

    Raises `PayloadUnreadable`.
    """
    if payload.stamp is not None:
        if FileStamp.of(file.fileno()) != payload.stamp:
            raise changed(payload)
        return
    hasher = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        hasher.update(chunk)
    if hasher.hexdigest() != payload.sha256.hex:
        raise changed(payload)


def changed(payload: Payload) -> PayloadUnreadable:
    """The file is not the one that was hashed."""
    return PayloadUnreadable(path=str(payload.path), reason="it changed since it was hashed")


@contextmanager
def open_payload(payload: Payload) -> Iterator[BinaryIO]:
    """Open a payload's file, which must have the size it was promised with, and not change meanwhile.

    Raises `PayloadUnreadable`.
    """
    try:
        file = payload.path.open("rb", buffering=0)
    except OSError as exc:
        raise PayloadUnreadable(path=str(payload.path), reason=(exc.strerror or str(exc)).lower()) from exc
    with file:
        before = os.fstat(file.fileno())
        size = before.st_size
        if size != payload.size_bytes:
            reason = f"it has {size} bytes, {payload.size_bytes} were expected"
            raise PayloadUnreadable(path=str(payload.path), reason=reason)
        yield file
        after = os.fstat(file.fileno())
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise PayloadUnreadable(path=str(payload.path), reason="it changed while it was uploaded")

"""A folder as a store of objects: a laptop's or a volume's stand-in for a bucket."""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comfypin.atomic_files import atomic_file, contained_path, write_atomically
from comfypin.digest import CHUNK_BYTES, Digest
from comfypin.storage.errors import KeyInvalid, ObjectMissing, SigningImpossible, StoreFull
from comfypin.storage.interface import Payload, StoredObject
from comfypin.storage.keys import checked_key
from comfypin.storage.payload_file import changed, copy_hashed

# Media type and metadata, which files do not have, lie in a folder beside the objects, one small file each.
SIDECARS = ".comfypin-metadata"


class LocalStore:
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

    def check(self, *, below: str = "") -> None:
        """A folder appears with its first object; there is nothing to ask."""

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

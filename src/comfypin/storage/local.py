"""A folder that serves as a store of objects: a laptop's or a volume's stand-in for a bucket."""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comfypin.atomic_files import atomic_file, contained_path, write_atomically
from comfypin.digest import CHUNK_BYTES, Digest
from comfypin.storage.errors import KeyInvalid, ObjectMissing, SigningImpossible, StoreFull
from comfypin.storage.interface import Payload, StoredObject
from comfypin.storage.object_keys import require_valid_key
from comfypin.storage.payload_file import copy_and_hash, payload_changed

# Files have no media type and metadata, so each object's are in a small file in this folder beside the objects.
SIDECARS = ".comfypin-metadata"


class LocalStore:
    """Stores objects as files below a root. Bytes and metadata appear by rename; readers never see half an object.

    Without `sidecars` the folder holds only the objects: their metadata is then the sha256 of their bytes, computed
    from the bytes.
    """

    def __init__(self, root: Path, *, sidecars: bool = True) -> None:
        self._root = root
        self._has_sidecars = sidecars

    def put(self, key: str, payload: Payload) -> StoredObject:
        """Copy the file into the folder, and compare its sha256 on the way."""
        object_path = self._object_path(key)
        with self._translate_failures(key):
            # The object is the promise: it comes after its metadata, so that no object is ever without them.
            if self._has_sidecars:
                sidecar = {"media_type": payload.media_type, "metadata": dict(payload.metadata)}
                write_atomically(self._sidecar_path(key), json.dumps(sidecar, sort_keys=True).encode())
            with atomic_file(object_path) as object_file:
                if copy_and_hash(payload, object_file) != payload.sha256:
                    raise payload_changed(payload)
        return self._describe_object(key, payload.size_bytes, dict(payload.metadata))

    def head(self, key: str) -> StoredObject | None:
        """Return the file's size and metadata, or None if it does not exist."""
        object_path = self._object_path(key)
        with self._translate_failures(key):
            if not object_path.is_file():
                return None
            return self._describe_object(key, object_path.stat().st_size, self._read_metadata(key))

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        """Yield the file's bytes in chunks of 1 MiB."""
        object_path = self._object_path(key)
        with self._translate_failures(key):
            try:
                # Chunks are larger than any buffer, which would only copy them.
                object_file = object_path.open("rb", buffering=0)
            except (FileNotFoundError, IsADirectoryError) as exception:
                raise ObjectMissing(uri=self._object_uri(key)) from exception
            with object_file:
                object_file.seek(offset)
                while chunk := object_file.read(CHUNK_BYTES):
                    yield chunk

    def remove(self, key: str) -> None:
        """Remove the file, and what was noted of it."""
        object_path = self._object_path(key)
        with self._translate_failures(key):
            object_path.unlink(missing_ok=True)
            if self._has_sidecars:
                self._sidecar_path(key).unlink(missing_ok=True)

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """Raise `SigningImpossible`: folders have no signatures."""
        raise SigningImpossible(store=str(self._root), reason="a folder has no signed URLs")

    def check(self, *, below: str = "") -> None:
        """Do nothing: the folder appears with its first object."""

    def _object_path(self, key: str) -> Path:
        if require_valid_key(key).split("/")[0] == SIDECARS:
            raise KeyInvalid(key=key, reason="this folder keeps the metadata of the objects")
        try:
            return contained_path(self._root, key)
        except ValueError as exception:
            raise KeyInvalid(key=key, reason="it leaves the folder") from exception

    def _sidecar_path(self, key: str) -> Path:
        # A digest as the name, because a key may be longer than a file name can be.
        return self._root / SIDECARS / f"{Digest.of(key.encode()).hex}.json"

    def _read_metadata(self, key: str) -> dict[str, str]:
        if not self._has_sidecars:
            return {"sha256": Digest.of_file(self._object_path(key)).hex}
        try:
            sidecar = json.loads(self._sidecar_path(key).read_bytes())
        except FileNotFoundError:
            return {}
        return {str(metadata_name): str(value) for metadata_name, value in sidecar["metadata"].items()}

    def _describe_object(self, key: str, size_bytes: int, metadata: dict[str, str]) -> StoredObject:
        return StoredObject(key=key, size_bytes=size_bytes, uri=self._object_uri(key), metadata=metadata)

    def _object_uri(self, key: str) -> str:
        return str(self._root / key)

    @contextmanager
    def _translate_failures(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as exception:
            disk_full = "the disk is full" if exception.errno in {errno.ENOSPC, errno.EDQUOT} else None
            raise StoreFull(
                uri=self._object_uri(key), reason=disk_full or (exception.strerror or str(exception)).lower()
            ) from exception

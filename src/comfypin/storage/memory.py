"""A store of objects in memory, for tests and dry runs."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from comfypin.digest import CHUNK_BYTES
from comfypin.storage.errors import ObjectMissing
from comfypin.storage.interface import Payload, StoredObject
from comfypin.storage.object_keys import require_valid_key
from comfypin.storage.payload_file import open_payload, read_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class _MemoryObject:
    data: bytes
    media_type: str
    stored: StoredObject


class MemoryStore:
    """Stores objects in a dict. `puts` lists the keys in the order in which they were stored."""

    def __init__(self) -> None:
        self.puts: list[str] = []
        self._held: dict[str, _MemoryObject] = {}
        self._lock = threading.Lock()

    def put(self, key: str, payload: Payload) -> StoredObject:
        """Keep the file's bytes."""
        object_uri = self._object_uri(require_valid_key(key))
        with open_payload(payload) as file:
            content = read_whole(payload, file)
        if payload.pace is not None:
            payload.pace(len(content))
        stored = StoredObject(
            key=key,
            size_bytes=len(content),
            uri=object_uri,
            metadata=dict(payload.metadata),
            # An ETag like S3's: 32 hexadecimal digits.
            etag=payload.sha256.hex[:32],
        )
        with self._lock:
            self._held[key] = _MemoryObject(data=content, media_type=payload.media_type, stored=stored)
            self.puts.append(key)
        return stored

    def head(self, key: str) -> StoredObject | None:
        """Return what was stored, or None."""
        memory_object = self._held.get(require_valid_key(key))
        return memory_object.stored if memory_object else None

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes in chunks of 1 MiB."""
        memory_object = self._held.get(require_valid_key(key))
        if memory_object is None:
            raise ObjectMissing(uri=self._object_uri(key))
        for start in range(offset, len(memory_object.data), CHUNK_BYTES):
            yield memory_object.data[start : start + CHUNK_BYTES]

    def remove(self, key: str) -> None:
        """Forget the object."""
        with self._lock:
            self._held.pop(require_valid_key(key), None)

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """Return a URL that leads nowhere but looks like a signed one."""
        return f"https://memory.invalid/{require_valid_key(key)}?ttl={ttl_s}&signature=none"

    def check(self, *, below: str = "") -> None:
        """Do nothing: memory always exists."""

    def media_type(self, key: str) -> str:
        """Return the media type that an object was stored with."""
        return self._held[key].media_type

    def _object_uri(self, key: str) -> str:
        return f"memory://{key}"

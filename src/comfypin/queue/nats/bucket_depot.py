"""Keeps what is too large for the queue in the bucket to which the fleet's outputs go, below `fleet-bodies/`.

Nothing is removed there: a lifecycle rule of the bucket does that, for as long as results are kept.
"""

from collections.abc import Callable

from comfypin.digest import Digest
from comfypin.storage.interface import ObjectStore, Payload
from comfypin.temp_folders import temp_folder

_FOLDER = "fleet-bodies"


class BucketDepot:
    """Implements `Depot`. The bucket is opened when it is first needed."""

    def __init__(self, open_store: Callable[[], ObjectStore], *, prefix: str = "") -> None:
        self._open_store = open_store
        self._folder = f"{prefix}/{_FOLDER}" if prefix else _FOLDER

    def put(self, key: str, data: bytes, upload: str | None) -> str:
        """Keep bytes and return the key of their object. Raises `StorageError`."""
        object_key = f"{self._folder}/{key}"
        with temp_folder("body") as folder:
            path = folder / "body"
            path.write_bytes(data)
            payload = Payload(path=path, size_bytes=len(data), sha256=Digest.of(data))
            self._open_store().put(object_key, payload)
        return object_key

    def get(self, address: str) -> bytes:
        """Return the bytes of an object. Raises `StorageError`."""
        return b"".join(self._open_store().read(address))

    def remove(self, address: str) -> None:
        """Leave it: the bucket's own rule removes what is old."""

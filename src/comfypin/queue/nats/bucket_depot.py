"""Keeps what is too large for the queue in the bucket to which the fleet's outputs go, below `fleet-bodies/`."""

from collections.abc import Callable

from comfypin.digest import Digest
from comfypin.queue.nats.errors import BodyOutOfReach
from comfypin.storage.interface import Payload, RemovableStore
from comfypin.temp_folders import temp_folder

_FOLDER = "fleet-bodies"


class BucketDepot:
    """Implements `Depot`. The bucket is opened when it is first needed."""

    def __init__(self, open_store: Callable[[], RemovableStore], *, prefix: str = "") -> None:
        self._open_store = open_store
        self._folder = f"{prefix}/{_FOLDER}" if prefix else _FOLDER

    def upload_of(self, job_id: str) -> str | None:
        """Return None: workers have the bucket, too."""
        return None

    def address_of(self, key: str, upload: str | None) -> str | None:
        """Return the key of the object that a body becomes."""
        return f"{self._folder}/{key}"

    def put(self, address: str, data: bytes) -> None:
        """Keep bytes. Raises `StorageError`."""
        with temp_folder("body") as folder:
            path = folder / "body"
            path.write_bytes(data)
            payload = Payload(path=path, size_bytes=len(data), sha256=Digest.of(data))
            self._open_store().put(self._own(address), payload)

    def get(self, address: str) -> bytes:
        """Return the bytes of an object. Raises `StorageError`."""
        return b"".join(self._open_store().read(self._own(address)))

    def remove(self, address: str) -> None:
        """Remove an object. Raises `StorageError`."""
        self._open_store().remove(self._own(address))

    def _own(self, address: str) -> str:
        """Return the key if it is one of ours: a worker could name any other object of the bucket."""
        folder, _, name = address.rpartition("/")
        if folder != self._folder or name in {"", ".", ".."}:
            raise BodyOutOfReach(server="the bucket", reason="it was written by a fleet with another bucket or prefix")
        return address

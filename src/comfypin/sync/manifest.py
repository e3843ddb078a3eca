"""The manifest: what was delivered, one JSON line a batch, kept beside the outbox and copied to the destination.

Objects carry their own metadata; the manifest lets people find things without listing a bucket, and costs one object a
minute rather than one a file.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from comfypin.digest import Digest
from comfypin.storage.interface import ObjectStore, Payload
from comfypin.sync.row import Row

_COPY_EVERY_S = 60.0


class Manifest:
    """Appends to the file at `path`; `copy` puts it into the store under `key`."""

    def __init__(self, path: Path, key: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._key = key
        self._clock = clock
        self._next_copy_s = clock() + _COPY_EVERY_S
        self._changed = False

    def add(self, delivered: Sequence[Row]) -> None:
        """Record a batch as one line. A line that a crash cut off is ended by the next one's line break."""
        files = [
            {
                "path": row.path,
                "key": row.key,
                "revision": row.revision,
                "size_bytes": row.fingerprint.size,
                "sha256": row.sha256.hex,
            }
            for row in delivered
        ]
        line = json.dumps({"time": round(time.time(), 3), "files": files}, separators=(",", ":"))
        with self._path.open("a", encoding="ascii") as file:
            file.write(line + "\n")
        self._changed = True

    def due_s(self) -> float | None:
        """When the copy is due (monotonic seconds), or None while it is up to date."""
        return self._next_copy_s if self._changed else None

    def copy(self, store: ObjectStore, *, now: bool = False) -> None:
        """Put the manifest into the store if its time has come, or now. Raises `StorageError`."""
        if not self._changed or (self._clock() < self._next_copy_s and not now):
            return
        self._next_copy_s = self._clock() + _COPY_EVERY_S
        data = self._path.read_bytes()
        payload = Payload(
            path=self._path, size_bytes=len(data), sha256=Digest.of(data), media_type="application/x-ndjson"
        )
        store.put(self._key, payload)
        self._changed = False

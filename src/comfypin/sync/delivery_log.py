"""Keeps the manifest of deliveries: one JSON line for each batch, beside the outbox and copied to the destination.

Objects carry their own metadata; the manifest lets people find things without listing a bucket, and costs one object a
minute rather than one for each file.
"""

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from comfypin.digest import Digest
from comfypin.storage.interface import ObjectStore, Payload
from comfypin.sync.errors import OutboxUnusable
from comfypin.sync.outbox_row import OutboxRow

# One more object a minute, however many files are delivered.
_COPY_EVERY_S = 60.0


class DeliveryLog:
    """Appends to the file at `path`; `copy_to_store` puts it into the store under `key`."""

    def __init__(self, path: Path, key: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._key = key
        self._clock = clock
        self._next_copy_s = clock() + _COPY_EVERY_S
        self._changed = False
        self._unwritten = b""

    def record_batch(self, delivered_rows: Sequence[OutboxRow]) -> None:
        """Record a batch as one line. If the disk is full, write it with the next batch, or before the copy."""
        file_entries = [
            {
                "path": outbox_row.path,
                "key": outbox_row.key,
                "revision": outbox_row.revision,
                "size_bytes": outbox_row.fingerprint.size,
                "sha256": outbox_row.sha256.hex,
            }
            for outbox_row in delivered_rows
        ]
        batch_line = json.dumps({"time": round(time.time(), 3), "files": file_entries}, separators=(",", ":"))
        self._unwritten += (batch_line + "\n").encode("ascii")
        self._changed = True
        with contextlib.suppress(OSError):
            self._append_unwritten()

    def _append_unwritten(self) -> None:
        """Append what is not written yet, all or nothing, after ending a line that a kill cut off."""
        if not self._unwritten:
            return
        # Unbuffered, so that one write either has all bytes or reports how many.
        with self._path.open("ab", buffering=0) as open_file:
            size_before = open_file.seek(0, os.SEEK_END)
            try:
                content = self._unwritten if self._ends_with_newline(size_before) else b"\n" + self._unwritten
                if open_file.write(content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                # A half line on a full disk would make the next line unreadable too.
                open_file.truncate(size_before)
                raise
        self._unwritten = b""

    def _ends_with_newline(self, size_bytes: int) -> bool:
        with self._path.open("rb") as open_file:
            open_file.seek(max(0, size_bytes - 1))
            return open_file.read(1) in (b"", b"\n")

    def due_s(self) -> float | None:
        """Return when the copy is due (monotonic seconds), or None while it is up to date."""
        return self._next_copy_s if self._changed else None

    def copy_to_store(self, store: ObjectStore, *, now: bool = False) -> None:
        """Put the manifest into the store when it is due, or now. Raises `StorageError`, `OutboxUnusable`."""
        if not self._changed or (self._clock() < self._next_copy_s and not now):
            return
        self._next_copy_s = self._clock() + _COPY_EVERY_S
        try:
            self._append_unwritten()
            content = self._path.read_bytes()
        except OSError as error:
            raise OutboxUnusable(path=str(self._path), reason=error.strerror or str(error)) from error
        payload = Payload(
            path=self._path, size_bytes=len(content), sha256=Digest.of(content), media_type="application/x-ndjson"
        )
        store.put(self._key, payload)
        self._changed = False

"""Reads the file of a payload: it must be what was hashed, and must not change while it is sent."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from comfypin.atomic_files import FileStamp
from comfypin.digest import CHUNK_BYTES, Digest
from comfypin.storage.errors import PayloadUnreadable
from comfypin.storage.interface import Payload


def copy_and_hash(payload: Payload, target_file: BinaryIO) -> Digest:
    """Copy a payload's bytes and return their sha256. Raises `PayloadUnreadable`."""
    hasher = hashlib.sha256()
    with open_payload(payload) as payload_file:
        while chunk := payload_file.read(CHUNK_BYTES):
            if payload.pace is not None:
                payload.pace(len(chunk))
            hasher.update(chunk)
            target_file.write(chunk)
    return Digest(hasher.hexdigest())


def read_whole(payload: Payload, payload_file: BinaryIO) -> bytes:
    """Return a small payload's bytes, which must be those that were hashed. Raises `PayloadUnreadable`."""
    # A retry reads the file again from its beginning.
    payload_file.seek(0)
    content = payload_file.read()
    is_unchanged = (
        Digest.of(content) == payload.sha256
        if payload.stamp is None
        else FileStamp.of(payload_file.fileno()) == payload.stamp
    )
    if not is_unchanged:
        raise payload_changed(payload)
    return content


def require_as_hashed(payload: Payload, payload_file: BinaryIO) -> None:
    """Raise `PayloadUnreadable` unless the file is what was hashed: by its stamp, else by hashing it again."""
    if payload.stamp is not None:
        if FileStamp.of(payload_file.fileno()) != payload.stamp:
            raise payload_changed(payload)
        return
    hasher = hashlib.sha256()
    payload_file.seek(0)
    while chunk := payload_file.read(CHUNK_BYTES):
        hasher.update(chunk)
    if hasher.hexdigest() != payload.sha256.hex:
        raise payload_changed(payload)


def payload_changed(payload: Payload) -> PayloadUnreadable:
    """Return the error for a file that is not the one that was hashed."""
    return PayloadUnreadable(path=str(payload.path), reason="it changed since it was hashed")


@contextmanager
def open_payload(payload: Payload) -> Iterator[BinaryIO]:
    """Open a payload's file, which must have the promised size and not change while it is open.

    Raises `PayloadUnreadable`.
    """
    try:
        payload_file = payload.path.open("rb", buffering=0)
    except OSError as exception:
        raise PayloadUnreadable(
            path=str(payload.path), reason=(exception.strerror or str(exception)).lower()
        ) from exception
    with payload_file:
        # Ask the open file, not its path, which somebody may replace meanwhile.
        stat_before = os.fstat(payload_file.fileno())
        size = stat_before.st_size
        if size != payload.size_bytes:
            reason = f"it has {size} bytes instead of {payload.size_bytes}"
            raise PayloadUnreadable(path=str(payload.path), reason=reason)
        yield payload_file
        # Nanoseconds show a rewrite within one second that kept the size.
        stat_after = os.fstat(payload_file.fileno())
        if (stat_after.st_size, stat_after.st_mtime_ns) != (stat_before.st_size, stat_before.st_mtime_ns):
            raise PayloadUnreadable(path=str(payload.path), reason="it changed while it was uploaded")

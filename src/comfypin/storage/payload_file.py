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

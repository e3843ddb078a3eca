"""The bucket that a server's outputs go to: what lies there can be read by clients that have no keys for it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from comfypin.storage.interface import StoredObject

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class BucketReader(Protocol):
    """The part of `ObjectStore` that is used here."""

    def head(self, key: str) -> StoredObject | None:
        """Return the object's facts, or None if the key is free. Raises `StorageError`."""

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        """Yield the object's bytes from `offset`. Raises `StorageError`."""


class OpenReader(Protocol):
    """Opens the bucket when it is needed: client libraries are slow to import."""

    def __call__(self) -> BucketReader:
        """Return the bucket. Raises `StorageError`, `ConfigError`."""


class MakeUrl(Protocol):
    """Makes an address for a browser."""

    def __call__(self, key: str, /) -> str | None:
        """Return the address, signed or public as the bucket is set up, or None. Raises `StorageError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnBucket:
    """The bucket of `addresses` such as `s3://bucket/`, below `prefix`. All of it blocks: it is meant for threads."""

    addresses: tuple[str, ...]
    prefix: str
    open_reader: OpenReader
    url_of_key: MakeUrl

    def holds(self, uri: str) -> bool:
        """Return whether an address is that of an output in this bucket."""
        key = self._key(uri)
        return key is not None and key.startswith(f"{self.prefix}/" if self.prefix else "")

    def make_url(self, uri: str) -> str | None:
        """Return an address that browsers can open, if the bucket is set up for that. Raises `StorageError`."""
        return self.url_of_key(self._key(uri) or "")

    def head(self, uri: str) -> StoredObject | None:
        """Return the object's facts, or None if it is gone. Raises `StorageError`."""
        return self.open_reader().head(self._key(uri) or "")

    def read(self, uri: str, byte_range: range) -> Iterator[bytes]:
        """Yield some of the object's bytes. Raises `StorageError`."""
        part_bytes = len(byte_range)
        if not part_bytes:
            return
        for chunk in self.open_reader().read(self._key(uri) or "", offset=byte_range.start):
            yield chunk[:part_bytes]
            part_bytes -= len(chunk)
            if part_bytes <= 0:
                return

    def _key(self, uri: str) -> str | None:
        return next((uri.removeprefix(address) for address in self.addresses if uri.startswith(address)), None)


def match_range(header: str) -> re.Match[str] | None:
    """Return the first and the last byte of a Range header, or None if it cannot be read as one range."""
    range_match = _RANGE.fullmatch(header.replace(" ", ""))
    if range_match is None or not (range_match[1] or range_match[2]):
        return None
    is_backwards = range_match[1] and range_match[2] and int(range_match[2]) < int(range_match[1])
    return None if is_backwards else range_match


def read_range(header: str | None, size_bytes: int) -> range | None:
    """Return the bytes that a Range asks for, or None if it lies outside. An unreadable one asks for all."""
    range_match = match_range(header or "")
    whole = range(size_bytes)
    if range_match is None:
        return whole
    if not range_match[1]:
        return whole[-int(range_match[2]) :] if int(range_match[2]) and size_bytes else None
    first = int(range_match[1])
    last = int(range_match[2]) if range_match[2] else size_bytes - 1
    return range(first, min(last + 1, size_bytes)) if first < size_bytes else None


def content_disposition(file_name: str) -> str:
    """Return the header that has a file saved under its name, whatever is in it."""
    return f"attachment; filename*=utf-8''{quote(file_name, safe='', errors='replace')}"

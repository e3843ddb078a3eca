"""What requests carry: a few bytes in memory, or a part of a file, which is never read whole."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from comfypin.errors.storage import PayloadUnreadable
from comfypin.files import reading_buffer

_Piece = TypeVar("_Piece", bytes, memoryview)

SHA256_OF_NOTHING = hashlib.sha256().hexdigest()
_SLICE_BYTES = 1 << 20
# What fits into one of the kernel's segments (64 KiB, heads included): larger pieces are cut up again, page by page,
# and cost more than twice the time.
_SEGMENT_BYTES = 48 << 10
# File systems whose files the kernel cannot send by itself.
_NO_SENDFILE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class Channel(Protocol):
    """Where a body goes. `descriptor` is that of the socket, where the kernel may write files to it."""

    @property
    def descriptor(self) -> int | None: ...
    def write(self, piece: bytes | memoryview) -> None: ...


class Body(Protocol):
    """What a request sends; `go_out` may be called again when it is sent again."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    def go_out(self, channel: Channel) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A few bytes in memory."""

    data: bytes = field(default=b"", repr=False)
    sha256: str = SHA256_OF_NOTHING

    @classmethod
    def of(cls, data: bytes) -> "Text":
        """The bytes with their digest."""
        return cls(data=data, sha256=hashlib.sha256(data).hexdigest())

    @property
    def size_bytes(self) -> int:
        """How many bytes."""
        return len(self.data)

    def go_out(self, channel: Channel) -> None:
        """All of them, if any."""
        if self.data:
            channel.write(self.data)


class Sum(Protocol):
    """A checksum in the making."""

    def update(self, data: bytes | memoryview, /) -> object: ...


class FilePart:
    """A part of an open file. `summing`, where there is one, takes in the bytes that are sent."""

    def __init__(self, descriptor: int, *, offset: int, size_bytes: int, path: str) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._path = path
        self.size_bytes = size_bytes
        self.sha256 = SHA256_OF_NOTHING
        self.pace: Callable[[int], None] | None = None
        self.summing: Sum | None = None

    def go_out(self, channel: Channel) -> None:
        """By the kernel alone, where it can and nobody wants to see the bytes; else through one small buffer."""
        sent = 0
        if channel.descriptor is not None and self.summing is None:
            sent = self._by_kernel(channel.descriptor)
        for piece in self._read(sent):
            if self.pace is not None:
                self.pace(len(piece))
            if self.summing is not None:
                self.summing.update(piece)
            channel.write(piece)

    def digest(self) -> str:
        """The sha256 of the bytes, read now."""
        hasher = hashlib.sha256()
        self.add_to(hasher)
        return hasher.hexdigest()

    def add_to(self, taking: Sum) -> None:
        """Have a checksum take in the bytes, read now."""
        # Bytes of their own: Google's sum takes no others without copying them. Large, for it keeps others waiting.
        for piece in self._pieces(0, _SLICE_BYTES, partial(os.pread, self._descriptor)):
            taking.update(piece)

    def _by_kernel(self, target: int) -> int:
        """Send all, or nothing where the file system has no such thing; how much was sent."""
        sent = told = 0
        # Of a small file the steps cost more than the cutting.
        most = _SEGMENT_BYTES if self.size_bytes > _SLICE_BYTES else _SLICE_BYTES
        while sent < self.size_bytes:
            if sent == told:
                step = min(_SLICE_BYTES, self.size_bytes - sent)
                told += step
                if self.pace is not None:
                    self.pace(step)
            try:
                count = os.sendfile(target, self._descriptor, self._offset + sent, min(most, told - sent))
            except OSError as exc:
                if exc.errno in _NO_SENDFILE and not sent:
                    return 0
                if exc.errno == errno.EIO:
                    raise self._unreadable(exc) from exc
                raise
            if not count:
                raise self._shorter()
            sent += count
        return sent

    def _read(self, skip: int) -> Iterator[memoryview]:
        """The bytes, each piece valid until this thread reads on."""
        buffer = reading_buffer()
        return self._pieces(
            skip, len(buffer), lambda count, at: buffer[: os.preadv(self._descriptor, [buffer[:count]], at)]
        )

    def _pieces(self, skip: int, most: int, read: Callable[[int, int], _Piece]) -> Iterator[_Piece]:
        at, end = self._offset + skip, self._offset + self.size_bytes
        while at < end:
            try:
                piece = read(min(most, end - at), at)
            except OSError as exc:
                raise self._unreadable(exc) from exc
            if not piece:
                raise self._shorter()
            yield piece
            at += len(piece)

    def _unreadable(self, exc: OSError) -> PayloadUnreadable:
        return PayloadUnreadable(path=self._path, reason=(exc.strerror or str(exc)).lower())

    def _shorter(self) -> PayloadUnreadable:
        return PayloadUnreadable(path=self._path, reason="it became shorter while it was uploaded")


class Framed:
    """A part of a file between a few bytes."""

    def __init__(self, before: bytes, part: FilePart, after: bytes) -> None:
        self._before, self._part, self._after = before, part, after
        self.size_bytes = len(before) + part.size_bytes + len(after)
        self.sha256 = ""

    def go_out(self, channel: Channel) -> None:
        """One after another."""
        channel.write(self._before)
        self._part.go_out(channel)
        channel.write(self._after)


NOTHING = Text()

"""Unpacks an env pack into an empty folder: frames are fetched, verified and written by all cores, in any order."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from comfypin.env.errors import PackDamaged, PackUnfit
from comfypin.env.install.disk_space import require_space
from comfypin.env.pack.format import MAGIC, TRAILER, PackIndex, PlacedFrame, decode_index, frame_segments, index_limit
from comfypin.env.receipt import Receipt, receipt_from_json

MARGIN_PER_FILE = 4096
_PART_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FLAGS = _PART_FLAGS | os.O_EXCL
# Bounds the memory of a thread, whatever a frame claims.
_PIECE_BYTES = 256 << 10


class PackSource(Protocol):
    """Reads the bytes of a pack, wherever it is."""

    @property
    def where(self) -> str:
        """Return its address, for messages."""

    @property
    def size_bytes(self) -> int:
        """Return its size."""

    @property
    def readers(self) -> int:
        """Return how many threads should read it at once."""

    def read(self, offset: int, size: int) -> bytes:
        """Return these bytes, fewer only if the pack ends. Raises `StorageError`."""


@dataclass(frozen=True, slots=True)
class PackFile:
    """Reads a pack that is a file on a disk or volume."""

    where: str
    size_bytes: int
    descriptor: int

    @property
    def readers(self) -> int:
        """Return two for each core: while one waits for the disk, or for the interpreter, another works."""
        return 2 * (os.cpu_count() or 2)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.descriptor, size, offset)


@contextlib.contextmanager
def open_pack(path: Path) -> Iterator[PackFile]:
    """Open a pack in a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield PackFile(str(path), os.fstat(descriptor).st_size, descriptor)
    finally:
        os.close(descriptor)


def read_index(source: PackSource) -> PackIndex:
    """Return the index of a pack, verified. Raises `PackDamaged`."""
    import zstandard

    end = _read_exactly(source, source.size_bytes - TRAILER.size, TRAILER.size)
    offset, size, digest, magic = TRAILER.unpack(end)
    if magic != MAGIC or _read_exactly(source, 0, len(MAGIC)) != MAGIC:
        raise PackDamaged(where=source.where, reason="it is not an env pack, or only a part of one")
    if offset + size + TRAILER.size != source.size_bytes:
        raise PackDamaged(where=source.where, reason="its index is not at its recorded place")
    if size > index_limit(size):
        raise PackDamaged(where=source.where, reason="its index is too large")
    packed = _read_exactly(source, offset, size)
    if hashlib.sha256(packed).digest() != digest:
        raise PackDamaged(where=source.where, reason="its index does not match its sha256")
    try:
        index = decode_index(b"".join(_decompress_pieces(packed, limit=index_limit(size))))
    except (zstandard.ZstdError, ValueError) as error:
        raise PackDamaged(where=source.where, reason=str(error)) from error
    if offset != len(MAGIC) + sum(frame.packed_size for frame in index.frames):
        raise PackDamaged(where=source.where, reason="its frames do not fill the file")
    return index


def unpack_pack(source: PackSource, folder: Path, *, key: str) -> Receipt:
    """Unpack into an empty folder, and return the receipt that the pack carries (it is not written).

    Raises `PackDamaged`, `PackUnfit` if it is not a pack of the env `key`, `NoRoomForEnv`.
    """
    index = read_index(source)
    try:
        receipt = receipt_from_json(index.receipt)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PackDamaged(where=source.where, reason="its receipt is invalid") from error
    if receipt.key != key:
        raise PackUnfit(where=source.where, reason=f"it holds env {receipt.key[:16]}, but {key[:16]} is needed")
    need = index.size_bytes + MARGIN_PER_FILE * len(index.files)
    require_space(folder, need, what=f"Unpacking {source.where}")
    # Sorted, so that a parent comes before its children.
    for name in sorted(index.folders):
        os.mkdir(f"{folder}/{name}")  # noqa: PTH102  (thousands of them: strings are faster)
    with ThreadPoolExecutor(max_workers=source.readers, thread_name_prefix="unpack") as pool:
        frames = index.placed_frames()
        writing = [pool.submit(_write_frame, source, index, frame, str(folder)) for frame in frames]
        try:
            for done in writing:
                done.result()
        except BaseException:
            # Without this a damaged pack would be read to its end before the error shows.
            pool.shutdown(cancel_futures=True)
            raise
    for name, size, executable in index.files:
        if size == 0:
            os.close(os.open(f"{folder}/{name}", _NEW_FLAGS, 0o755 if executable else 0o644))
    # Links last: nothing is ever written through one.
    for name, target in index.links:
        Path(folder, name).symlink_to(target)
    return receipt


def _write_frame(source: PackSource, index: PackIndex, frame: PlacedFrame, folder: str) -> None:
    import zstandard

    packed = _read_exactly(source, frame.offset, frame.packed_size)
    if hashlib.sha256(packed).hexdigest() != frame.sha256:
        raise PackDamaged(where=source.where, reason=f"the frame at byte {frame.offset} does not match its sha256")
    try:
        _write_segments(_decompress_pieces(packed, limit=frame.size), index, frame, folder)
    except (zstandard.ZstdError, ValueError) as error:
        raise PackDamaged(where=source.where, reason=f"the frame at byte {frame.offset}: {error}") from error


def _write_segments(pieces: Iterator[memoryview], index: PackIndex, frame: PlacedFrame, folder: str) -> None:
    """Write a frame's bytes to their files. Raises `ValueError` if there are too few or too many."""
    piece = memoryview(b"")
    for number, offset, size in frame_segments(index.files, frame):
        path, whole_size, executable = index.files[number]
        descriptor = os.open(
            f"{folder}/{path}", _NEW_FLAGS if size == whole_size else _PART_FLAGS, 0o755 if executable else 0o644
        )
        try:
            left = size
            while left:
                piece = piece or next(pieces, memoryview(b""))
                if not piece:
                    raise ValueError("it holds less than the index says")
                part, piece = piece[:left], piece[left:]
                _write_all(descriptor, part, offset + size - left)
                left -= len(part)
        finally:
            os.close(descriptor)
    if piece or next(pieces, None) is not None:
        raise ValueError("it holds more than the index says")


def _decompress_pieces(packed: bytes, *, limit: int) -> Iterator[memoryview]:
    """Yield a frame's bytes in small pieces, whatever size its own header claims: the header is not believed.

    Raises `ValueError` if there are more than `limit`, `ZstdError` if it is damaged.
    """
    import zstandard

    # The window is memory that the header asks for; zstd knows none below 1 KiB.
    unpacker = zstandard.ZstdDecompressor(max_window_size=max(limit, 1 << 10))
    total = 0
    with unpacker.stream_reader(packed, read_size=_PIECE_BYTES, read_across_frames=False) as reader:
        while piece := reader.read(_PIECE_BYTES):
            total += len(piece)
            if total > limit:
                raise ValueError(f"it holds more than {limit:,} bytes")
            yield memoryview(piece)


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _read_exactly(source: PackSource, offset: int, size: int) -> bytes:
    data = source.read(offset, size) if offset >= 0 and 0 <= size <= source.size_bytes else b""
    if len(data) != size:
        raise PackDamaged(where=source.where, reason="it ends early")
    return data

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
from comfypin.env.pack.progress import ByteCounter, ByteReport, ignore_bytes
from comfypin.env.receipt import Receipt, receipt_from_json

# File systems round each file up to a block, which is 4 KiB nearly everywhere.
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

    def read(self, offset: int, size_bytes: int) -> bytes:
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
def open_pack(pack_path: Path) -> Iterator[PackFile]:
    """Open a pack that is a file."""
    descriptor = os.open(pack_path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield PackFile(str(pack_path), os.fstat(descriptor).st_size, descriptor)
    finally:
        os.close(descriptor)


def read_index(pack_source: PackSource) -> PackIndex:
    """Return the index of a pack, verified. Raises `PackDamaged`."""
    import zstandard

    trailer_bytes = _read_exactly(pack_source, pack_source.size_bytes - TRAILER.size, TRAILER.size)
    index_offset, size_bytes, index_digest, magic_bytes = TRAILER.unpack(trailer_bytes)
    if magic_bytes != MAGIC or _read_exactly(pack_source, 0, len(MAGIC)) != MAGIC:
        raise PackDamaged(where=pack_source.where, reason="it is not an env pack, or only a part of one")
    if index_offset + size_bytes + TRAILER.size != pack_source.size_bytes:
        raise PackDamaged(where=pack_source.where, reason="its index is not at its recorded place")
    if size_bytes > index_limit(size_bytes):
        raise PackDamaged(where=pack_source.where, reason="its index is too large")
    packed_bytes = _read_exactly(pack_source, index_offset, size_bytes)
    if hashlib.sha256(packed_bytes).digest() != index_digest:
        raise PackDamaged(where=pack_source.where, reason="its index does not match its sha256")
    try:
        pack_index = decode_index(b"".join(_decompress_pieces(packed_bytes, limit=index_limit(size_bytes))))
    except (zstandard.ZstdError, ValueError) as error:
        raise PackDamaged(where=pack_source.where, reason=str(error)) from error
    if index_offset != len(MAGIC) + sum(placed_frame.packed_size for placed_frame in pack_index.frames):
        raise PackDamaged(where=pack_source.where, reason="its frames do not fill the file")
    return pack_index


def unpack_pack(
    pack_source: PackSource, target_folder: Path, *, key: str, report_bytes: ByteReport = ignore_bytes
) -> Receipt:
    """Unpack into an empty folder, and return the receipt that the pack carries (it is not written).

    Raises `PackDamaged`, `PackUnfit` if it is not a pack of the env `key`, `NoRoomForEnv`.
    """
    pack_index = read_index(pack_source)
    try:
        pack_receipt = receipt_from_json(pack_index.receipt)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PackDamaged(where=pack_source.where, reason="its receipt is invalid") from error
    if pack_receipt.key != key:
        raise PackUnfit(
            where=pack_source.where, reason=f"it holds env {pack_receipt.key[:16]}, but {key[:16]} is needed"
        )
    needed_bytes = pack_index.size_bytes + MARGIN_PER_FILE * len(pack_index.files)
    require_space(target_folder, needed_bytes, what=f"Unpacking {pack_source.where}")
    # Sorted, so that a parent comes before its children.
    for relative_path in sorted(pack_index.folders):
        os.mkdir(f"{target_folder}/{relative_path}")  # noqa: PTH102  (thousands of them: strings are faster)
    with ThreadPoolExecutor(max_workers=pack_source.readers, thread_name_prefix="unpack") as thread_pool:
        placed_frames = tuple(pack_index.placed_frames())
        pending_writes = [
            thread_pool.submit(_write_frame, pack_source, pack_index, placed_frame, str(target_folder))
            for placed_frame in placed_frames
        ]
        count_bytes = ByteCounter("Unpacking", pack_index.size_bytes, report_bytes)
        try:
            for pending_write, placed_frame in zip(pending_writes, placed_frames, strict=True):
                pending_write.result()
                count_bytes(placed_frame.size)
        except BaseException:
            # Without this a damaged pack would be read to its end before the error shows.
            thread_pool.shutdown(cancel_futures=True)
            raise
    for relative_path, size_bytes, executable in pack_index.files:
        if size_bytes == 0:
            os.close(os.open(f"{target_folder}/{relative_path}", _NEW_FLAGS, 0o755 if executable else 0o644))
    # Links last: nothing is ever written through one.
    for relative_path, link_target in pack_index.links:
        Path(target_folder, relative_path).symlink_to(link_target)
    return pack_receipt


def _write_frame(pack_source: PackSource, pack_index: PackIndex, placed_frame: PlacedFrame, target_folder: str) -> None:
    import zstandard

    packed_bytes = _read_exactly(pack_source, placed_frame.offset, placed_frame.packed_size)
    if hashlib.sha256(packed_bytes).hexdigest() != placed_frame.sha256:
        raise PackDamaged(
            where=pack_source.where, reason=f"the frame at byte {placed_frame.offset} does not match its sha256"
        )
    try:
        _write_segments(
            _decompress_pieces(packed_bytes, limit=placed_frame.size), pack_index, placed_frame, target_folder
        )
    except (zstandard.ZstdError, ValueError) as error:
        raise PackDamaged(
            where=pack_source.where, reason=f"the frame at byte {placed_frame.offset}: {error}"
        ) from error


def _write_segments(
    raw_pieces: Iterator[memoryview], pack_index: PackIndex, placed_frame: PlacedFrame, target_folder: str
) -> None:
    """Write a frame's bytes to their files. Raises `ValueError` if there are too few or too many."""
    current_piece = memoryview(b"")
    for file_number, file_offset, size_bytes in frame_segments(pack_index.files, placed_frame):
        relative_path, whole_size, executable = pack_index.files[file_number]
        descriptor = os.open(
            f"{target_folder}/{relative_path}",
            _NEW_FLAGS if size_bytes == whole_size else _PART_FLAGS,
            0o755 if executable else 0o644,
        )
        try:
            remaining_bytes = size_bytes
            while remaining_bytes:
                current_piece = current_piece or next(raw_pieces, memoryview(b""))
                if not current_piece:
                    raise ValueError("it holds less than the index says")
                file_part, current_piece = current_piece[:remaining_bytes], current_piece[remaining_bytes:]
                _write_all(descriptor, file_part, file_offset + size_bytes - remaining_bytes)
                remaining_bytes -= len(file_part)
        finally:
            os.close(descriptor)
    if current_piece or next(raw_pieces, None) is not None:
        raise ValueError("it holds more than the index says")


def _decompress_pieces(packed_bytes: bytes, *, limit: int) -> Iterator[memoryview]:
    """Yield a frame's bytes in small pieces, whatever size its own header claims: the header is not believed.

    Raises `ValueError` if there are more than `limit`, `ZstdError` if it is damaged.
    """
    import zstandard

    # The window is memory that the header asks for; zstd knows none below 1 KiB.
    unpacker = zstandard.ZstdDecompressor(max_window_size=max(limit, 1 << 10))
    total_bytes = 0
    with unpacker.stream_reader(packed_bytes, read_size=_PIECE_BYTES, read_across_frames=False) as reader:
        while raw_piece := reader.read(_PIECE_BYTES):
            total_bytes += len(raw_piece)
            if total_bytes > limit:
                raise ValueError(f"it holds more than {limit:,} bytes")
            yield memoryview(raw_piece)


def _write_all(descriptor: int, content: memoryview, file_offset: int) -> None:
    while content:
        written_bytes = os.pwrite(descriptor, content, file_offset)
        content, file_offset = content[written_bytes:], file_offset + written_bytes


def _read_exactly(pack_source: PackSource, pack_offset: int, size_bytes: int) -> bytes:
    content = (
        pack_source.read(pack_offset, size_bytes)
        if pack_offset >= 0 and 0 <= size_bytes <= pack_source.size_bytes
        else b""
    )
    if len(content) != size_bytes:
        raise PackDamaged(where=pack_source.where, reason="it ends early")
    return content

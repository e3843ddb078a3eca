"""Packs a build into one file: every file, link and module's byte-code, compressed by all cores."""

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from comfypin.atomic_files import atomic_file
from comfypin.digest import Digest
from comfypin.env.bytecode import compile_modules, list_bytecode
from comfypin.env.errors import BuildChanged, NothingRealized
from comfypin.env.file_manifest import FileFact, FileManifest, read_manifest
from comfypin.env.layout import BYTECODE_FILE, MANIFEST_FILE, packing_folder
from comfypin.env.pack.format import FRAME_BYTES, MAGIC, TRAILER, PackedFrame, PackIndex, encode_index
from comfypin.env.pack.progress import ByteCounter, ByteReport, ignore_bytes
from comfypin.env.receipt import Receipt, read_receipt

# Packs are made once and fetched by every worker, so the size counts more than the time.
COMPRESSION_LEVEL = 6


@dataclass(frozen=True, slots=True)
class _PackMember:
    """Describes a file to be packed: its name in the pack, its path, its size and digest (None: not in the
    manifest).
    """

    path: str
    source: Path
    size: int
    executable: bool = False
    sha256: str | None = None


def write_pack(build_folder: Path, pack_path: Path, *, report_bytes: ByteReport = ignore_bytes) -> None:
    """Pack a whole build into one file, completely or not at all.

    Raises `NothingRealized` if the build has no receipt, `BuildChanged` if it does not match its receipt.
    """
    build_folder = build_folder.resolve()
    receipt, manifest = read_receipt(build_folder), read_manifest(build_folder)
    if receipt is None or manifest is None:
        raise NothingRealized(home=build_folder)
    # The folder goes before the pack takes its place: whoever finds a pack has no reason to look for what was left.
    with atomic_file(pack_path) as pack_file:
        with packing_folder(build_folder) as temporary_folder:
            pack_members = _list_members(
                build_folder, manifest, compile_modules(build_folder, temporary_folder), temporary_folder
            )
            pack_file.write(MAGIC)
            count_bytes = ByteCounter("Packing", sum(member.size for member in pack_members), report_bytes)
            packed_frames = tuple(_count_frames(_write_frames(pack_file, pack_members), count_bytes))
        _write_index(pack_file, _make_index(pack_members, manifest, packed_frames, receipt))


def _list_members(
    build_folder: Path, manifest: FileManifest, compiled_modules: Mapping[str, Path], temporary_folder: Path
) -> list[_PackMember]:
    """Return all files by name. A file that is not in the manifest, because somebody added it, is not packed."""

    def make_member(relative_path: str, fact: FileFact) -> _PackMember:
        return _PackMember(relative_path, build_folder / relative_path, fact.size_bytes, fact.executable, fact.sha256)

    pack_members = [make_member(relative_path, fact) for relative_path, fact in manifest.files.items()]
    pack_members.append(
        _PackMember(MANIFEST_FILE, build_folder / MANIFEST_FILE, (build_folder / MANIFEST_FILE).stat().st_size)
    )
    source_folders = {relative_path.rpartition("/")[0] for relative_path in manifest.files}
    bytecode_paths = {
        relative_path: compiled_path
        for relative_path, compiled_path in compiled_modules.items()
        if relative_path.rpartition("/__pycache__/")[0] in source_folders
    }
    listing_path = temporary_folder / BYTECODE_FILE
    listing_path.write_bytes(list_bytecode(bytecode_paths))
    bytecode_paths[BYTECODE_FILE] = listing_path
    pack_members += [
        _PackMember(relative_path, source_path, source_path.stat().st_size)
        for relative_path, source_path in bytecode_paths.items()
    ]
    return sorted(pack_members, key=lambda pack_member: pack_member.path)


def _cut_frames(pack_members: Sequence[_PackMember]) -> Iterator[bytes]:
    """Yield the files' bytes, one after the other, cut into frames. Raises `BuildChanged`."""
    frame_parts: list[bytes] = []
    filled_bytes = 0
    for pack_member in pack_members:
        for content_chunk in _read_chunks(pack_member, FRAME_BYTES - filled_bytes):
            frame_parts.append(content_chunk)
            filled_bytes += len(content_chunk)
            if filled_bytes == FRAME_BYTES:
                yield b"".join(frame_parts)
                frame_parts, filled_bytes = [], 0
    if frame_parts:
        yield b"".join(frame_parts)


def _read_chunks(pack_member: _PackMember, first_size: int) -> Iterator[bytes]:
    """Yield a file's bytes, cut where frames end, while checking them against the manifest."""
    hasher = hashlib.sha256()
    remaining_bytes, chunk_size = pack_member.size, first_size
    with pack_member.source.open("rb", buffering=0) as source_file:
        while remaining_bytes:
            content_chunk = source_file.read(min(chunk_size, remaining_bytes))
            if not content_chunk:
                raise BuildChanged(path=pack_member.source)
            hasher.update(content_chunk)
            remaining_bytes -= len(content_chunk)
            chunk_size = chunk_size - len(content_chunk) or FRAME_BYTES
            yield content_chunk
        if source_file.read(1) or pack_member.sha256 not in {None, hasher.hexdigest()}:
            raise BuildChanged(path=pack_member.source)


def _write_frames(pack_file: BinaryIO, pack_members: Sequence[_PackMember]) -> Iterator[PackedFrame]:
    """Compress on all cores, write in order."""
    core_count = os.cpu_count() or 2
    pending_frames: deque[Future[tuple[bytes, int]]] = deque()
    with ThreadPoolExecutor(max_workers=core_count, thread_name_prefix="pack") as thread_pool:
        for raw_frame in _cut_frames(pack_members):
            pending_frames.append(thread_pool.submit(_compress_bytes, raw_frame))
            # Bounds memory: frames are compressed ahead of the disk, but not without end.
            if len(pending_frames) > 2 * core_count:
                yield _write_frame(pack_file, pending_frames.popleft())
        while pending_frames:
            yield _write_frame(pack_file, pending_frames.popleft())


def _count_frames(packed_frames: Iterator[PackedFrame], count_bytes: ByteCounter) -> Iterator[PackedFrame]:
    for packed_frame in packed_frames:
        count_bytes(packed_frame.size)
        yield packed_frame


def _compress_bytes(content: bytes) -> tuple[bytes, int]:
    import zstandard

    return zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(content), len(content)


def _write_frame(pack_file: BinaryIO, pending_frame: "Future[tuple[bytes, int]]") -> PackedFrame:
    packed_bytes, raw_size = pending_frame.result()
    pack_file.write(packed_bytes)
    return PackedFrame(len(packed_bytes), raw_size, hashlib.sha256(packed_bytes).hexdigest())


def _make_index(
    pack_members: Sequence[_PackMember],
    manifest: FileManifest,
    packed_frames: tuple[PackedFrame, ...],
    receipt: Receipt,
) -> PackIndex:
    entry_names = [*(pack_member.path for pack_member in pack_members), *manifest.links]
    return PackIndex(
        folders=tuple(
            sorted({parent_folder for relative_path in entry_names for parent_folder in _parent_folders(relative_path)})
        ),
        files=tuple((pack_member.path, pack_member.size, pack_member.executable) for pack_member in pack_members),
        links=tuple(sorted(manifest.links.items())),
        frames=packed_frames,
        receipt=dict(receipt.to_json()),
    )


def _write_index(pack_file: BinaryIO, pack_index: PackIndex) -> None:
    packed_bytes, _ = _compress_bytes(encode_index(pack_index))
    offset = pack_file.tell()
    pack_file.write(packed_bytes)
    pack_file.write(TRAILER.pack(offset, len(packed_bytes), bytes.fromhex(Digest.of(packed_bytes).hex), MAGIC))


def _parent_folders(relative_path: str) -> Iterator[str]:
    while relative_path := relative_path.rpartition("/")[0]:
        yield relative_path

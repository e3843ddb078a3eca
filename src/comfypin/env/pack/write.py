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
from comfypin.env.receipt import Receipt, read_receipt

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


def write_pack(build: Path, path: Path) -> None:
    """Pack a whole build into one file, completely or not at all.

    Raises `NothingRealized` if the build has no receipt, `BuildChanged` if it does not match its receipt.
    """
    build = build.resolve()
    receipt, manifest = read_receipt(build), read_manifest(build)
    if receipt is None or manifest is None:
        raise NothingRealized(home=build)
    # The folder goes before the pack takes its place: whoever finds a pack has no reason to look for what was left.
    with atomic_file(path) as file:
        with packing_folder(build) as scratch:
            members = _list_members(build, manifest, compile_modules(build, scratch), scratch)
            file.write(MAGIC)
            frames = tuple(_write_frames(file, members))
        _write_index(file, _make_index(members, manifest, frames, receipt))


def _list_members(build: Path, manifest: FileManifest, modules: Mapping[str, Path], scratch: Path) -> list[_PackMember]:
    """Return all files by name. A file that is not in the manifest, because somebody added it, is not packed."""

    def make_member(name: str, fact: FileFact) -> _PackMember:
        return _PackMember(name, build / name, fact.size_bytes, fact.executable, fact.sha256)

    found = [make_member(name, fact) for name, fact in manifest.files.items()]
    found.append(_PackMember(MANIFEST_FILE, build / MANIFEST_FILE, (build / MANIFEST_FILE).stat().st_size))
    sources = {name.rpartition("/")[0] for name in manifest.files}
    bytecode = {name: path for name, path in modules.items() if name.rpartition("/__pycache__/")[0] in sources}
    listed = scratch / BYTECODE_FILE
    listed.write_bytes(list_bytecode(bytecode))
    bytecode[BYTECODE_FILE] = listed
    found += [_PackMember(name, source, source.stat().st_size) for name, source in bytecode.items()]
    return sorted(found, key=lambda one: one.path)


def _cut_frames(members: Sequence[_PackMember]) -> Iterator[bytes]:
    """Yield the files' bytes, one after the other, cut into frames. Raises `BuildChanged`."""
    parts: list[bytes] = []
    filled = 0
    for member in members:
        for chunk in _read_chunks(member, FRAME_BYTES - filled):
            parts.append(chunk)
            filled += len(chunk)
            if filled == FRAME_BYTES:
                yield b"".join(parts)
                parts, filled = [], 0
    if parts:
        yield b"".join(parts)


def _read_chunks(member: _PackMember, first_size: int) -> Iterator[bytes]:
    """Yield a file's bytes, cut where frames end, while checking them against the manifest."""
    hasher = hashlib.sha256()
    left, size = member.size, first_size
    with member.source.open("rb", buffering=0) as file:
        while left:
            chunk = file.read(min(size, left))
            if not chunk:
                raise BuildChanged(path=member.source)
            hasher.update(chunk)
            left -= len(chunk)
            size = size - len(chunk) or FRAME_BYTES
            yield chunk
        if file.read(1) or member.sha256 not in {None, hasher.hexdigest()}:
            raise BuildChanged(path=member.source)


def _write_frames(file: BinaryIO, members: Sequence[_PackMember]) -> Iterator[PackedFrame]:
    """Compress on all cores, write in order."""
    cores = os.cpu_count() or 2
    waiting: deque[Future[tuple[bytes, int]]] = deque()
    with ThreadPoolExecutor(max_workers=cores, thread_name_prefix="pack") as pool:
        for raw in _cut_frames(members):
            waiting.append(pool.submit(_compress_bytes, raw))
            # Bounds memory: frames are compressed ahead of the disk, but not without end.
            if len(waiting) > 2 * cores:
                yield _write_frame(file, waiting.popleft())
        while waiting:
            yield _write_frame(file, waiting.popleft())


def _compress_bytes(data: bytes) -> tuple[bytes, int]:
    import zstandard

    return zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(data), len(data)


def _write_frame(file: BinaryIO, made: "Future[tuple[bytes, int]]") -> PackedFrame:
    packed, size = made.result()
    file.write(packed)
    return PackedFrame(len(packed), size, hashlib.sha256(packed).hexdigest())


def _make_index(
    members: Sequence[_PackMember], manifest: FileManifest, frames: tuple[PackedFrame, ...], receipt: Receipt
) -> PackIndex:
    names = [*(member.path for member in members), *manifest.links]
    return PackIndex(
        folders=tuple(sorted({folder for name in names for folder in _parent_folders(name)})),
        files=tuple((member.path, member.size, member.executable) for member in members),
        links=tuple(sorted(manifest.links.items())),
        frames=frames,
        receipt=dict(receipt.to_json()),
    )


def _write_index(file: BinaryIO, index: PackIndex) -> None:
    packed, _ = _compress_bytes(encode_index(index))
    offset = file.tell()
    file.write(packed)
    file.write(TRAILER.pack(offset, len(packed), bytes.fromhex(Digest.of(packed).hex), MAGIC))


def _parent_folders(name: str) -> Iterator[str]:
    while name := name.rpartition("/")[0]:
        yield name

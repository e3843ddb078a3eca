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
from comfypin.env.file_manifest import FileFact, Manifest, read_manifest
from comfypin.env.layout import BYTECODE, MANIFEST, packing_folder
from comfypin.env.pack.format import FRAME_BYTES, MAGIC, TRAILER, Index, PackedFrame, encode_index
from comfypin.env.receipt import Receipt, read_receipt

LEVEL = 6


@dataclass(frozen=True, slots=True)
class _Member:
    """A file to be packed: its name in the pack, where it is, and its size and digest (None: not in the manifest)."""

    path: str
    source: Path
    size: int
    executable: bool = False
    sha256: str | None = None


def write_pack(build: Path, path: Path) -> None:
    """Pack a whole build into one file; whole or not at all.

    Raises `NothingRealized` where the build has no receipt, `BuildChanged` where it is not what its receipt says.
    """
    build = build.resolve()
    receipt, manifest = read_receipt(build), read_manifest(build)
    if receipt is None or manifest is None:
        raise NothingRealized(home=build)
    # The folder goes before the pack takes its place: whoever finds a pack has no reason to look for what was left.
    with atomic_file(path) as file:
        with packing_folder(build) as scratch:
            members = _members(build, manifest, compile_modules(build, scratch), scratch)
            file.write(MAGIC)
            frames = tuple(_write_frames(file, members))
        _write_index(file, _index(members, manifest, frames, receipt))


def _members(build: Path, manifest: Manifest, modules: Mapping[str, Path], scratch: Path) -> list[_Member]:
    """All files by name. What is not in the manifest (somebody added it) is not packed."""

    def member(name: str, fact: FileFact) -> _Member:
        return _Member(name, build / name, fact.size_bytes, fact.executable, fact.sha256)

    found = [member(name, fact) for name, fact in manifest.files.items()]
    found.append(_Member(MANIFEST, build / MANIFEST, (build / MANIFEST).stat().st_size))
    sources = {name.rpartition("/")[0] for name in manifest.files}
    bytecode = {name: path for name, path in modules.items() if name.rpartition("/__pycache__/")[0] in sources}
    listed = scratch / BYTECODE
    listed.write_bytes(list_bytecode(bytecode))
    bytecode[BYTECODE] = listed
    found += [_Member(name, source, source.stat().st_size) for name, source in bytecode.items()]
    return sorted(found, key=lambda one: one.path)


def _raw_frames(members: Sequence[_Member]) -> Iterator[bytes]:
    """The files' bytes, one after the other, cut into frames. Raises `BuildChanged`."""
    parts: list[bytes] = []
    filled = 0
    for member in members:
        for chunk in _chunks(member, FRAME_BYTES - filled):
            parts.append(chunk)
            filled += len(chunk)
            if filled == FRAME_BYTES:
                yield b"".join(parts)
                parts, filled = [], 0
    if parts:
        yield b"".join(parts)


def _chunks(member: _Member, first_size: int) -> Iterator[bytes]:
    """A file's bytes, cut where frames end, found to be what the manifest says while they are read."""
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


def _write_frames(file: BinaryIO, members: Sequence[_Member]) -> Iterator[PackedFrame]:
    """Compress on all cores, write in order."""
    cores = os.cpu_count() or 2
    waiting: deque[Future[tuple[bytes, int]]] = deque()
    with ThreadPoolExecutor(max_workers=cores, thread_name_prefix="pack") as pool:
        for raw in _raw_frames(members):
            waiting.append(pool.submit(_compress, raw))
            if len(waiting) > 2 * cores:
                yield _put(file, waiting.popleft())
        while waiting:
            yield _put(file, waiting.popleft())


def _compress(data: bytes) -> tuple[bytes, int]:
    import zstandard

    return zstandard.ZstdCompressor(level=LEVEL).compress(data), len(data)


def _put(file: BinaryIO, made: "Future[tuple[bytes, int]]") -> PackedFrame:
    packed, size = made.result()
    file.write(packed)
    return PackedFrame(len(packed), size, hashlib.sha256(packed).hexdigest())


def _index(members: Sequence[_Member], manifest: Manifest, frames: tuple[PackedFrame, ...], receipt: Receipt) -> Index:
    names = [*(member.path for member in members), *manifest.links]
    return Index(
        folders=tuple(sorted({folder for name in names for folder in _parents(name)})),
        files=tuple((member.path, member.size, member.executable) for member in members),
        links=tuple(sorted(manifest.links.items())),
        frames=frames,
        receipt=dict(receipt.to_json()),
    )


def _write_index(file: BinaryIO, index: Index) -> None:
    packed, _ = _compress(encode_index(index))
    offset = file.tell()
    file.write(packed)
    file.write(TRAILER.pack(offset, len(packed), bytes.fromhex(Digest.of(packed).hex), MAGIC))


def _parents(name: str) -> Iterator[str]:
    while name := name.rpartition("/")[0]:
        yield name

"""Packs a build into one file: every file, link and module's byte-code, compressed by all cores."""

import hashlib
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from comfypin.digest import Digest
from comfypin.env.bytecode import compile_modules
from comfypin.env.layout import MANIFEST
from comfypin.env.manifest import FileFact, Manifest, read_manifest
from comfypin.env.packformat import FRAME_BYTES, MAGIC, TRAILER, Frame, Index, Segment, encode_index
from comfypin.env.receipt import Receipt, read_receipt
from comfypin.errors.env import BuildChanged, NothingRealized
from comfypin.files import atomic_file

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
    with tempfile.TemporaryDirectory(prefix="comfypin-bytecode-") as scratch:
        members = _members(build, manifest, compile_modules(build, Path(scratch)))
        with atomic_file(path) as file:
            file.write(MAGIC)
            frames = tuple(_write_frames(file, members))
            _write_index(file, _index(members, manifest, frames, receipt))


def _members(build: Path, manifest: Manifest, bytecode: Mapping[str, Path]) -> list[_Member]:
    """All files by name. What is not in the manifest (somebody added it) is not packed."""

    def member(name: str, fact: FileFact) -> _Member:
        return _Member(name, build / name, fact.size_bytes, fact.executable, fact.sha256)

    found = [member(name, fact) for name, fact in manifest.files.items()]
    found.append(_Member(MANIFEST, build / MANIFEST, (build / MANIFEST).stat().st_size))
    sources = {name.rpartition("/")[0] for name in manifest.files}
    found += [
        _Member(name, source, source.stat().st_size)
        for name, source in bytecode.items()
        if name.rpartition("/__pycache__/")[0] in sources
    ]
    return sorted(found, key=lambda one: one.path)


def _plan_frames(members: Sequence[_Member]) -> Iterator[tuple[Segment, ...]]:
    """Cut the files, in order, into frames of about `FRAME_BYTES` (pure)."""
    segments: list[Segment] = []
    filled = 0
    for number, member in enumerate(members):
        offset = 0
        while True:
            size = min(member.size - offset, FRAME_BYTES - filled)
            segments.append(Segment(number, offset, size))
            offset, filled = offset + size, filled + size
            if filled >= FRAME_BYTES:
                yield tuple(segments)
                segments, filled = [], 0
            if offset >= member.size:
                break
    if segments:
        yield tuple(segments)


def _write_frames(file: BinaryIO, members: Sequence[_Member]) -> Iterator[Frame]:
    """Compress on all cores, write in order."""
    cores = os.cpu_count() or 2
    waiting: deque[tuple[tuple[Segment, ...], Future[tuple[bytes, int]]]] = deque()
    checks = _Checks(members)
    with ThreadPoolExecutor(max_workers=cores, thread_name_prefix="pack") as pool:
        for segments in _plan_frames(members):
            waiting.append((segments, pool.submit(_compress, checks.read(segments))))
            if len(waiting) > 2 * cores:
                yield _put(file, *waiting.popleft())
        while waiting:
            yield _put(file, *waiting.popleft())


class _Checks:
    """Reads members in order, and finds out when one is not what the manifest says."""

    def __init__(self, members: Sequence[_Member]) -> None:
        self._members = members
        self._hasher = hashlib.sha256()

    def read(self, segments: Sequence[Segment]) -> bytes:
        """The bytes of a frame. Raises `BuildChanged`."""
        parts = []
        for segment in segments:
            member = self._members[segment.file]
            with member.source.open("rb") as file:
                file.seek(segment.offset)
                data = file.read(segment.size)
            self._hasher.update(data)
            parts.append(data)
            if segment.offset + segment.size == member.size:
                if len(data) != segment.size or member.sha256 not in (None, self._hasher.hexdigest()):
                    raise BuildChanged(path=member.source)
                self._hasher = hashlib.sha256()
        return b"".join(parts)


def _compress(data: bytes) -> tuple[bytes, int]:
    import zstandard

    return zstandard.ZstdCompressor(level=LEVEL).compress(data), len(data)


def _put(file: BinaryIO, segments: tuple[Segment, ...], made: "Future[tuple[bytes, int]]") -> Frame:
    packed, size = made.result()
    offset = file.tell()
    file.write(packed)
    return Frame(offset, len(packed), size, hashlib.sha256(packed).hexdigest(), segments)


def _index(members: Sequence[_Member], manifest: Manifest, frames: tuple[Frame, ...], receipt: Receipt) -> Index:
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

"""The bytes of an env pack: zstd frames of a few MiB, each with its sha256, then an index, then a trailer.

`MAGIC | frame ... | index | index offset (8) | index size (8) | sha256 of the index (32) | MAGIC`

Frames are independent, so they are made, fetched, verified and written in parallel and in any order; a file that is
larger than a frame spans several. The index lists folders, files (path, executable), links and, for each frame, which
bytes of which file it holds. Nothing in a pack has an owner, a time, or an absolute path. (pure)
"""

import json
import struct
from dataclasses import dataclass

from comfypin.digest import Digest
from comfypin.files import link_stays_inside

MAGIC = b"comfypin-env-pk1"
TRAILER = struct.Struct(f"<QQ32s{len(MAGIC)}s")
FRAME_BYTES = 4 << 20
MAX_FRAME_BYTES = 64 << 20
MAX_INDEX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes of a file: which file, from which offset, how many."""

    file: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame: where it is in the pack, its compressed and raw sizes, its sha256 (compressed), and what it holds."""

    offset: int
    packed_size: int
    size: int
    sha256: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """All of a pack but its bytes. `receipt` is the JSON of the env's receipt."""

    folders: tuple[str, ...]
    files: tuple[tuple[str, int, bool], ...]
    links: tuple[tuple[str, str], ...]
    frames: tuple[Frame, ...]
    receipt: dict[str, object]

    @property
    def size_bytes(self) -> int:
        """The size of all files when they are unpacked."""
        return sum(size for _, size, _ in self.files)


def encode_index(index: Index) -> bytes:
    """The index as JSON; the caller compresses it."""
    frames = [
        [
            frame.offset,
            frame.packed_size,
            frame.size,
            frame.sha256,
            [[s.file, s.offset, s.size] for s in frame.segments],
        ]
        for frame in index.frames
    ]
    tree = {
        "folders": index.folders,
        "files": index.files,
        "links": index.links,
        "frames": frames,
        "receipt": index.receipt,
    }
    return json.dumps(tree, separators=(",", ":")).encode()


def decode_index(data: bytes) -> Index:
    """Parse an index and check all of it. Raises `ValueError` saying what is wrong."""
    try:
        tree = json.loads(data)
        frames = tuple(
            Frame(
                int(at), int(packed), int(size), Digest(str(sha256)).hex, tuple(Segment(*map(int, s)) for s in segments)
            )
            for at, packed, size, sha256, segments in tree["frames"]
        )
        index = Index(
            folders=tuple(str(folder) for folder in tree["folders"]),
            files=tuple((str(path), int(size), bool(executable)) for path, size, executable in tree["files"]),
            links=tuple((str(path), str(target)) for path, target in tree["links"]),
            frames=frames,
            receipt=dict(tree["receipt"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"its index is not one ({error})") from error
    _check_names(index)
    _check_frames(index)
    return index


def _check_names(index: Index) -> None:
    """Every name stays inside, once; every file's folder is listed, so nothing is written through a link."""
    folders = set(index.folders)
    names = [*index.folders, *(path for path, _, _ in index.files), *(path for path, _ in index.links)]
    if len(set(names)) != len(names):
        raise ValueError("a name is there twice")
    for name in names:
        if not name or name.startswith("/") or "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
            raise ValueError(f"the name {name!r} does not stay inside")
        parent = name.rpartition("/")[0]
        if parent and parent not in folders:
            raise ValueError(f"the folder of {name!r} is not listed")
    for path, target in index.links:
        if not link_stays_inside(path, target):
            raise ValueError(f"the link {path!r} leads out")


def _check_frames(index: Index) -> None:
    """Frames follow each other, and together hold every byte of every file exactly once."""
    at = len(MAGIC)
    wanted = [size for _, size, _ in index.files]
    held: dict[int, list[tuple[int, int]]] = {}
    for frame in index.frames:
        if frame.offset != at or frame.packed_size <= 0 or not 0 <= frame.size <= MAX_FRAME_BYTES:
            raise ValueError("its frames do not follow each other")
        at += frame.packed_size
        if sum(segment.size for segment in frame.segments) != frame.size:
            raise ValueError("a frame holds more or less than its files need")
        for segment in frame.segments:
            if not 0 <= segment.file < len(wanted) or segment.offset < 0 or segment.size < 0:
                raise ValueError("a frame holds bytes of no file")
            held.setdefault(segment.file, []).append((segment.offset, segment.size))
    for number, size in enumerate(wanted):
        end = 0
        for offset, length in sorted(held.get(number, [])):
            if offset != end:
                raise ValueError("a file's bytes are not all there")
            end += length
        if end != size or size < 0 or (size == 0 and number not in held):
            raise ValueError("a file's bytes are not all there")

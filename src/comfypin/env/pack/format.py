"""The bytes of an env pack: zstd frames of a few MiB, each with its sha256, then an index, then a trailer.

`MAGIC | frame ... | index | index offset (8) | index size (8) | sha256 of the index (32) | MAGIC`

The files stand one after the other, in the index's order, and are cut into frames of equal size wherever that falls. So
frames are independent: they are made, fetched, verified and written in parallel and in any order, and every byte of
every file is in exactly one of them. Nothing in a pack has an owner, a time, or an absolute path. (pure)
"""

import json
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from comfypin.atomic_files import link_stays_inside
from comfypin.digest import Digest

MAGIC = b"comfypin-env-pk1"
TRAILER = struct.Struct(f"<QQ32s{len(MAGIC)}s")
# Large enough for a good ratio, small enough that dozens are in flight at once.
FRAME_BYTES = 4 << 20
MAX_FRAME_BYTES = 16 << 20
# Half a million files need about 60 MiB. Ours is a tenth as large when it is compressed, never a hundredth.
MAX_INDEX_BYTES = 128 << 20
MAX_INDEX_RATIO = 100
_LEAST_INDEX_BYTES = 1 << 20
# JSON of nothing but brackets takes forty times its size in memory.
_MAX_ENTRIES = 1_000_000
# An empty part, `.`, `..` or a NUL: such a name does not stay inside, or has a second spelling.
_UNSAFE_NAME = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|\0")


@dataclass(frozen=True, slots=True)
class PlacedFrame:
    """Places a frame in the pack: its offset, its compressed and raw sizes, and its sha256 (compressed).

    It begins with byte `file_offset` of file number `first_file`.
    """

    offset: int
    packed_size: int
    size: int
    sha256: str
    first_file: int
    file_offset: int


@dataclass(frozen=True, slots=True)
class PackedFrame:
    """Holds what the index says about a frame; the rest follows from the order."""

    packed_size: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackIndex:
    """Holds all of a pack but its bytes. `files` are path, size, executable; `receipt` is the JSON of the env's
    receipt.
    """

    folders: tuple[str, ...]
    files: tuple[tuple[str, int, bool], ...]
    links: tuple[tuple[str, str], ...]
    frames: tuple[PackedFrame, ...]
    receipt: dict[str, object]

    @property
    def size_bytes(self) -> int:
        """Return the size of all files when they are unpacked."""
        return sum(size for _, size, _ in self.files)

    def placed_frames(self) -> Iterator[PlacedFrame]:
        """Yield the frames with their offsets in the pack and in the files."""
        offset, number, within = len(MAGIC), 0, 0
        for frame in self.frames:
            yield PlacedFrame(offset, frame.packed_size, frame.size, frame.sha256, number, within)
            offset += frame.packed_size
            within += frame.size
            while number < len(self.files) and within >= self.files[number][1]:
                within -= self.files[number][1]
                number += 1


def frame_segments(files: Sequence[tuple[str, int, bool]], frame: PlacedFrame) -> Iterator[tuple[int, int, int]]:
    """Yield the parts of files that a frame holds, in order: file number, offset in the file, size. Skips empty
    files.
    """
    number, offset, left = frame.first_file, frame.file_offset, frame.size
    while left:
        size = min(files[number][1] - offset, left)
        if size:
            yield number, offset, size
        left -= size
        number, offset = number + 1, 0


def index_limit(packed_size: int) -> int:
    """Return the most bytes that an index of this compressed size may unpack to."""
    return min(MAX_INDEX_BYTES, max(_LEAST_INDEX_BYTES, MAX_INDEX_RATIO * packed_size))


def encode_index(index: PackIndex) -> bytes:
    """Return the index as JSON; the caller compresses it."""
    tree = {
        "folders": index.folders,
        "files": index.files,
        "links": index.links,
        "frames": [(frame.packed_size, frame.size, frame.sha256) for frame in index.frames],
        "receipt": index.receipt,
    }
    return json.dumps(tree, separators=(",", ":")).encode()


def decode_index(data: bytes) -> PackIndex:
    """Parse an index and check all of it. Raises `ValueError` saying what is wrong."""
    if data.count(b"[") + data.count(b"{") > _MAX_ENTRIES:
        raise ValueError(f"its index has more than {_MAX_ENTRIES:,} entries")
    try:
        tree = json.loads(data)
        index = PackIndex(
            folders=tuple(map(str, tree["folders"])),
            files=tuple((str(path), int(size), bool(executable)) for path, size, executable in tree["files"]),
            links=tuple((str(path), str(target)) for path, target in tree["links"]),
            frames=tuple(
                PackedFrame(int(packed), int(size), Digest(str(sha256)).hex) for packed, size, sha256 in tree["frames"]
            ),
            receipt=dict(tree["receipt"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"its index is invalid ({error})") from error
    _check_names(index)
    _check_sizes(index)
    return index


def _check_names(index: PackIndex) -> None:
    """Require that every name stays inside, once, and that every file's folder is listed, so nothing follows a link."""
    folders = set(index.folders)
    names = [*index.folders, *(path for path, _, _ in index.files), *(path for path, _ in index.links)]
    # A second entry of a name could replace a file that was verified already.
    if len(set(names)) != len(names):
        raise ValueError("a name appears twice")
    for name in names:
        if _UNSAFE_NAME.search(name):
            raise ValueError(f"the name {name!r} does not stay inside the folder")
        parent = name.rpartition("/")[0]
        if parent and parent not in folders:
            raise ValueError(f"the folder of {name!r} is not listed")
    # A link that leads out could make a later reader follow it to files of the machine.
    for path, target in index.links:
        if not link_stays_inside(path, target):
            raise ValueError(f"the link {path!r} leads out of the folder")


def _check_sizes(index: PackIndex) -> None:
    """Require that the frames hold as many bytes as the files have."""
    if any(size < 0 for _, size, _ in index.files):
        raise ValueError("a file has a negative size")
    if any(frame.packed_size <= 0 or not 0 < frame.size <= MAX_FRAME_BYTES for frame in index.frames):
        raise ValueError("a frame has an impossible size")
    if any(frame.packed_size > _packed_limit(frame.size) for frame in index.frames):
        raise ValueError("a frame is larger than its content can be")
    if sum(frame.size for frame in index.frames) != index.size_bytes:
        raise ValueError("its frames do not hold as many bytes as its files")


def _packed_limit(size: int) -> int:
    """Return the most bytes that zstd makes of `size` bytes; `ZSTD_COMPRESSBOUND`, rounded up."""
    return size + (size >> 7) + 1024

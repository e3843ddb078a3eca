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
# A reader allocates a whole frame, so this bounds its memory, whatever the file claims.
MAX_FRAME_BYTES = 16 << 20
# Half a million files need about 60 MiB. Ours is a tenth as large when it is compressed, never a hundredth.
MAX_INDEX_BYTES = 128 << 20
# Lists of files compress well, but a hundred times is a bomb.
MAX_INDEX_RATIO = 100
# Tiny packs compress better than the ratio expects, and a megabyte harms nobody.
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
        return sum(size_bytes for _, size_bytes, _ in self.files)

    def placed_frames(self) -> Iterator[PlacedFrame]:
        """Yield the frames with their offsets in the pack and in the files."""
        pack_offset, file_number, file_offset = len(MAGIC), 0, 0
        for packed_frame in self.frames:
            yield PlacedFrame(
                pack_offset, packed_frame.packed_size, packed_frame.size, packed_frame.sha256, file_number, file_offset
            )
            pack_offset += packed_frame.packed_size
            file_offset += packed_frame.size
            while file_number < len(self.files) and file_offset >= self.files[file_number][1]:
                file_offset -= self.files[file_number][1]
                file_number += 1


def frame_segments(files: Sequence[tuple[str, int, bool]], placed_frame: PlacedFrame) -> Iterator[tuple[int, int, int]]:
    """Yield the parts of files that a frame holds, in order: file number, offset in the file, size. Skips empty
    files.
    """
    file_number, file_offset, remaining_bytes = placed_frame.first_file, placed_frame.file_offset, placed_frame.size
    while remaining_bytes:
        size_bytes = min(files[file_number][1] - file_offset, remaining_bytes)
        if size_bytes:
            yield file_number, file_offset, size_bytes
        remaining_bytes -= size_bytes
        file_number, file_offset = file_number + 1, 0


def index_limit(packed_size: int) -> int:
    """Return the most bytes that an index of this compressed size may unpack to."""
    return min(MAX_INDEX_BYTES, max(_LEAST_INDEX_BYTES, MAX_INDEX_RATIO * packed_size))


def encode_index(pack_index: PackIndex) -> bytes:
    """Return the index as JSON; the caller compresses it."""
    parsed_json = {
        "folders": pack_index.folders,
        "files": pack_index.files,
        "links": pack_index.links,
        "frames": [
            (packed_frame.packed_size, packed_frame.size, packed_frame.sha256) for packed_frame in pack_index.frames
        ],
        "receipt": pack_index.receipt,
    }
    return json.dumps(parsed_json, separators=(",", ":")).encode()


def decode_index(index_bytes: bytes) -> PackIndex:
    """Parse an index and check all of it. Raises `ValueError` saying what is wrong."""
    if index_bytes.count(b"[") + index_bytes.count(b"{") > _MAX_ENTRIES:
        raise ValueError(f"its index has more than {_MAX_ENTRIES:,} entries")
    try:
        parsed_json = json.loads(index_bytes)
        pack_index = PackIndex(
            folders=tuple(map(str, parsed_json["folders"])),
            files=tuple(
                (str(relative_path), int(size_bytes), bool(executable))
                for relative_path, size_bytes, executable in parsed_json["files"]
            ),
            links=tuple((str(relative_path), str(link_target)) for relative_path, link_target in parsed_json["links"]),
            frames=tuple(
                PackedFrame(int(packed_size), int(size_bytes), Digest(str(sha256)).hex)
                for packed_size, size_bytes, sha256 in parsed_json["frames"]
            ),
            receipt=dict(parsed_json["receipt"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"its index is invalid ({error})") from error
    _check_names(pack_index)
    _check_sizes(pack_index)
    return pack_index


def _check_names(pack_index: PackIndex) -> None:
    """Require that every name stays inside, once, and that every file's folder is listed, so nothing follows a link."""
    folder_names = set(pack_index.folders)
    entry_names = [
        *pack_index.folders,
        *(relative_path for relative_path, _, _ in pack_index.files),
        *(relative_path for relative_path, _ in pack_index.links),
    ]
    # A second entry of a name could replace a file that was verified already.
    if len(set(entry_names)) != len(entry_names):
        raise ValueError("a name appears twice")
    for entry_name in entry_names:
        if _UNSAFE_NAME.search(entry_name):
            raise ValueError(f"the name {entry_name!r} does not stay inside the folder")
        parent_folder = entry_name.rpartition("/")[0]
        if parent_folder and parent_folder not in folder_names:
            raise ValueError(f"the folder of {entry_name!r} is not listed")
    # A link that leads out could make a later reader follow it to files of the machine.
    for relative_path, link_target in pack_index.links:
        if not link_stays_inside(relative_path, link_target):
            raise ValueError(f"the link {relative_path!r} leads out of the folder")


def _check_sizes(pack_index: PackIndex) -> None:
    """Require that the frames hold as many bytes as the files have."""
    if any(size_bytes < 0 for _, size_bytes, _ in pack_index.files):
        raise ValueError("a file has a negative size")
    if any(
        packed_frame.packed_size <= 0 or not 0 < packed_frame.size <= MAX_FRAME_BYTES
        for packed_frame in pack_index.frames
    ):
        raise ValueError("a frame has an impossible size")
    if any(packed_frame.packed_size > _packed_limit(packed_frame.size) for packed_frame in pack_index.frames):
        raise ValueError("a frame is larger than its content can be")
    if sum(packed_frame.size for packed_frame in pack_index.frames) != pack_index.size_bytes:
        raise ValueError("its frames do not hold as many bytes as its files")


def _packed_limit(size_bytes: int) -> int:
    """Return the most bytes that zstd makes of `size_bytes` bytes; `ZSTD_COMPRESSBOUND`, rounded up."""
    return size_bytes + (size_bytes >> 7) + 1024

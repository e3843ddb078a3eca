"""Take the mark of a submission out of the metadata of a file that a node saved under a marked name.

A save node of a pack writes the prompt as it got it, so the prefix there holds our mark. The mark is taken out where it
stands, and the file keeps its size: in JSON, spaces before a text mean nothing, so

    "filename_prefix": "cp0123456789abcdef_cat"   becomes   "filename_prefix":                    "cat"

and no offset, length or index of any format moves. PNG has a checksum of each chunk, which is made anew. Other
formats with checksums over their metadata, and compressed metadata, keep it.
"""

import contextlib
import errno
import itertools
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# Where metadata are: at the beginning, in long videos at the end.
_WITHIN_BYTES = 4 << 20
# Of files that are read-only, or another user's, as an engine's in another container: the job is done all the same.
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
# Compared as a whole first: most of a file stays as it was.
_BLOCK_BYTES = 4096
_PNG = b"\x89PNG\r\n\x1a\n"
# Formats without checksums over their metadata, by what they begin with: GIF, JPEG, WebP and its kin, TIFF, OpenEXR,
# FLAC, MP3, glTF, JSON; MP4 and its kin; safetensors. Ogg, Matroska and zip (so PyTorch's files) have such checksums.
_UNCHECKED = re.compile(
    rb"(?:GIF8|\xff\xd8\xff|RIFF|II\*\0|MM\0\*|v/1\x01|fLaC|ID3|glTF|\s*[{\[]|.{4}ftyp|.{8}\{)", re.DOTALL
)


def clear_mark(path: Path, mark: str) -> bool:
    """Take a mark out of a file's metadata, in place; return whether none is left that could be seen. Blocks.

    A file that may not be written keeps its mark. Raises `OSError` for what else is wrong with one.
    """
    status = path.stat()
    # Bytes that have another name too may be a model's, or the user's own.
    if status.st_nlink > 1 or path.is_symlink():
        return True
    with path.open("rb") as file:
        regions = _read_ends(file, status.st_size)
    if not any(mark.encode() in region_bytes for _, region_bytes in regions):
        return True
    is_png = regions[0][1].startswith(_PNG)
    if not is_png and not _UNCHECKED.match(regions[0][1]):
        return False
    try:
        with path.open("r+b", buffering=0) as raw_file:
            # The chunks of a PNG are known from its beginning only.
            for offset, region_bytes in regions[:1] if is_png else regions:
                cleared = _shift_texts(region_bytes, mark.encode())
                if is_png:
                    cleared = _sum_chunks(region_bytes, cleared)
                # No byte that stays as it was: a node may go on writing beside it.
                for start, end in _find_changes(region_bytes, cleared):
                    raw_file.seek(offset + start)
                    raw_file.write(cleared[start:end])
    except OSError as exc:
        if exc.errno not in _NOT_OURS:
            raise
        return False
    with path.open("rb") as file:
        return not any(mark.encode() in region_bytes for _, region_bytes in _read_ends(file, status.st_size))


def _read_ends(file: BinaryIO, size_bytes: int) -> list[tuple[int, bytes]]:
    """Return the parts of a file that may hold metadata, each with its offset; they do not overlap."""
    regions = [(0, file.read(_WITHIN_BYTES))]
    if (tail := max(_WITHIN_BYTES, size_bytes - _WITHIN_BYTES)) < size_bytes:
        file.seek(tail)
        regions.append((tail, file.read()))
    return regions


def _shift_texts(data: bytes, mark: bytes) -> bytes:
    """Move the spaces that replace a mark before the text that it was in; the text may be JSON within JSON."""
    text = re.compile(
        # After what may stand before a value, the quote (escaped, within JSON in JSON) and the folders of a prefix.
        rb'(?<=[:, \[])(\\*"(?:[^"\\\x00-\x1f]|\\+u[0-9a-fA-F]{4})*?)'
        + re.escape(mark)
        # Ids of the nodes that we added stay what links call them.
        + rb'(?!\d+\\*"(?::|, ?\d+\]))'
    )
    return text.sub(lambda found: b" " * len(mark) + found[1], data)


def _find_changes(before: bytes, after: bytes) -> Iterator[tuple[int, int]]:
    """Yield where bytes of the same length differ, as beginnings and ends."""
    start = 0
    while start < len(before):
        block_end = start + _BLOCK_BYTES
        if before[start:block_end] != after[start:block_end]:
            differing = [at for at in range(start, min(block_end, len(before))) if before[at] != after[at]]
            for _, run in itertools.groupby(enumerate(differing), lambda numbered: numbered[1] - numbered[0]):
                positions = [at for _, at in run]
                yield positions[0], positions[-1] + 1
        start = block_end


def _sum_chunks(before: bytes, after: bytes) -> bytes:
    """Return a PNG with the checksums of the chunks that changed; a chunk that is cut stays as it was."""
    summed, position = bytearray(after), len(_PNG)
    with contextlib.suppress(struct.error):
        while position < len(before):
            (length,) = struct.unpack_from(">I", before, position)
            end = position + 8 + length
            if end + 4 > len(before):
                summed[position:] = before[position:]
                break
            if before[position:end] != after[position:end]:
                struct.pack_into(">I", summed, end, zlib.crc32(after[position + 4 : end]))
            position = end + 4
    return bytes(summed)

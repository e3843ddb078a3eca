"""Take the mark of a submission out of the metadata of a file that a node saved under a marked name.

A save node of a pack writes the prompt as it got it, so the prefix there holds our mark. The mark is taken out where it
stands, and the file keeps its size: in JSON, spaces before a text mean nothing, so

    "filename_prefix": "cp0123456789abcdef_cat"   becomes   "filename_prefix":                    "cat"

and no offset, length or index of any format moves. PNG has a checksum of each chunk, which is made anew. Other
formats with checksums over their metadata, and compressed metadata, keep it.
"""

import contextlib
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

# Where metadata are: at the beginning, in long videos at the end.
_WITHIN_BYTES = 4 << 20
_PNG = b"\x89PNG\r\n\x1a\n"
# Formats without checksums over their metadata, by what they begin with: GIF, JPEG, WebP and its kin, TIFF, OpenEXR,
# FLAC, MP3, glTF, JSON; MP4 and its kin; safetensors. Ogg, Matroska and zip (so PyTorch's files) have such checksums.
_UNCHECKED = re.compile(
    rb"(?:GIF8|\xff\xd8\xff|RIFF|II\*\0|MM\0\*|v/1\x01|fLaC|ID3|glTF|\s*[{\[]|.{4}ftyp|.{8}\{)", re.DOTALL
)


def clear_mark(path: Path, mark: str) -> bool:
    """Take a mark out of a file's metadata, in place; return whether none is left that could be seen. Blocks.

    Raises `OSError`.
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
    with path.open("r+b") as file:
        # The chunks of a PNG are known from its beginning only.
        for offset, region_bytes in regions[:1] if is_png else regions:
            cleared = _shift_texts(region_bytes, mark.encode())
            if is_png:
                cleared = _sum_chunks(region_bytes, cleared)
            if cleared != region_bytes:
                file.seek(offset)
                file.write(cleared)
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

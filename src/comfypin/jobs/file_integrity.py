"""Checks that an input file is complete: a picture or video cut on its way would run, with wrong pixels.

ComfyUI reads what is there of half a picture and fills the rest with black or gray:
https://github.com/Comfy-Org/ComfyUI/issues/2692
"""

import mmap
import zlib
from collections.abc import Callable
from pathlib import Path

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_STANDALONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
# No format that we know by its first bytes can be recognised by fewer.
_SHORTEST_BYTES = 12


def find_damage(path: Path) -> str | None:
    """Return how the file is incomplete or damaged, by its own structure, or None if nothing shows that.

    PNG (with checksums), JPEG, WebP and other RIFF, MP4 and MOV are known. Raises `OSError`.
    """
    if path.stat().st_size < _SHORTEST_BYTES:
        first_bytes = path.read_bytes()
        return (
            _CUT_SHORT.format(kind="picture")
            if first_bytes and (_PNG.startswith(first_bytes[:8]) or first_bytes[:3] == _JPEG)
            else None
        )
    with path.open("rb") as open_file, mmap.mmap(open_file.fileno(), 0, access=mmap.ACCESS_READ) as file_bytes:
        return _choose_check(file_bytes)(file_bytes)


_CUT_SHORT = "it is incomplete: the {kind} is cut off, probably on its way here; send it again"
_DAMAGED = "it is damaged: the {kind}'s own checksum does not match; send it again"


def _choose_check(file_bytes: mmap.mmap) -> Callable[[mmap.mmap], str | None]:
    if file_bytes[:8] == _PNG:
        return _check_png
    if file_bytes[:3] == _JPEG:
        return _check_jpeg
    if file_bytes[:4] == b"RIFF":
        return _check_riff
    if file_bytes[4:8] == b"ftyp":
        return _check_mp4_boxes
    return lambda _: None


def _check_png(file_bytes: mmap.mmap) -> str | None:
    """Walk the chunks to IEND; the critical ones (upper-case names) must have their checksums."""
    offset = len(_PNG)
    while offset + 12 <= len(file_bytes):
        chunk_length, chunk_name = int.from_bytes(file_bytes[offset : offset + 4]), file_bytes[offset + 4 : offset + 8]
        chunk_end = offset + 12 + chunk_length
        if chunk_end > len(file_bytes):
            break
        if chunk_name[:1].isupper() and zlib.crc32(file_bytes[offset + 4 : chunk_end - 4]) != int.from_bytes(
            file_bytes[chunk_end - 4 : chunk_end]
        ):
            return _DAMAGED.format(kind="PNG")
        if chunk_name == b"IEND":
            return None
        offset = chunk_end
    return _CUT_SHORT.format(kind="PNG")


def _check_jpeg(file_bytes: mmap.mmap) -> str | None:
    """Walk the segments to the first scan; within scans `FF D9` is nothing but the end of the picture.

    Before them it may be the end of a thumbnail, so that looking for it from the back would not do.
    """
    # The first two bytes are FF D8, the start of the picture.
    offset = 2
    while offset + 4 <= len(file_bytes):
        if file_bytes[offset] != 0xFF:
            return None  # no JPEG that we understand: the engine is to judge
        marker = file_bytes[offset + 1]
        # FF may be repeated before a marker, as padding.
        if marker == 0xFF:
            offset += 1
        elif marker in _STANDALONE_MARKERS:
            offset += 2
        elif marker == 0xDA:
            return None if file_bytes.find(b"\xff\xd9", offset) >= 0 else _CUT_SHORT.format(kind="JPEG")
        elif marker == 0xD9:
            return None
        else:
            offset += 2 + int.from_bytes(file_bytes[offset + 2 : offset + 4])
    return _CUT_SHORT.format(kind="JPEG")


def _check_riff(file_bytes: mmap.mmap) -> str | None:
    """Compare the size in the header; WebP, WAV or AVI recorded as a stream has none there (0 or all ones).

    Some recorders count the eight bytes in front of it too, so that a sound may lack as many.
    """
    size_bytes = int.from_bytes(file_bytes[4:8], "little")
    tolerance = 0 if file_bytes[8:12] == b"WEBP" else 8
    if size_bytes in (0, 0xFFFFFFFF) or size_bytes + 8 <= len(file_bytes) + tolerance:
        return None
    format_name = {b"WEBP": "WebP picture", b"WAVE": "WAV file", b"AVI ": "AVI video"}.get(
        file_bytes[8:12], "RIFF file"
    )
    return _CUT_SHORT.format(kind=format_name)


def _check_mp4_boxes(file_bytes: mmap.mmap) -> str | None:
    """Walk the boxes of MP4, MOV or HEIF by their sizes; the last may reach to the end (size 0)."""
    offset = 0
    while offset + 8 <= len(file_bytes):
        size_bytes, chunk_name = int.from_bytes(file_bytes[offset : offset + 4]), file_bytes[offset + 4 : offset + 8]
        if size_bytes == 1 and offset + 16 <= len(file_bytes):
            size_bytes = int.from_bytes(file_bytes[offset + 8 : offset + 16])
        if size_bytes == 0 or size_bytes < 8 or not chunk_name.isalnum():
            return None
        offset += size_bytes
    return _CUT_SHORT.format(kind="video") if offset > len(file_bytes) else None

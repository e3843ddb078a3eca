"""Texts by key in pictures: PNG's chunks, and EXIF in WebP, JPEG, AVIF, TIFF and others."""

import re
import struct
import warnings
import zlib
from collections.abc import Iterator

from comfypin.workflow.document import MAX_BYTES
from comfypin.workflow.errors import WorkflowUnreadable
from comfypin.workflow.media_metadata import KeyAndText

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# In animated pictures ComfyUI writes a chunk of its own kind, which reads like tEXt.
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"comf")
_TIFF_HEADER = re.compile(rb"II\*\0|MM\0\*")
# The pattern also matches by chance in compressed data; real files have one or two EXIF blocks.
_TIFF_TRIES = 20
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286


def png_texts(file_bytes: bytes, *, source: str) -> Iterator[KeyAndText]:
    """Yield the texts of a PNG, animated ones included.

    Raises `WorkflowUnreadable` if a compressed text is damaged, or larger than any workflow.
    """
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(file_bytes):
        (chunk_size,) = struct.unpack_from(">I", file_bytes, position)
        chunk_type, chunk_body = (
            file_bytes[position + 4 : position + 8],
            file_bytes[position + 8 : position + 8 + chunk_size],
        )
        position += 12 + chunk_size
        if chunk_type in _TEXT_CHUNKS:
            keyword, _, chunk_rest = chunk_body.partition(b"\0")
            yield keyword.decode("latin-1"), _png_text(chunk_type, chunk_rest, source)
        elif chunk_type == b"eXIf":
            yield from exif_texts(chunk_body)


def exif_texts(file_bytes: bytes) -> Iterator[KeyAndText]:
    """Yield the texts of every EXIF block in a file, by the number of their tag.

    A block is found by its TIFF header, so that the pictures around it need not be known: WebP, JPEG, AVIF, HEIC, TIFF.
    """
    from PIL import Image

    for tries, tiff_header in enumerate(_TIFF_HEADER.finditer(file_bytes)):
        if tries == _TIFF_TRIES:
            return
        exif_block = Image.Exif()
        try:
            with warnings.catch_warnings(action="ignore"):
                exif_block.load(b"Exif\0\0" + file_bytes[tiff_header.start() : tiff_header.start() + MAX_BYTES])
                tag_values = [*exif_block.items(), *exif_block.get_ifd(_EXIF_IFD).items()]
        # Pillow raises whatever the bytes of a damaged block lead it to.
        except Exception:  # noqa: BLE001, S112
            continue
        for tag_number, tag_value in tag_values:
            tag_text = (
                _user_comment(tag_value) if tag_number == _USER_COMMENT and isinstance(tag_value, bytes) else tag_value
            )
            if isinstance(tag_text, str | bytes):
                yield str(tag_number), tag_text if isinstance(tag_text, str) else decode_text(tag_text)


def decode_text(text_bytes: bytes) -> str:
    """Read bytes as UTF-8, else as Latin-1."""
    try:
        return text_bytes.decode("utf-8")
    except UnicodeDecodeError:
        return text_bytes.decode("latin-1")


def _png_text(chunk_type: bytes, chunk_rest: bytes, source: str) -> str:
    if chunk_type in (b"tEXt", b"comf"):
        return decode_text(chunk_rest)
    if chunk_type == b"zTXt":
        return decode_text(_inflate_text(chunk_rest[1:], source))
    compressed, remaining = chunk_rest[:1] == b"\x01", chunk_rest[2:]
    _language, _, remaining = remaining.partition(b"\0")
    _translated, _, text_bytes = remaining.partition(b"\0")
    return decode_text(_inflate_text(text_bytes, source) if compressed else text_bytes)


def _inflate_text(file_bytes: bytes, source: str) -> bytes:
    # Bounded while unpacking: a few kilobytes of zlib can hold gigabytes.
    unpacker = zlib.decompressobj()
    try:
        text_bytes = unpacker.decompress(file_bytes, MAX_BYTES + 1)
    except zlib.error as exc:
        raise WorkflowUnreadable(source=source, reason=f"its metadata is damaged ({exc})") from exc
    if len(text_bytes) > MAX_BYTES:
        raise WorkflowUnreadable(source=source, reason=f"its metadata has more than {MAX_BYTES:,} bytes")
    return text_bytes


def _user_comment(tag_value: bytes) -> str | bytes:
    """Read a UserComment, whose first eight bytes name its character set."""
    charset, text_bytes = tag_value[:8], tag_value[8:]
    if charset == b"UNICODE\0":
        # Writers disagree about the byte order; JSON begins with a character below 256.
        return text_bytes.decode("utf-16-be" if text_bytes[:1] == b"\0" else "utf-16-le", errors="replace").strip("\0")
    return text_bytes.strip(b"\0") if charset in (b"ASCII\0\0\0", bytes(8)) else tag_value

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
_TIFF_TRIES = 20
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286


def png_texts(data: bytes, *, source: str) -> Iterator[KeyAndText]:
    """Yield the texts of a PNG, animated ones included.

    Raises `WorkflowUnreadable` if a compressed text is damaged, or larger than any workflow.
    """
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length
        if kind in _TEXT_CHUNKS:
            keyword, _, rest = body.partition(b"\0")
            yield keyword.decode("latin-1"), _png_text(kind, rest, source)
        elif kind == b"eXIf":
            yield from exif_texts(body)


def exif_texts(data: bytes) -> Iterator[KeyAndText]:
    """Yield the texts of every EXIF block in a file, by the number of their tag.

    A block is found by its TIFF header, so that the pictures around it need not be known: WebP, JPEG, AVIF, HEIC, TIFF.
    """
    from PIL import Image

    for tries, header in enumerate(_TIFF_HEADER.finditer(data)):
        if tries == _TIFF_TRIES:
            return
        exif = Image.Exif()
        try:
            with warnings.catch_warnings(action="ignore"):
                exif.load(b"Exif\0\0" + data[header.start() : header.start() + MAX_BYTES])
                values = [*exif.items(), *exif.get_ifd(_EXIF_IFD).items()]
        # Pillow raises whatever the bytes of a damaged block lead it to.
        except Exception:  # noqa: BLE001, S112
            continue
        for tag, value in values:
            text = _user_comment(value) if tag == _USER_COMMENT and isinstance(value, bytes) else value
            if isinstance(text, str | bytes):
                yield str(tag), text if isinstance(text, str) else decode_text(text)


def decode_text(text: bytes) -> str:
    """Read bytes as UTF-8, else as Latin-1."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _png_text(kind: bytes, rest: bytes, source: str) -> str:
    if kind in (b"tEXt", b"comf"):
        return decode_text(rest)
    if kind == b"zTXt":
        return decode_text(_inflate_text(rest[1:], source))
    compressed, after = rest[:1] == b"\x01", rest[2:]
    _language, _, after = after.partition(b"\0")
    _translated, _, text = after.partition(b"\0")
    return decode_text(_inflate_text(text, source) if compressed else text)


def _inflate_text(data: bytes, source: str) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, MAX_BYTES + 1)
    except zlib.error as exc:
        raise WorkflowUnreadable(source=source, reason=f"its metadata is damaged ({exc})") from exc
    if len(text) > MAX_BYTES:
        raise WorkflowUnreadable(source=source, reason=f"its metadata has more than {MAX_BYTES:,} bytes")
    return text


def _user_comment(value: bytes) -> str | bytes:
    """The text of a UserComment, whose first eight bytes name its character set."""
    charset, text = value[:8], value[8:]
    if charset == b"UNICODE\0":
        # Writers disagree about the byte order; JSON begins with a character below 256.
        return text.decode("utf-16-be" if text[:1] == b"\0" else "utf-16-le", errors="replace").strip("\0")
    return text.strip(b"\0") if charset in (b"ASCII\0\0\0", bytes(8)) else value

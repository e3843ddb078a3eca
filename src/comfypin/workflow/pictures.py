"""Workflows inside the files that ComfyUI saved: PNG, WebP, JPEG, FLAC, safetensors, and other containers."""

import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from comfypin.errors.workflow import WorkflowUnreadable
from comfypin.workflow.document import MAX_BYTES, Document, read_document

Texts: TypeAlias = Mapping[str, str]

# What ran, exactly, comes before what was on the screen.
_KEYS = ("prompt", "workflow")
_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF_TEXT = re.compile(rb"(prompt|workflow)\s*:\s*(?=\{)", re.IGNORECASE)
# In containers the value follows its key after a few bytes of the container's own (a length, a type, an atom's name).
_NEARBY = re.compile(rb"(prompt|workflow)[^{]{0,64}?(?=\{)", re.IGNORECASE | re.DOTALL)


def is_json_text(data: bytes) -> bool:
    """Whether the bytes look like JSON text rather than a picture or another file that may hold a workflow."""
    return data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[", b"") or _is_text(data[:512])


def read_saved_file(data: bytes, *, source: str) -> Document:
    """The workflow in a file that ComfyUI saved: what ran (API format), else what was on the screen (UI format).

    Raises `WorkflowUnreadable` where there is none.
    """
    texts = _texts(data, source)
    for key in _KEYS:
        if key in texts:
            return read_document(texts[key], source=f"{source} ({key})")
    reason = "the file holds no workflow; ComfyUI writes one into what it saves unless it runs with --disable-metadata"
    raise WorkflowUnreadable(source=source, reason=reason)


def _texts(data: bytes, source: str) -> Texts:
    if data.startswith(_PNG):
        return dict(_png_texts(data, source))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _found(_EXIF_TEXT, b"".join(_webp_chunks(data, b"EXIF")))
    if _is_safetensors(data):
        return _safetensors_texts(data)
    return _found(_NEARBY, data)


def _png_texts(data: bytes, source: str) -> Iterator[tuple[str, str]]:
    at = len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length
        # In animated pictures ComfyUI writes a chunk of its own kind, which reads like tEXt.
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"comf"):
            continue
        keyword, _, rest = body.partition(b"\0")
        key = keyword.decode("latin-1").casefold()
        if key in _KEYS:
            yield key, _png_text(kind, rest, source)


def _png_text(kind: bytes, rest: bytes, source: str) -> str:
    if kind in (b"tEXt", b"comf"):
        return _decoded(rest)
    if kind == b"zTXt":
        return _decoded(_inflated(rest[1:], source))
    compressed, after = rest[:1] == b"\x01", rest[2:]
    _language, _, after = after.partition(b"\0")
    _translated, _, text = after.partition(b"\0")
    return _decoded(_inflated(text, source) if compressed else text)


def _inflated(data: bytes, source: str) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, MAX_BYTES + 1)
    except zlib.error as exc:
        raise WorkflowUnreadable(source=source, reason=f"its metadata is damaged ({exc})") from exc
    if len(text) > MAX_BYTES:
        raise WorkflowUnreadable(source=source, reason=f"its metadata has more than {MAX_BYTES:,} bytes")
    return text


def _webp_chunks(data: bytes, wanted: bytes) -> Iterator[bytes]:
    at = 12
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        if data[at : at + 4] == wanted:
            yield data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _is_safetensors(data: bytes) -> bool:
    if len(data) < 9:
        return False
    (length,) = struct.unpack_from("<Q", data)
    return bool(2 <= length <= min(len(data) - 8, MAX_BYTES) and data[8:9] == b"{")


def _safetensors_texts(data: bytes) -> Texts:
    (length,) = struct.unpack_from("<Q", data)
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        return {}
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        return {}
    return {key: metadata[key] for key in _KEYS if isinstance(metadata.get(key), str)}


def _found(key_before_json: re.Pattern[bytes], data: bytes) -> Texts:
    """Every key that stands right before a JSON object; the first one that parses counts."""
    texts: dict[str, str] = {}
    decoder = json.JSONDecoder()
    for tries, match in enumerate(key_before_json.finditer(data)):
        key = match[1].decode().casefold()
        if tries >= 100 or len(texts) == len(_KEYS):
            break
        if key in texts:
            continue
        text = data[match.end() : match.end() + MAX_BYTES].decode("utf-8", errors="replace")
        try:
            _, end = decoder.raw_decode(text)
        except (ValueError, RecursionError):
            continue
        texts[key] = text[:end]
    return texts


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _is_text(head: bytes) -> bool:
    return b"\0" not in head and all(byte >= 32 or byte in b"\t\r\n" for byte in head) and head.isascii()

"""The workflow in a file that ComfyUI saved: pictures, videos, sounds, 3D objects, latents and models."""

import json
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

from comfypin.workflow import media_metadata as containers
from comfypin.workflow.document import MAX_BYTES, Document, read_document
from comfypin.workflow.errors import WorkflowUnreadable
from comfypin.workflow.media_metadata import KeyAndText
from comfypin.workflow.picture_metadata import PNG_SIGNATURE, exif_texts, png_texts

Texts: TypeAlias = Mapping[str, str]
Reader: TypeAlias = Callable[[bytes], Iterator[KeyAndText]]

SavedKey = Literal["prompt", "workflow"]
"""What ComfyUI saves in a file: what ran, exactly, in API format; what was on the screen, in UI format."""

_KEYS: tuple[SavedKey, ...] = ("prompt", "workflow")
# In EXIF the key stands before the value; packs that save videos put both texts into one comment.
_KEY_BEFORE_JSON = re.compile(r"\s*(prompt|workflow)\s*:\s*(?=\{)", re.IGNORECASE)
# In containers the value follows its key after a few bytes of the container's own (a length, a type, an atom's name).
_NEARBY = re.compile(rb"(prompt|workflow)[^{]{0,64}?(?=\{)", re.IGNORECASE | re.DOTALL)
_SVG = re.compile(rb"\s*(?:<\?xml|<!--|<!DOCTYPE|<svg)")
_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
_BY_SIGNATURE: Mapping[bytes, Reader] = {
    b"\xff\xd8\xff": exif_texts,
    b"II*\0": exif_texts,
    b"MM\0*": exif_texts,
    b"\x1a\x45\xdf\xa3": containers.matroska_texts,
    b"OggS": containers.ogg_texts,
    b"fLaC": containers.flac_texts,
    b"ID3": containers.id3_texts,
    b"glTF": containers.glb_texts,
    b"\x76\x2f\x31\x01": containers.openexr_texts,
}


def is_json_text(data: bytes) -> bool:
    """Return whether the bytes look like JSON text rather than a picture or another file that may hold a workflow."""
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    return head[:1] in (b"{", b"[", b"") or (_is_text(head) and not _SVG.match(head))


def read_saved_file(data: bytes, *, source: str, prefer: SavedKey = "prompt") -> Document:
    """Read the workflow in a file that ComfyUI saved: the preferred one, else the other.

    Raises `WorkflowUnreadable` if there is none.
    """
    texts = _texts_by_key(_read_texts(data, source)) or _find_nearby(data)
    for key in sorted(_KEYS, key=lambda key: key != prefer):
        if key in texts:
            return read_document(texts[key], source=f"{source} ({key})")
    reason = "the file holds no workflow; ComfyUI writes one into what it saves unless it runs with --disable-metadata"
    raise WorkflowUnreadable(source=source, reason=reason)


def _read_texts(data: bytes, source: str) -> Iterator[KeyAndText]:
    if data.startswith(PNG_SIGNATURE):
        return png_texts(data, source=source)
    for signature, reader in _BY_SIGNATURE.items():
        if data.startswith(signature):
            return reader(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return exif_texts(data)
    if data[4:8] == b"ftyp":
        return exif_texts(data) if data[8:12] in _PICTURE_BRANDS else containers.mp4_texts(data)
    if _SVG.match(data):
        return containers.svg_texts(data)
    return containers.safetensors_texts(data) if _is_safetensors(data) else iter(())


def _texts_by_key(texts: Iterable[KeyAndText]) -> Texts:
    found: dict[str, str] = {}
    for name, text in texts:
        key = name.casefold()
        if key in _KEYS:
            found.setdefault(key, text)
            continue
        for inner, value in _texts_in_comment(text):
            found.setdefault(inner, value)
    return found


def _texts_in_comment(text: str) -> Iterator[KeyAndText]:
    """Yield what a text of another name holds: `prompt:{...}`, or a JSON object with either key, or the nodes alone."""
    named = _KEY_BEFORE_JSON.match(text)
    if named:
        yield named[1].casefold(), text[named.end() :].rstrip("\0")
        return
    if not text.startswith("{") or len(text) > MAX_BYTES:
        return
    try:
        value = json.loads(text.rstrip("\0"))
    except (ValueError, RecursionError):
        return
    for key in _KEYS:
        inner = value.get(key)
        if isinstance(inner, str | dict) and inner:
            yield key, inner if isinstance(inner, str) else json.dumps(inner)
    if any(isinstance(node, dict) and "class_type" in node for node in value.values()):
        yield "prompt", text.rstrip("\0")


def _find_nearby(data: bytes) -> Texts:
    """Find every key that stands right before a JSON object, in a file of a kind that is not known or is damaged."""
    texts: dict[str, str] = {}
    decoder = json.JSONDecoder()
    for tries, match in enumerate(_NEARBY.finditer(data)):
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


def _is_safetensors(data: bytes) -> bool:
    if len(data) < 9:
        return False
    (length,) = struct.unpack_from("<Q", data)
    return bool(2 <= length <= min(len(data) - 8, MAX_BYTES) and data[8:9] == b"{")


def _is_text(head: bytes) -> bool:
    return b"\0" not in head and all(byte >= 32 or byte in b"\t\r\n" for byte in head) and head.isascii()

"""Read the workflow in a file that ComfyUI saved: pictures, videos, sounds, 3D objects, latents and models."""

import json
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

from comfypin.text_encoding import is_wide_json
from comfypin.workflow import media_metadata as containers
from comfypin.workflow.document import MAX_BYTES, Document, read_document
from comfypin.workflow.errors import WorkflowUnreadable
from comfypin.workflow.media_metadata import KeyAndText
from comfypin.workflow.picture_metadata import PNG_SIGNATURE, exif_texts, png_texts

Texts: TypeAlias = Mapping[str, str]
Reader: TypeAlias = Callable[[bytes], Iterator[KeyAndText]]

# What ComfyUI saves in a file: what ran, exactly, in API format; what was on the screen, in UI format.
SavedKey = Literal["prompt", "workflow"]

_KEYS: tuple[SavedKey, ...] = ("prompt", "workflow")
# In EXIF the key precedes the value; packs that save videos put both texts into one comment.
_KEY_BEFORE_JSON = re.compile(r"\s*(prompt|workflow)\s*:\s*(?=\{)", re.IGNORECASE)
# In containers the value follows its key after a few bytes of the container's own (a length, a type, an atom's name).
_NEARBY = re.compile(rb"(prompt|workflow)[^{]{0,64}?(?=\{)", re.IGNORECASE | re.DOTALL)
_SVG = re.compile(rb"\s*(?:<\?xml|<!--|<!DOCTYPE|<svg)")
# ISO files with these brands are pictures with EXIF; all other brands are videos or sounds.
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


def is_json_text(file_bytes: bytes) -> bool:
    """Return whether the bytes look like JSON text rather than a picture or another file that may hold a workflow."""
    if is_wide_json(file_bytes[:512]):
        return True
    first_bytes = file_bytes[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    return first_bytes[:1] in (b"{", b"[", b"") or (_is_text(first_bytes) and not _SVG.match(first_bytes))


def read_saved_file(file_bytes: bytes, *, source: str, prefer: SavedKey = "prompt") -> Document:
    """Read the workflow in a file that ComfyUI saved: the preferred one, else the other.

    Raises `WorkflowUnreadable` if there is none.
    """
    texts = _texts_by_key(_read_texts(file_bytes, source)) or _find_nearby(file_bytes)
    for saved_key in sorted(_KEYS, key=lambda saved_key: saved_key != prefer):
        if saved_key in texts:
            return read_document(texts[saved_key], source=f"{source} ({saved_key})")
    reason = "the file holds no workflow; ComfyUI writes one into what it saves unless it runs with --disable-metadata"
    raise WorkflowUnreadable(source=source, reason=reason)


def _read_texts(file_bytes: bytes, source: str) -> Iterator[KeyAndText]:
    if file_bytes.startswith(PNG_SIGNATURE):
        return png_texts(file_bytes, source=source)
    for signature, reader in _BY_SIGNATURE.items():
        if file_bytes.startswith(signature):
            return reader(file_bytes)
    if file_bytes[:4] == b"RIFF" and file_bytes[8:12] == b"WEBP":
        return exif_texts(file_bytes)
    if file_bytes[4:8] == b"ftyp":
        return exif_texts(file_bytes) if file_bytes[8:12] in _PICTURE_BRANDS else containers.mp4_texts(file_bytes)
    if _SVG.match(file_bytes):
        return containers.svg_texts(file_bytes)
    return containers.safetensors_texts(file_bytes) if _is_safetensors(file_bytes) else iter(())


def _texts_by_key(texts: Iterable[KeyAndText]) -> Texts:
    found_texts: dict[str, str] = {}
    for text_name, file_text in texts:
        saved_key = text_name.casefold()
        if saved_key in _KEYS:
            found_texts.setdefault(saved_key, file_text)
            continue
        for inner_key, json_value in _texts_in_comment(file_text):
            found_texts.setdefault(inner_key, json_value)
    return found_texts


def _texts_in_comment(file_text: str) -> Iterator[KeyAndText]:
    """Yield what a text of another name holds: `prompt:{...}`, an object with either key, or the nodes alone."""
    named_key = _KEY_BEFORE_JSON.match(file_text)
    if named_key:
        yield named_key[1].casefold(), file_text[named_key.end() :].rstrip("\0")
        return
    if not file_text.startswith("{") or len(file_text) > MAX_BYTES:
        return
    try:
        json_value = json.loads(file_text.rstrip("\0"))
    except (ValueError, RecursionError):
        return
    for saved_key in _KEYS:
        inner_key = json_value.get(saved_key)
        if isinstance(inner_key, str | dict) and inner_key:
            yield saved_key, inner_key if isinstance(inner_key, str) else json.dumps(inner_key)
    if any(isinstance(json_node, dict) and "class_type" in json_node for json_node in json_value.values()):
        yield "prompt", file_text.rstrip("\0")


def _find_nearby(file_bytes: bytes) -> Texts:
    """Find every key right before a JSON object, in a file that is damaged or of an unknown type."""
    texts: dict[str, str] = {}
    decoder = json.JSONDecoder()
    # A large file can hold the word `prompt` by chance thousands of times; each try may decode megabytes.
    for tries, key_match in enumerate(_NEARBY.finditer(file_bytes)):
        saved_key = key_match[1].decode().casefold()
        if tries >= 100 or len(texts) == len(_KEYS):
            break
        if saved_key in texts:
            continue
        file_text = file_bytes[key_match.end() : key_match.end() + MAX_BYTES].decode("utf-8", errors="replace")
        try:
            _, json_end = decoder.raw_decode(file_text)
        except (ValueError, RecursionError):
            continue
        texts[saved_key] = file_text[:json_end]
    return texts


def _is_safetensors(file_bytes: bytes) -> bool:
    if len(file_bytes) < 9:
        return False
    (header_size,) = struct.unpack_from("<Q", file_bytes)
    return bool(2 <= header_size <= min(len(file_bytes) - 8, MAX_BYTES) and file_bytes[8:9] == b"{")


def _is_text(first_bytes: bytes) -> bool:
    return (
        b"\0" not in first_bytes
        and all(byte >= 32 or byte in b"\t\r\n" for byte in first_bytes)
        and first_bytes.isascii()
    )

"""Texts by key in audio, video, 3D and other files: MP4, Matroska, Ogg, FLAC, MP3, GLB, OpenEXR, SVG, safetensors.

Each function takes a whole file and yields what it finds; a damaged file yields less, and nothing is raised.
"""

import json
import re
import struct
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from comfypin.digest import JsonValue
from comfypin.workflow.document import MAX_BYTES

KeyAndText: TypeAlias = tuple[str, str]

# What an untrusted file may make us look at: more tags, boxes or pages than any real file has before its first frame.
_MAX_PARTS = 100_000
_MAX_TAG_LISTS = 100
_MATROSKA_TAGS = b"\x12\x54\xc3\x67"
_SIMPLE_TAG, _TAG, _TAG_NAME, _TAG_STRING = 0x67C8, 0x7373, 0x45A3, 0x4487
# A box whose inside is boxes again, on the way to a file's metadata.
_BOXES_OF_BOXES = (b"moov", b"udta", b"trak")
_OGG_COMMENTS = (b"OpusTags", b"\x03vorbis", b"\x81theora")
_ID3_ENCODINGS = ("latin-1", "utf-16", "utf-16-be", "utf-8")


def mp4_texts(data: bytes) -> Iterator[KeyAndText]:
    """Yield the metadata of an MP4 or QuickTime file: names in `keys` and values in `ilst`, or both in one item."""
    yield from _texts_in_boxes(data, 0, len(data), depth=0)


def matroska_texts(data: bytes) -> Iterator[KeyAndText]:
    """Yield the tags of a Matroska or WebM file."""
    at = data.find(_MATROSKA_TAGS)
    for _ in range(_MAX_TAG_LISTS):
        if at < 0:
            return
        # Looked for rather than walked to: what is recorded live has clusters of unknown size in front of its tags.
        _, start, end = next(_walk_elements(data, at, len(data)), (0, at, at))
        yield from _matroska_tags(data, start, end)
        at = data.find(_MATROSKA_TAGS, at + 4)


def ogg_texts(data: bytes) -> Iterator[KeyAndText]:
    """Yield the comments of an Ogg file (Opus, Vorbis, FLAC); a long one goes over many pages."""
    for packet in _first_ogg_packets(data):
        if packet[:1] == b"\x7f" and packet[1:5] == b"FLAC":
            continue
        prefix = next((prefix for prefix in _OGG_COMMENTS if packet.startswith(prefix)), None)
        if prefix is not None:
            yield from _vorbis_comments(packet[len(prefix) :])
        elif packet[:1] in (b"\x04", b"\x84"):
            yield from _vorbis_comments(packet[4:])


def flac_texts(data: bytes) -> Iterator[KeyAndText]:
    """Yield the comments of a FLAC file."""
    at = 4
    while at + 4 <= len(data):
        kind, length = data[at], int.from_bytes(data[at + 1 : at + 4])
        if kind & 0x7F == 4:
            yield from _vorbis_comments(data[at + 4 : at + 4 + length])
        at += 4 + length
        if kind & 0x80:
            return


def id3_texts(data: bytes) -> Iterator[KeyAndText]:
    """Yield the user's texts (TXXX) and comments (COMM) of an ID3v2.3 or 2.4 tag in front of MP3 or FLAC data."""
    major, flags, size = data[3], data[5], _syncsafe_number(data[6:10])
    body = data[10 : 10 + size]
    if flags & 0x80:
        body = body.replace(b"\xff\x00", b"\xff")
    at = 0
    if flags & 0x40 and len(body) >= 4:
        at = _syncsafe_number(body[:4]) if major >= 4 else int.from_bytes(body[:4]) + 4
    while at + 10 <= len(body) and body[at]:
        kind = body[at : at + 4]
        length = _syncsafe_number(body[at + 4 : at + 8]) if major >= 4 else int.from_bytes(body[at + 4 : at + 8])
        value = body[at + 10 : at + 10 + length]
        at += 10 + length
        if kind in (b"TXXX", b"COMM") and value and value[0] < len(_ID3_ENCODINGS):
            text = value[4:] if kind == b"COMM" else value[1:]
            key, _, content = text.decode(_ID3_ENCODINGS[value[0]], errors="replace").partition("\0")
            yield key or "comment", content.strip("\0\ufeff")
    if data[10 + size : 14 + size] == b"fLaC":
        yield from flac_texts(data[10 + size :])


def glb_texts(data: bytes) -> Iterator[KeyAndText]:
    """Yield the extras of a binary glTF file's asset."""
    if len(data) >= 20:
        (length,) = struct.unpack_from("<I", data, 12)
        asset = _json_object(data[20 : 20 + length]).get("asset")
        extras = asset.get("extras") if isinstance(asset, Mapping) else None
        yield from _texts_of(extras if isinstance(extras, Mapping) else {})


def safetensors_texts(data: bytes) -> Iterator[KeyAndText]:
    """Yield the metadata of a safetensors file, also a saved latent."""
    (length,) = struct.unpack_from("<Q", data)
    metadata = _json_object(data[8 : 8 + length]).get("__metadata__")
    yield from _texts_of(metadata if isinstance(metadata, Mapping) else {})


def openexr_texts(data: bytes) -> Iterator[KeyAndText]:
    """Yield the text attributes of an OpenEXR file's header."""
    at = 8
    for _ in range(_MAX_PARTS):
        name_end = data.find(b"\0", at)
        kind_end = data.find(b"\0", name_end + 1)
        if name_end <= at or kind_end < 0 or kind_end + 5 > len(data):
            return
        (size,) = struct.unpack_from("<i", data, kind_end + 1)
        if size < 0:
            return
        value = data[kind_end + 5 : kind_end + 5 + size]
        if data[name_end + 1 : kind_end] == b"string":
            yield data[at:name_end].decode("latin-1"), value.decode("utf-8", errors="replace")
        at = kind_end + 5 + size


def svg_texts(data: bytes) -> Iterator[KeyAndText]:
    """Yield what stands as JSON in the `<metadata>` of an SVG file."""
    found = re.search(rb"<metadata[^>]*>\s*(?:<!\[CDATA\[)?\s*(?=\{)", data)
    if found:
        text = data[found.end() : found.end() + MAX_BYTES].decode("utf-8", errors="replace")
        try:
            value, _ = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            return
        yield from _texts_of(value)


def _texts_of(values: Mapping[str, JsonValue]) -> Iterator[KeyAndText]:
    for key, value in values.items():
        yield key, value if isinstance(value, str) else json.dumps(value)


def _json_object(data: bytes) -> Mapping[str, JsonValue]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _walk_boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start, end) of the boxes between two places."""
    for _ in range(_MAX_PARTS):
        if at + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= end:
            (size,), head = struct.unpack_from(">Q", data, at + 8), 16
        elif size == 0:
            size = end - at
        if size < head:
            return
        yield kind, at + head, min(at + size, end)
        at += size


def _texts_in_boxes(data: bytes, at: int, end: int, *, depth: int) -> Iterator[KeyAndText]:
    for kind, start, stop in _walk_boxes(data, at, end):
        if kind in _BOXES_OF_BOXES and depth < 4:
            yield from _texts_in_boxes(data, start, stop, depth=depth + 1)
        elif kind == b"meta":
            # QuickTime's box begins with its first inner box, MP4's with four bytes of version and flags.
            yield from _mp4_metadata(data, start if data[start + 4 : start + 8] == b"hdlr" else start + 4, stop)


def _mp4_metadata(data: bytes, at: int, end: int) -> Iterator[KeyAndText]:
    names: list[str] = []
    for kind, start, stop in _walk_boxes(data, at, end):
        if kind == b"keys":
            names = [
                data[first:last].decode("utf-8", "replace") for _, first, last in _walk_boxes(data, start + 8, stop)
            ]
        elif kind == b"ilst":
            for item, first, last in _walk_boxes(data, start, stop):
                index = int.from_bytes(item) - 1
                name = names[index] if 0 <= index < len(names) else "comment"
                for inner, one, other in _walk_boxes(data, first, last):
                    if inner == b"name":
                        name = data[one + 4 : other].decode("utf-8", "replace")
                    elif inner == b"data":
                        yield name, data[one + 8 : other].decode("utf-8", "replace")


def _walk_elements(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (id, start, end) of Matroska's elements between two places."""
    for _ in range(_MAX_PARTS):
        if at >= end or not data[at]:
            return
        id_length = 9 - data[at].bit_length()
        size_at = at + id_length
        if size_at >= end or not data[size_at]:
            return
        size_length = 9 - data[size_at].bit_length()
        start = size_at + size_length
        size = int.from_bytes(data[size_at:start]) & ((1 << (7 * size_length)) - 1)
        yield int.from_bytes(data[at:size_at]), start, min(start + size, end)
        at = start + size


def _matroska_tags(data: bytes, at: int, end: int) -> Iterator[KeyAndText]:
    for tag, tag_at, tag_end in _walk_elements(data, at, end):
        for simple, start, stop in _walk_elements(data, tag_at, tag_end) if tag == _TAG else ():
            if simple == _SIMPLE_TAG:
                parts = {one: data[first:last] for one, first, last in _walk_elements(data, start, stop)}
                name, text = parts.get(_TAG_NAME, b""), parts.get(_TAG_STRING, b"")
                yield name.decode("utf-8", "replace"), text.decode("utf-8", "replace")


def _first_ogg_packets(data: bytes) -> Iterator[bytes]:
    """Yield the second packet of every stream, which holds its comments."""
    packets: dict[bytes, int] = {}
    parts: dict[bytes, list[bytes]] = {}
    at = 0
    for _ in range(_MAX_PARTS):
        if data[at : at + 4] != b"OggS" or at + 27 > len(data):
            return
        serial, segments = data[at + 14 : at + 18], data[at + 27 : at + 27 + data[at + 26]]
        at += 27 + len(segments)
        for length in segments:
            if packets.get(serial, 0) == 1:
                parts.setdefault(serial, []).append(data[at : at + length])
                if length < 255:
                    yield b"".join(parts.pop(serial))
            packets[serial] = packets.get(serial, 0) + (length < 255)
            at += length


def _vorbis_comments(data: bytes) -> Iterator[KeyAndText]:
    try:
        (vendor,) = struct.unpack_from("<I", data)
        (count,) = struct.unpack_from("<I", data, 4 + vendor)
        at = 8 + vendor
        for _ in range(min(count, _MAX_PARTS)):
            (length,) = struct.unpack_from("<I", data, at)
            key, _, text = data[at + 4 : at + 4 + length].decode("utf-8", "replace").partition("=")
            yield key, text
            at += 4 + length
    except struct.error:
        return


def _syncsafe_number(data: bytes) -> int:
    """A number of seven bits a byte, as ID3 writes it."""
    number = 0
    for byte in data:
        number = number << 7 | byte & 0x7F
    return number

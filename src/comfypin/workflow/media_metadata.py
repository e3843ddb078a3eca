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


def mp4_texts(file_bytes: bytes) -> Iterator[KeyAndText]:
    """Yield the metadata of an MP4 or QuickTime file: names in `keys` and values in `ilst`, or both in one item."""
    yield from _texts_in_boxes(file_bytes, 0, len(file_bytes), depth=0)


def matroska_texts(file_bytes: bytes) -> Iterator[KeyAndText]:
    """Yield the tags of a Matroska or WebM file."""
    position = file_bytes.find(_MATROSKA_TAGS)
    for _ in range(_MAX_TAG_LISTS):
        if position < 0:
            return
        # Looked for rather than walked to: what is recorded live has clusters of unknown size in front of its tags.
        _, content_start, end_position = next(
            _walk_elements(file_bytes, position, len(file_bytes)), (0, position, position)
        )
        yield from _matroska_tags(file_bytes, content_start, end_position)
        position = file_bytes.find(_MATROSKA_TAGS, position + 4)


def ogg_texts(file_bytes: bytes) -> Iterator[KeyAndText]:
    """Yield the comments of an Ogg file (Opus, Vorbis, FLAC); a long one goes over many pages."""
    for packet in _first_ogg_packets(file_bytes):
        if packet[:1] == b"\x7f" and packet[1:5] == b"FLAC":
            continue
        prefix = next((prefix for prefix in _OGG_COMMENTS if packet.startswith(prefix)), None)
        if prefix is not None:
            yield from _vorbis_comments(packet[len(prefix) :])
        elif packet[:1] in (b"\x04", b"\x84"):
            yield from _vorbis_comments(packet[4:])


def flac_texts(file_bytes: bytes) -> Iterator[KeyAndText]:
    """Yield the comments of a FLAC file."""
    position = 4
    while position + 4 <= len(file_bytes):
        block_type, block_size = file_bytes[position], int.from_bytes(file_bytes[position + 1 : position + 4])
        if block_type & 0x7F == 4:
            yield from _vorbis_comments(file_bytes[position + 4 : position + 4 + block_size])
        position += 4 + block_size
        if block_type & 0x80:
            return


def id3_texts(file_bytes: bytes) -> Iterator[KeyAndText]:
    """Yield the user's texts (TXXX) and comments (COMM) of an ID3v2.3 or 2.4 tag in front of MP3 or FLAC data."""
    major, flags, tag_size = file_bytes[3], file_bytes[5], _syncsafe_number(file_bytes[6:10])
    tag_body = file_bytes[10 : 10 + tag_size]
    if flags & 0x80:
        # Unsynchronisation: ID3 writes a zero after every 0xFF so that players do not take it for audio.
        tag_body = tag_body.replace(b"\xff\x00", b"\xff")
    position = 0
    if flags & 0x40 and len(tag_body) >= 4:
        position = _syncsafe_number(tag_body[:4]) if major >= 4 else int.from_bytes(tag_body[:4]) + 4
    while position + 10 <= len(tag_body) and tag_body[position]:
        frame_id = tag_body[position : position + 4]
        frame_size = (
            # Version 2.4 made the sizes of frames syncsafe; 2.3 writes plain numbers.
            _syncsafe_number(tag_body[position + 4 : position + 8])
            if major >= 4
            else int.from_bytes(tag_body[position + 4 : position + 8])
        )
        frame_bytes = tag_body[position + 10 : position + 10 + frame_size]
        position += 10 + frame_size
        if frame_id in (b"TXXX", b"COMM") and frame_bytes and frame_bytes[0] < len(_ID3_ENCODINGS):
            frame_text = frame_bytes[4:] if frame_id == b"COMM" else frame_bytes[1:]
            text_key, _, content = frame_text.decode(_ID3_ENCODINGS[frame_bytes[0]], errors="replace").partition("\0")
            yield text_key or "comment", content.strip("\0\ufeff")
    # Some taggers put ID3 before a FLAC stream, whose own comments then follow.
    if file_bytes[10 + tag_size : 14 + tag_size] == b"fLaC":
        yield from flac_texts(file_bytes[10 + tag_size :])


def glb_texts(file_bytes: bytes) -> Iterator[KeyAndText]:
    """Yield the extras of a binary glTF file's asset."""
    if len(file_bytes) >= 20:
        (length,) = struct.unpack_from("<I", file_bytes, 12)
        asset = _json_object(file_bytes[20 : 20 + length]).get("asset")
        extras = asset.get("extras") if isinstance(asset, Mapping) else None
        yield from _texts_of(extras if isinstance(extras, Mapping) else {})


def safetensors_texts(file_bytes: bytes) -> Iterator[KeyAndText]:
    """Yield the metadata of a safetensors file, also a saved latent."""
    (length,) = struct.unpack_from("<Q", file_bytes)
    metadata = _json_object(file_bytes[8 : 8 + length]).get("__metadata__")
    yield from _texts_of(metadata if isinstance(metadata, Mapping) else {})


def openexr_texts(file_bytes: bytes) -> Iterator[KeyAndText]:
    """Yield the text attributes of an OpenEXR file's header."""
    position = 8
    for _ in range(_MAX_PARTS):
        name_end = file_bytes.find(b"\0", position)
        type_end = file_bytes.find(b"\0", name_end + 1)
        if name_end <= position or type_end < 0 or type_end + 5 > len(file_bytes):
            return
        (value_size,) = struct.unpack_from("<i", file_bytes, type_end + 1)
        if value_size < 0:
            return
        attribute = file_bytes[type_end + 5 : type_end + 5 + value_size]
        if file_bytes[name_end + 1 : type_end] == b"string":
            yield file_bytes[position:name_end].decode("latin-1"), attribute.decode("utf-8", errors="replace")
        position = type_end + 5 + value_size


def svg_texts(file_bytes: bytes) -> Iterator[KeyAndText]:
    """Yield the JSON in the `<metadata>` of an SVG file."""
    metadata_start = re.search(rb"<metadata[^>]*>\s*(?:<!\[CDATA\[)?\s*(?=\{)", file_bytes)
    if metadata_start:
        metadata_text = file_bytes[metadata_start.end() : metadata_start.end() + MAX_BYTES].decode(
            "utf-8", errors="replace"
        )
        try:
            metadata, _ = json.JSONDecoder().raw_decode(metadata_text)
        except (ValueError, RecursionError):
            return
        yield from _texts_of(metadata)


def _texts_of(values: Mapping[str, JsonValue]) -> Iterator[KeyAndText]:
    for text_key, content in values.items():
        yield text_key, content if isinstance(content, str) else json.dumps(content)


def _json_object(file_bytes: bytes) -> Mapping[str, JsonValue]:
    try:
        json_value = json.loads(file_bytes)
    except (ValueError, RecursionError):
        return {}
    return json_value if isinstance(json_value, dict) else {}


def _walk_boxes(file_bytes: bytes, position: int, end_position: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start, end) of the boxes between two positions."""
    for _ in range(_MAX_PARTS):
        if position + 8 > end_position:
            return
        box_size, box_type = struct.unpack_from(">I4s", file_bytes, position)
        header_size = 8
        # ISO 14496-12: 1 says that the real size follows as 64 bits, 0 that the box goes to the end.
        if box_size == 1 and position + 16 <= end_position:
            (box_size,), header_size = struct.unpack_from(">Q", file_bytes, position + 8), 16
        elif box_size == 0:
            box_size = end_position - position
        # A box smaller than its header would make us read the same place for ever.
        if box_size < header_size:
            return
        yield box_type, position + header_size, min(position + box_size, end_position)
        position += box_size


def _texts_in_boxes(file_bytes: bytes, position: int, end_position: int, *, depth: int) -> Iterator[KeyAndText]:
    for box_type, content_start, content_end in _walk_boxes(file_bytes, position, end_position):
        if box_type in _BOXES_OF_BOXES and depth < 4:
            yield from _texts_in_boxes(file_bytes, content_start, content_end, depth=depth + 1)
        elif box_type == b"meta":
            # QuickTime's box begins with its first inner box, MP4's with four bytes of version and flags.
            yield from _mp4_metadata(
                file_bytes,
                content_start if file_bytes[content_start + 4 : content_start + 8] == b"hdlr" else content_start + 4,
                content_end,
            )


def _mp4_metadata(file_bytes: bytes, position: int, end_position: int) -> Iterator[KeyAndText]:
    key_names: list[str] = []
    for box_type, content_start, content_end in _walk_boxes(file_bytes, position, end_position):
        if box_type == b"keys":
            key_names = [
                file_bytes[item_start:item_end].decode("utf-8", "replace")
                for _, item_start, item_end in _walk_boxes(file_bytes, content_start + 8, content_end)
            ]
        elif box_type == b"ilst":
            for item_type, item_start, item_end in _walk_boxes(file_bytes, content_start, content_end):
                index = int.from_bytes(item_type) - 1
                key_name = key_names[index] if 0 <= index < len(key_names) else "comment"
                for inner_type, first_byte, last_byte in _walk_boxes(file_bytes, item_start, item_end):
                    if inner_type == b"name":
                        key_name = file_bytes[first_byte + 4 : last_byte].decode("utf-8", "replace")
                    elif inner_type == b"data":
                        yield key_name, file_bytes[first_byte + 8 : last_byte].decode("utf-8", "replace")


def _walk_elements(file_bytes: bytes, position: int, end_position: int) -> Iterator[tuple[int, int, int]]:
    """Yield (id, start, end) of Matroska's elements between two positions."""
    for _ in range(_MAX_PARTS):
        if position >= end_position or not file_bytes[position]:
            return
        # EBML: the number of leading zero bits of the first byte says how many bytes follow.
        id_length = 9 - file_bytes[position].bit_length()
        size_position = position + id_length
        if size_position >= end_position or not file_bytes[size_position]:
            return
        size_length = 9 - file_bytes[size_position].bit_length()
        content_start = size_position + size_length
        content_size = int.from_bytes(file_bytes[size_position:content_start]) & ((1 << (7 * size_length)) - 1)
        yield (
            int.from_bytes(file_bytes[position:size_position]),
            content_start,
            min(content_start + content_size, end_position),
        )
        position = content_start + content_size


def _matroska_tags(file_bytes: bytes, position: int, end_position: int) -> Iterator[KeyAndText]:
    for tag_id, tag_start, tag_end in _walk_elements(file_bytes, position, end_position):
        for simple_id, content_start, content_end in (
            _walk_elements(file_bytes, tag_start, tag_end) if tag_id == _TAG else ()
        ):
            if simple_id == _SIMPLE_TAG:
                parts_by_id = {
                    element_id: file_bytes[first_byte:last_byte]
                    for element_id, first_byte, last_byte in _walk_elements(file_bytes, content_start, content_end)
                }
                tag_name, tag_text = parts_by_id.get(_TAG_NAME, b""), parts_by_id.get(_TAG_STRING, b"")
                yield tag_name.decode("utf-8", "replace"), tag_text.decode("utf-8", "replace")


def _first_ogg_packets(file_bytes: bytes) -> Iterator[bytes]:
    """Yield the second packet of every stream, which holds its comments."""
    packets_seen: dict[bytes, int] = {}
    packet_parts: dict[bytes, list[bytes]] = {}
    position = 0
    for _ in range(_MAX_PARTS):
        if file_bytes[position : position + 4] != b"OggS" or position + 27 > len(file_bytes):
            return
        stream_serial, segments = (
            file_bytes[position + 14 : position + 18],
            file_bytes[position + 27 : position + 27 + file_bytes[position + 26]],
        )
        position += 27 + len(segments)
        for length in segments:
            if packets_seen.get(stream_serial, 0) == 1:
                packet_parts.setdefault(stream_serial, []).append(file_bytes[position : position + length])
                # A segment of 255 bytes says that the packet goes on in the next one.
                if length < 255:
                    yield b"".join(packet_parts.pop(stream_serial))
            packets_seen[stream_serial] = packets_seen.get(stream_serial, 0) + (length < 255)
            position += length


def _vorbis_comments(comments: bytes) -> Iterator[KeyAndText]:
    try:
        (vendor_length,) = struct.unpack_from("<I", comments)
        (count,) = struct.unpack_from("<I", comments, 4 + vendor_length)
        position = 8 + vendor_length
        for _ in range(min(count, _MAX_PARTS)):
            (length,) = struct.unpack_from("<I", comments, position)
            comment_name, _, comment_text = (
                comments[position + 4 : position + 4 + length].decode("utf-8", "replace").partition("=")
            )
            yield comment_name, comment_text
            position += 4 + length
    except struct.error:
        return


def _syncsafe_number(file_bytes: bytes) -> int:
    """Read a number of seven bits per byte, as ID3 writes it."""
    number = 0
    for byte in file_bytes:
        number = number << 7 | byte & 0x7F
    return number

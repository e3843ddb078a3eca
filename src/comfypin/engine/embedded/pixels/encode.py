"""Encodes what Pillow cannot write: PNG with 16 bits a band, and OpenEXR with 32-bit floats.

https://www.w3.org/TR/png-3/ and https://openexr.com/en/latest/OpenEXRFileLayout.html
"""

import struct
import zlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from comfypin.engine.embedded.arrays import PixelArray

# PNG's numbers for grey, RGB, and RGB with alpha.
_PNG_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
_EXR_BANDS = {1: "Y", 3: "RGB", 4: "RGBA"}
_COMPRESSION = 6

# The magic number 20000630, version 2, no flags.
_EXR_MAGIC_AND_VERSION = struct.pack("<II", 20000630, 2)
# OpenEXR's number for channels of 32-bit floats.
_EXR_FLOAT = 2


def encode_png_16_bit(values: npt.NDArray[np.uint16], texts: Iterable[tuple[str, str]]) -> bytes:
    """Return a PNG of (height, width, bands) values; each row is filtered by the one above it."""
    height, width, band_count = values.shape
    rows = values.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    # Filter type 2, `Up`: each byte less the one above it.
    filtered[:, 0] = 2
    filtered[:, 1:] = np.diff(rows, axis=0, prepend=np.zeros((1, rows.shape[1]), np.uint8))
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR_TYPES[band_count], 0, 0, 0)
    chunks = [_png_chunk(b"IHDR", header)]
    chunks += [
        _png_chunk(b"tEXt", text_name.encode("latin-1") + b"\0" + text_value.encode("latin-1", "replace"))
        for text_name, text_value in texts
    ]
    chunks += [_png_chunk(b"IDAT", zlib.compress(filtered.tobytes(), _COMPRESSION)), _png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def encode_exr_floats(values: PixelArray, texts: Iterable[tuple[str, str]], chromaticities: tuple[float, ...]) -> bytes:
    """Return an OpenEXR file, uncompressed, of (height, width, bands) values."""
    height, width, band_count = values.shape
    # Channels lie by name in each row, so the bands of RGB are written as B, G, R.
    band_order = sorted(range(band_count), key=lambda band: _EXR_BANDS[band_count][band])
    channels = b"".join(
        _EXR_BANDS[band_count][band].encode() + b"\0" + struct.pack("<IB3xII", _EXR_FLOAT, 0, 1, 1)
        for band in band_order
    )
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    attributes = [
        ("channels", "chlist", channels + b"\0"),
        ("compression", "compression", b"\0"),
        ("dataWindow", "box2i", window),
        ("displayWindow", "box2i", window),
        ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1)),
        ("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
        ("screenWindowWidth", "float", struct.pack("<f", 1)),
        *((text_name, "string", text_value.encode()) for text_name, text_value in texts),
        ("chromaticities", "chromaticities", struct.pack("<8f", *chromaticities)),
    ]
    header = b"".join(
        attribute_name.encode() + b"\0" + attribute_type.encode() + b"\0" + struct.pack("<i", len(value)) + value
        for attribute_name, attribute_type, value in attributes
    )
    file_start = _EXR_MAGIC_AND_VERSION + header + b"\0"
    # The row's number and its size, then its bands one after the other.
    row_bytes = 8 + width * band_count * 4
    # The table of offsets lies between the header and the rows.
    data_start = len(file_start) + 8 * height
    offsets = data_start + row_bytes * np.arange(height, dtype="<u8")
    rows = values[..., band_order].transpose(0, 2, 1).astype("<f4")
    lines = (struct.pack("<iI", row, width * band_count * 4) + rows[row].tobytes() for row in range(height))
    offset_table: bytes = offsets.tobytes()
    return file_start + offset_table + b"".join(lines)


def _png_chunk(chunk_type: bytes, chunk_data: bytes) -> bytes:
    return (
        struct.pack(">I", len(chunk_data))
        + chunk_type
        + chunk_data
        + struct.pack(">I", zlib.crc32(chunk_type + chunk_data))
    )

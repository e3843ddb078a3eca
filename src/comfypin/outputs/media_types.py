"""Identifies files: kind and media type by their first bytes, or by their name; the size of a picture in pixels."""

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from comfypin.outputs.interface import OutputKind

# Enough for the document type of Matroska, which comes last of these marks.
HEAD_BYTES = 64


@dataclass(frozen=True, slots=True)
class FileType:
    """A kind in our words, and the media type for HTTP and buckets."""

    kind: OutputKind
    media_type: str


_TABLES: dict[OutputKind, dict[str, str]] = {
    "image": {
        "png": "image/png",
        "jpg": "image/jpeg",
        "jpeg": "image/jpeg",
        "webp": "image/webp",
        "gif": "image/gif",
        "avif": "image/avif",
        "heic": "image/heic",
        "jxl": "image/jxl",
        "bmp": "image/bmp",
        "tif": "image/tiff",
        "tiff": "image/tiff",
        "svg": "image/svg+xml",
        "exr": "image/x-exr",
        "hdr": "image/vnd.radiance",
        "ico": "image/vnd.microsoft.icon",
        "psd": "image/vnd.adobe.photoshop",
    },
    "video": {
        "mp4": "video/mp4",
        "m4v": "video/mp4",
        "webm": "video/webm",
        "mkv": "video/x-matroska",
        "mov": "video/quicktime",
        "avi": "video/x-msvideo",
        "ogv": "video/ogg",
        "mpg": "video/mpeg",
        "mpeg": "video/mpeg",
        "ts": "video/mp2t",
        "flv": "video/x-flv",
    },
    "audio": {
        "flac": "audio/flac",
        "mp3": "audio/mpeg",
        "wav": "audio/wav",
        "ogg": "audio/ogg",
        "opus": "audio/ogg",
        "m4a": "audio/mp4",
        "aac": "audio/aac",
        "aiff": "audio/aiff",
        "weba": "audio/webm",
        "mid": "audio/midi",
    },
    "3d": {
        "glb": "model/gltf-binary",
        "gltf": "model/gltf+json",
        "obj": "model/obj",
        "stl": "model/stl",
        "ply": "model/ply",
        "fbx": "model/vnd.autodesk.fbx",
        "usdz": "model/vnd.usdz+zip",
        "usd": "model/vnd.usd",
        "splat": "model/x-splat",
        "ksplat": "model/x-ksplat",
        "spz": "model/x-spz",
    },
    "text": {
        "txt": "text/plain",
        "md": "text/markdown",
        "json": "application/json",
        "jsonl": "application/jsonl",
        "csv": "text/csv",
        "srt": "application/x-subrip",
        "vtt": "text/vtt",
        "html": "text/html",
        "xml": "application/xml",
        "yaml": "application/yaml",
        "yml": "application/yaml",
    },
    "latent": {"latent": "application/octet-stream"},
    "file": {
        "zip": "application/zip",
        "gz": "application/gzip",
        "tar": "application/x-tar",
        "pdf": "application/pdf",
        "safetensors": "application/octet-stream",
        "npy": "application/octet-stream",
        "pt": "application/octet-stream",
    },
}
_BY_SUFFIX = {
    suffix: FileType(kind, media_type) for kind, table in _TABLES.items() for suffix, media_type in table.items()
}
_UNKNOWN = FileType("file", "application/octet-stream")

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"\x00\x00\x00\x0cJXL ", "jxl"),
    (b"\x76\x2f\x31\x01", "exr"),
    (b"#?RADIANCE", "hdr"),
    (b"II*\x00", "tif"),
    (b"MM\x00*", "tif"),
    (b"fLaC", "flac"),
    (b"ID3", "mp3"),
    (b"glTF", "glb"),
    (b"%PDF-", "pdf"),
)
_RIFF = {b"WEBP": "webp", b"WAVE": "wav", b"AVI ": "avi"}
_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"M4A ": "m4a", b"qt  ": "mov"}


def identify_file(filename: str, first_bytes: bytes) -> FileType:
    """Return the kind and media type of a file, from its first `HEAD_BYTES` bytes and its name.

    Bytes are believed before names; containers that hold either sound or pictures (WebM, Ogg, MP4) go by the name.
    """
    file_suffix = PurePosixPath(filename).suffix.lower().removeprefix(".")
    type_by_name = _BY_SUFFIX.get(file_suffix, _UNKNOWN)
    suffix_by_bytes = _suffix_by_bytes(first_bytes)
    if suffix_by_bytes is None:
        return type_by_name
    type_by_bytes = _BY_SUFFIX[suffix_by_bytes]
    # An .m4v is still video/mp4 and a .mov may carry an MP4 brand: a name of the same kind says more than the bytes.
    is_ambiguous = suffix_by_bytes in {"mp4", "webm", "ogg", "mov", "tif"}
    return type_by_name if is_ambiguous and type_by_name.kind in {"video", "audio", "image"} else type_by_bytes


def picture_size(path: Path, file_type: FileType, first_bytes: bytes) -> tuple[int, int] | None:
    """Return a picture's width and height in pixels; None if the file is not a picture or cannot be measured."""
    if file_type.kind != "image":
        return None
    # A PNG's size is in its first bytes, so that the file need not be opened.
    if file_type.media_type == "image/png" and len(first_bytes) >= 24 and first_bytes[12:16] == b"IHDR":
        width, height = struct.unpack(">II", first_bytes[16:24])
        return int(width), int(height)
    from PIL import Image, UnidentifiedImageError

    try:
        # Only the header is read, so a picture of any size is safe to measure.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                return picture.size
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return None


def _suffix_by_bytes(first_bytes: bytes) -> str | None:
    for magic_bytes, file_suffix in _STARTS:
        if first_bytes.startswith(magic_bytes):
            return file_suffix
    # WebP, WAV and AVI share one container.
    if first_bytes[:4] == b"RIFF":
        return _RIFF.get(first_bytes[8:12])
    # ISO media files (MP4, MOV, HEIC) name their brand after `ftyp`.
    if first_bytes[4:8] == b"ftyp":
        return _BRANDS.get(first_bytes[8:12], "mp4")
    if first_bytes[:4] == b"\x1aE\xdf\xa3":
        # Matroska and WebM share their first bytes; the name of the kind follows them.
        return "mkv" if b"matroska" in first_bytes else "webm"
    if first_bytes[:4] == b"OggS":
        return "ogg"
    return None

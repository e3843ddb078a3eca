"""Kinds and media types come from bytes first, then names; pictures are measured."""

import io
from pathlib import Path

import pytest
from PIL import Image

from comfypin.outputs.media_types import HEAD_BYTES, FileType, identify_file, picture_size


@pytest.mark.parametrize(
    ("filename", "head", "kind", "media_type"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n....", "image", "image/png"),
        ("a.png", b"\xff\xd8\xff\xe0", "image", "image/jpeg"),
        ("a", b"RIFF....WEBPVP8 ", "image", "image/webp"),
        ("a.bin", b"RIFF....WAVEfmt ", "audio", "audio/wav"),
        ("a.mp4", b"\0\0\0 ftypisom", "video", "video/mp4"),
        ("a.m4a", b"\0\0\0 ftypM4A ", "audio", "audio/mp4"),
        ("a.mp4", b"", "video", "video/mp4"),
        ("a.webm", b"\x1aE\xdf\xa3....webm", "video", "video/webm"),
        ("a.mkv", b"\x1aE\xdf\xa3....matroska", "video", "video/x-matroska"),
        ("a.avif", b"\0\0\0 ftypavif", "image", "image/avif"),
        ("a.flac", b"fLaC", "audio", "audio/flac"),
        ("a.opus", b"OggS", "audio", "audio/ogg"),
        ("a.mp3", b"\xff\xfb\x90", "audio", "audio/mpeg"),
        ("a.glb", b"glTF\x02", "3d", "model/gltf-binary"),
        ("A.STL", b"solid x", "3d", "model/stl"),
        ("a.txt", b"words", "text", "text/plain"),
        ("a.json", b"{}", "text", "application/json"),
        ("a.latent", b"", "latent", "application/octet-stream"),
        ("noname", b"whatever", "file", "application/octet-stream"),
        ("a.exe", b"MZ", "file", "application/octet-stream"),
    ],
)
def test_what_a_file_is(filename: str, head: bytes, kind: str, media_type: str) -> None:
    assert identify_file(filename, head) == FileType(kind, media_type)  # type: ignore[arg-type]


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_picture_is_measured(tmp_path: Path, format_: str) -> None:
    path = tmp_path / f"picture.{format_.lower()}"
    Image.new("RGB", (37, 11)).save(path, format_)
    head = path.read_bytes()[:HEAD_BYTES]
    assert picture_size(path, identify_file(path.name, head), head) == (37, 11)


def test_a_broken_picture_has_no_size(tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0 and nothing more")
    head = path.read_bytes()[:HEAD_BYTES]
    assert picture_size(path, identify_file("broken.jpg", head), head) is None


def test_what_is_no_picture_has_no_size(tmp_path: Path) -> None:
    assert picture_size(tmp_path / "absent.mp4", identify_file("a.mp4", b""), b"") is None


def test_a_png_is_measured_by_its_head_alone(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("L", (5, 6)).save(data, "PNG")
    head = data.getvalue()[:HEAD_BYTES]
    assert picture_size(tmp_path / "absent.png", identify_file("a.png", head), head) == (5, 6)

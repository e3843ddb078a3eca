"""Half a file is told from a whole one by its own structure, wherever it was cut."""

import io
import struct
import wave
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfypin.jobs.file_integrity import find_damage


def picture(kind: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 48), 90).convert("RGB").save(buffer, kind, **more)
    return buffer.getvalue()


def a_wave() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(40000))
    return buffer.getvalue()


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def with_thumbnail() -> bytes:
    """A JPEG whose EXIF holds a whole JPEG: the end of that one is not the end of this one."""
    thumbnail, outer = picture("JPEG"), picture("JPEG")
    segment = b"Exif\0\0" + thumbnail[:60000]
    return outer[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + outer[2:]


FILES = {
    "png": picture("PNG"),
    "jpeg": picture("JPEG"),
    "progressive": picture("JPEG", progressive=True, quality=95),
    "thumbnail": with_thumbnail(),
    "webp": picture("WEBP"),
    "wav": a_wave(),
    "mp4": box(b"ftyp", b"isom\0\0\2\0") + box(b"moov", bytes(100)) + box(b"mdat", bytes(1000)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_is_whole(name: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(FILES[name])
    assert find_damage(tmp_path / "x") is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", [0.5, 0.9, 0.999])
def test_a_cut_file_is_not(name: str, part: float, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(FILES[name][: int(len(FILES[name]) * part)])
    assert "is cut off" in str(find_damage(tmp_path / "x"))


@pytest.mark.parametrize("size", [1, 5, 11])
def test_the_first_bytes_alone_are_not(size: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(FILES["png"][:size])
    assert find_damage(tmp_path / "x") is not None


def test_a_png_with_other_pixels_than_it_was_made_with_is_damaged(tmp_path: Path) -> None:
    damaged = bytearray(FILES["png"])
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "x").write_bytes(damaged)
    assert "checksum" in str(find_damage(tmp_path / "x"))


@pytest.mark.parametrize(
    "data", [b"", b"text", b"a longer text that is no picture", FILES["jpeg"] + b"trailer", b"RIFF"]
)
def test_what_is_not_known_or_has_more_behind_its_end_is_taken(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    assert find_damage(tmp_path / "x") is None

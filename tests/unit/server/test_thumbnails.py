"""Small pictures: upright, bounded, of whatever Pillow can read."""

import io
from pathlib import Path

import pytest
from PIL import Image

from comfypin.server import thumbnails
from comfypin.server.thumbnails import EDGE_PIXELS, Thumbnails, draw_thumbnail


def encoded(picture: Image.Image, file_format: str, **options: object) -> bytes:
    spool = io.BytesIO()
    picture.save(spool, file_format, **options)
    return spool.getvalue()


def drawn(original: bytes) -> Image.Image:
    thumbnail = draw_thumbnail(original)
    assert thumbnail is not None
    return Image.open(io.BytesIO(thumbnail))


def test_a_picture_stands_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the right
    picture = Image.new("RGB", (800, 400))
    assert drawn(encoded(picture, "JPEG", exif=exif)).size == (EDGE_PIXELS // 2, EDGE_PIXELS)


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        *((mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *((mode, "TIFF") for mode in ("I", "F", "CMYK")),
    ],
)
def test_every_kind_of_pixels_is_drawn(mode: str, file_format: str) -> None:
    assert drawn(encoded(Image.new(mode, (40, 20)), file_format)).size == (40, 20)


def test_sixteen_bits_are_drawn_by_their_own_range() -> None:
    picture = Image.new("I;16", (2, 1))
    picture.putpixel((0, 0), 1000)
    picture.putpixel((1, 0), 3000)
    thumbnail = drawn(encoded(picture, "PNG")).convert("L")
    dark, bright = thumbnail.getpixel((0, 0)), thumbnail.getpixel((1, 0))
    assert isinstance(dark, int)
    assert isinstance(bright, int)
    assert bright - dark > 60


def test_what_is_transparent_stays_so() -> None:
    assert drawn(encoded(Image.new("RGBA", (20, 20), (0, 0, 0, 0)), "PNG")).mode == "RGBA"


def test_a_picture_that_is_too_large_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "_MOST_PIXELS", 100)
    assert draw_thumbnail(encoded(Image.new("RGB", (20, 20)), "PNG")) is None


async def test_a_thumbnail_is_made_once(tmp_path: Path) -> None:
    made, asked = Thumbnails(tmp_path), []

    def source() -> bytes:
        asked.append(1)
        return encoded(Image.new("RGB", (20, 20)), "PNG")

    paths = [await made.find_or_make("ab" * 32, "image", source) for _ in range(2)]
    assert paths[0] == paths[1] == await made.find("ab" * 32)
    assert len(asked) == 1


async def test_the_folder_stays_below_its_limit(tmp_path: Path) -> None:
    made = Thumbnails(tmp_path, kept_bytes=20_000)
    for number in range(40):
        source = encoded(Image.effect_noise((64, 64), 50 + number), "PNG")
        await made.find_or_make(f"{number:064x}", "image", lambda source=source: source)  # type: ignore[misc]
    kept_bytes = sum(file.stat().st_size for file in tmp_path.glob("*/*.webp"))
    assert 0 < kept_bytes < 25_000

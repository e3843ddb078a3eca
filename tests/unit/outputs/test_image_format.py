"""Conversions of pictures: the pixels, the embedded workflow, and what is left as it is."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from comfypin.digest import Digest
from comfypin.outputs.errors import OutputUnreadable
from comfypin.outputs.image_format import ImageConversion, PictureFormat, convert_output
from comfypin.outputs.interface import Output
from tests.support.outputs import an_output

WORKFLOW = json.dumps({"nodes": ["größe"]})


def a_png(picture: Image.Image | None = None, **texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    buffer = io.BytesIO()
    (picture or Image.radial_gradient("L").convert("RGB")).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def converted(tmp_path: Path, data: bytes, **options: object) -> Output:
    (tmp_path / "to").mkdir()
    conversion = replace(ImageConversion(), **options)  # type: ignore[arg-type]
    return convert_output(an_output(tmp_path / "from", data, filename="cat.png"), conversion, tmp_path / "to")


@pytest.mark.parametrize(("format_", "name"), [("jpeg", "cat.jpg"), ("webp", "cat.webp")])
def test_a_png_becomes_another_picture(tmp_path: Path, format_: PictureFormat, name: str) -> None:
    output = converted(tmp_path, a_png(), format=format_)
    assert (output.filename, output.media_type) == (name, f"image/{format_}")
    data = output.path.read_bytes()
    assert (output.sha256, output.size_bytes) == (Digest.of(data), len(data))
    before = np.asarray(Image.radial_gradient("L").convert("RGB"), dtype=float)
    after = np.asarray(Image.open(output.path).convert("RGB"), dtype=float)
    assert abs(before - after).mean() < 3


def test_quality_100_of_webp_loses_nothing(tmp_path: Path) -> None:
    output = converted(tmp_path, a_png(), format="webp", quality=100)
    assert (np.asarray(Image.open(output.path)) == np.asarray(Image.radial_gradient("L").convert("RGB"))).all()


def test_a_lower_quality_is_a_smaller_file(tmp_path: Path) -> None:
    noisy = Image.effect_noise((200, 200), 60).convert("RGB")
    sizes = []
    for quality in (30, 95):
        folder = tmp_path / str(quality)
        folder.mkdir()
        sizes.append(converted(folder, a_png(noisy), format="jpeg", quality=quality).size_bytes)
    assert sizes[0] < sizes[1] / 2


@pytest.mark.parametrize("format_", ["jpeg", "webp"])
def test_the_workflow_is_kept(tmp_path: Path, format_: PictureFormat) -> None:
    output = converted(tmp_path, a_png(workflow=WORKFLOW, prompt="{}"), format=format_)
    exif = Image.open(output.path).getexif()
    assert exif[0x010F] == f"workflow:{WORKFLOW}"
    assert exif[0x0110] == "prompt:{}"


@pytest.mark.parametrize("format_", ["png", "jpeg", "webp"])
def test_the_workflow_is_dropped(tmp_path: Path, format_: PictureFormat) -> None:
    data = a_png(workflow="SECRET-WORKFLOW", prompt="SECRET-PROMPT")
    output = converted(tmp_path, data, format=format_, keep_workflow=False)
    assert b"SECRET" not in output.path.read_bytes()


def test_a_png_without_its_workflow_has_the_same_pixels(tmp_path: Path) -> None:
    output = converted(tmp_path, a_png(workflow=WORKFLOW), keep_workflow=False)
    assert output.filename == "cat.png"
    assert (np.asarray(Image.open(output.path)) == np.asarray(Image.radial_gradient("L").convert("RGB"))).all()


def test_a_workflow_too_long_for_a_jpeg_leaves_the_png(tmp_path: Path) -> None:
    data = a_png(workflow="x" * 70_000)
    output = converted(tmp_path, data, format="jpeg")
    assert output.filename == "cat.png"
    assert output.path.read_bytes() == data


def test_a_workflow_too_long_for_a_jpeg_fits_into_webp(tmp_path: Path) -> None:
    output = converted(tmp_path, a_png(workflow="x" * 70_000), format="webp")
    assert len(Image.open(output.path).getexif()[0x010F]) == len("workflow:") + 70_000


def an_animation() -> bytes:
    """As ComfyUI's SaveAnimatedPNG writes it: the workflow in chunks of its own, behind the pictures."""
    info = PngImagePlugin.PngInfo()
    info.add(b"comf", b"workflow\0" + WORKFLOW.encode("latin-1"), after_idat=True)
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 100, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", pnginfo=info, save_all=True, append_images=frames[1:], duration=100)
    return buffer.getvalue()


@pytest.mark.parametrize("format_", ["jpeg", "webp"])
def test_an_animation_keeps_its_frames(tmp_path: Path, format_: PictureFormat) -> None:
    data = an_animation()
    output = converted(tmp_path, data, format=format_)
    assert (output.filename, output.path.read_bytes()) == ("cat.png", data)


@pytest.mark.parametrize("format_", ["png", "webp"])
def test_the_workflow_of_an_animation_is_dropped_too(tmp_path: Path, format_: PictureFormat) -> None:
    output = converted(tmp_path, an_animation(), format=format_, keep_workflow=False)
    assert output.filename == "cat.png"
    assert b"workflow" not in output.path.read_bytes()
    assert Image.open(output.path).n_frames == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(("format_", "width"), [("jpeg", 65_501), ("webp", 16_384)])
def test_a_picture_too_wide_for_the_format_stays_a_png(tmp_path: Path, format_: PictureFormat, width: int) -> None:
    data = a_png(Image.new("L", (width, 1)))
    assert converted(tmp_path, data, format=format_).path.read_bytes() == data


def test_a_picture_of_more_pixels_than_can_be_opened_stays_a_png(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = a_png()
    assert converted(tmp_path, data, format="webp").path.read_bytes() == data


def test_transparency_becomes_white_in_jpeg_and_stays_in_webp(tmp_path: Path) -> None:
    clear = a_png(Image.new("RGBA", (8, 8), (255, 0, 0, 0)))
    (tmp_path / "jpeg").mkdir()
    (tmp_path / "webp").mkdir()
    jpeg = Image.open(converted(tmp_path / "jpeg", clear, format="jpeg").path)
    webp = Image.open(converted(tmp_path / "webp", clear, format="webp").path)
    assert jpeg.getpixel((4, 4)) == (255, 255, 255)
    assert webp.convert("RGBA").getpixel((4, 4))[3] == 0  # type: ignore[index]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((8, 8), 0x8000, dtype=np.uint16))
    output = converted(tmp_path, a_png(deep), format="webp", quality=100)
    assert abs(np.asarray(Image.open(output.path)).mean() - 128) <= 1


def test_what_is_no_png_stays_as_it_is(tmp_path: Path) -> None:
    video = replace(an_output(tmp_path, b"v", filename="v.mp4"), media_type="video/mp4")
    assert convert_output(video, ImageConversion(format="jpeg"), tmp_path) is video


def test_nothing_to_convert_changes_nothing(tmp_path: Path) -> None:
    output = an_output(tmp_path, a_png())
    assert convert_output(output, ImageConversion(), tmp_path) is output


@pytest.mark.parametrize("format_", ["png", "jpeg", "webp"])
def test_a_broken_png_is_named(tmp_path: Path, format_: PictureFormat) -> None:
    with pytest.raises(OutputUnreadable, match=r"cat\.png.*converted"):
        converted(tmp_path, a_png()[:200], format=format_, keep_workflow=False)


@pytest.mark.parametrize("format_", ["jpeg", "webp"])
def test_a_broken_png_is_delivered_as_it_is_where_nothing_has_to_go(tmp_path: Path, format_: PictureFormat) -> None:
    (tmp_path / "c").mkdir()
    output = an_output(tmp_path, a_png()[:200], filename="cat.png")
    assert convert_output(output, ImageConversion(format=format_), tmp_path / "c") is output

"""Comparing outputs as pixels."""

from pathlib import Path

import numpy
import pytest
from PIL import Image, PngImagePlugin

from comfypin.outputs.compare import compare_outputs


def picture(
    path: Path, level: int = 100, *, size: tuple[int, int] = (8, 6), note: str = "", dot: int | None = None
) -> Path:
    pixels = numpy.full((size[1], size[0], 3), level, dtype="uint8")
    if dot is not None:
        pixels[0, 0] = dot
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", note)
    Image.fromarray(pixels).save(path, pnginfo=info)
    return path


def test_other_metadata_is_the_same_picture(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "a.png", note="a"), picture(tmp_path / "b.png", note="b")
    assert compare_outputs(first, second, tolerance=0).same


def test_a_pixel_that_differs_is_found_and_measured(tmp_path: Path) -> None:
    found = compare_outputs(picture(tmp_path / "a.png"), picture(tmp_path / "b.png", dot=103), tolerance=0)
    assert (found.same, found.largest_level, found.differing_part) == (False, 3.0, 1 / 48)


def test_a_difference_within_the_tolerance_is_the_same(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", dot=103)
    assert compare_outputs(first, second, tolerance=3).same
    assert not compare_outputs(first, second, tolerance=2.9).same


def test_another_size_differs(tmp_path: Path) -> None:
    found = compare_outputs(picture(tmp_path / "a.png"), picture(tmp_path / "b.png", size=(9, 6)), tolerance=255)
    assert (found.same, found.detail) == (False, "8x6 against 9x6")


@pytest.mark.parametrize(("content", "same"), [(b"one", True), (b"two", False)])
def test_what_is_no_picture_is_compared_by_its_bytes(content: bytes, same: bool, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one")
    (tmp_path / "b.txt").write_bytes(content)
    assert compare_outputs(tmp_path / "a.txt", tmp_path / "b.txt", tolerance=0).same is same


def test_frames_of_an_animation_count(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), (level, 0, 0)) for level in (0, 100, 200)]
    for name, count in (("a.webp", 3), ("b.webp", 2)):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:count], lossless=True)
    assert compare_outputs(tmp_path / "a.webp", tmp_path / "b.webp", tolerance=0).detail == "3 frames against 2"

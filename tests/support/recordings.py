"""What was recorded of each release of ComfyUI, and how near the embedded engine comes to it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DATA = Path(__file__).parent.parent / "data"
INPUTS = DATA / "pixels" / "inputs"
PIXELS = {"0.3.64": DATA / "pixels", "0.33.0": DATA / "pixels-0.33"}
ANSWERS = {"0.3.64": DATA / "answers-0.3.64.json", "0.33.0": DATA / "answers-0.33.json"}

OTHER_DECODER = {
    ("0.33.0", "load_save_exif"): "0.33 decodes JPEG with FFmpeg, which does not smooth chroma; Pillow does",
}
"""Recordings that the embedded engine does not give, and why."""

ROUNDED = ("own_transfer_mkl_lab", "own_transfer_reinhard_lab", "color_transfer")
"""Recordings whose statistics are float32 sums, which processors round differently: one value in some thousands may be
another level next to it."""


def release_of(version: str) -> str | None:
    """Return the recorded release that a server's version belongs to: the newest that is not newer than it."""
    older = [each for each in PIXELS if _numbers(each) <= _numbers(version)]
    return max(older, key=_numbers, default=None)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def cases(release: str) -> list[str]:
    """Return the names of a release's recordings of pixels."""
    return sorted(path.stem for path in PIXELS[release].glob("*.json"))


def recorded(release: str, case: str) -> dict[str, Any]:
    """Return the workflow of a recording, and what is known of its pictures."""
    document: dict[str, Any] = json.loads((PIXELS[release] / f"{case}.json").read_text())
    return document


def assert_recorded(release: str, case: str, pictures: list[Image.Image], *, exactly: bool = True) -> None:
    """Fail unless these are the recorded pictures, in the same mode and size and with the same metadata keys."""
    outputs = recorded(release, case)["outputs"]
    assert len(pictures) == len(outputs)
    for ours, expected in zip(pictures, outputs, strict=True):
        assert (ours.mode, list(ours.size)) == (expected["mode"], expected["size"])
        assert list(getattr(ours, "text", {})) == expected["png_text_keys"]
        given, wanted = np.asarray(ours), np.asarray(Image.open(PIXELS[release] / expected["file"]))
        if exactly:
            np.testing.assert_array_equal(given, wanted)
        else:
            away = np.abs(given.astype(int) - wanted.astype(int))
            assert away.max() <= 1
            assert np.count_nonzero(away) <= away.size // 2000


def is_recorded(release: str, case: str, pictures: list[Image.Image]) -> bool:
    """Return whether these are the recorded pictures."""
    try:
        assert_recorded(release, case, pictures)
    except AssertionError:
        return False
    return True

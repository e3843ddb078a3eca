"""The embedded engine gives the pixels that a real ComfyUI gave for the same workflows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.embedded import embedded_engine

PIXELS = Path(__file__).parent.parent / "data" / "pixels"
CASES = sorted(path.stem for path in PIXELS.glob("*.json"))


@pytest.mark.parametrize("case", CASES)
async def test_a_workflow_gives_the_pixels_of_comfyui(case: str, tmp_path: Path) -> None:
    recorded = json.loads((PIXELS / f"{case}.json").read_text())
    shutil.copytree(PIXELS / "inputs", tmp_path / "input")
    async with embedded_engine(tmp_path) as engine:
        entry = await engine.run(recorded["workflow"])
        pictures = await engine.pixels(entry)
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]
    assert len(pictures) == len(recorded["outputs"])
    for ours, expected in zip(pictures, recorded["outputs"], strict=True):
        assert (ours.mode, list(ours.size)) == (expected["mode"], expected["size"])
        assert list(ours.info) == expected["png_text_keys"]
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(Image.open(PIXELS / expected["file"])))

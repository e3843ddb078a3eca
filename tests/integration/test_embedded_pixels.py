"""The embedded engine gives the pixels that a real ComfyUI of the same release gave for the same workflows."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comfypin.engine.embedded.releases import RELEASES
from tests.support.embedded import embedded_engine
from tests.support.recordings import INPUTS, OTHER_DECODER, PIXELS, ROUNDED, assert_recorded, cases, recorded

CASES = [
    (release, case) for release in PIXELS for case in cases(release) if (release, case) not in OTHER_DECODER
]  # fmt: skip


@pytest.mark.parametrize("release, case", CASES)
async def test_a_workflow_gives_the_pixels_of_comfyui(release: str, case: str, tmp_path: Path) -> None:
    shutil.copytree(INPUTS, tmp_path / "input")
    async with embedded_engine(tmp_path, release=RELEASES[release]) as engine:
        entry = await engine.run(recorded(release, case)["workflow"])
        assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]
        pictures = await engine.pixels(entry)
    assert_recorded(release, case, pictures, exactly=not case.startswith(ROUNDED))


@pytest.mark.parametrize("release, case", sorted(OTHER_DECODER))
async def test_what_another_decoder_reads_has_the_same_size_at_least(release: str, case: str, tmp_path: Path) -> None:
    shutil.copytree(INPUTS, tmp_path / "input")
    document = recorded(release, case)
    async with embedded_engine(tmp_path, release=RELEASES[release]) as engine:
        [picture] = await engine.pixels(await engine.run(document["workflow"]))
    [expected] = document["outputs"]
    assert (picture.mode, list(picture.size)) == (expected["mode"], expected["size"])
    assert np.asarray(picture).shape == np.asarray(Image.open(PIXELS[release] / expected["file"])).shape

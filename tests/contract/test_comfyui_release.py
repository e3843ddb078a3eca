"""A real ComfyUI does what was recorded of its release, and the embedded engine's catalogue is its own.

The recordings are chosen by the version of the server (COMFYUI_DIR, COMFYUI_URL).
"""

import contextlib
import io
import itertools
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from comfypin.engine.command import comfyui_child, has_gpu
from comfypin.engine.embedded.catalogue import catalogue_entry
from comfypin.engine.embedded.folders import EngineFolders
from comfypin.engine.embedded.nodes.registry import node_classes_of
from comfypin.engine.embedded.releases import RELEASES
from comfypin.engine.process import Supervision
from comfypin.engine.standby import open_child
from comfypin.lock.model import EngineSpec
from tests.integration.test_embedded_releases import unordered
from tests.support.recordings import ANSWERS, INPUTS, assert_recorded, cases, is_recorded, recorded, release_of
from tools.record_comfyui.server import ComfyUI, told

pytestmark = [pytest.mark.comfyui, pytest.mark.asyncio(loop_scope="module")]

COMFYUI_DIR = os.environ.get("COMFYUI_DIR", "")
COMFYUI_URL = os.environ.get("COMFYUI_URL", "")


def version() -> str:
    """Return the version of the ComfyUI that is to be tested; "" if there is none."""
    if COMFYUI_URL:
        return ComfyUI(COMFYUI_URL).version()
    for folder in (Path(COMFYUI_DIR, "ComfyUI"), Path(COMFYUI_DIR)) if COMFYUI_DIR else ():
        with contextlib.suppress(FileNotFoundError):
            if found := re.search(r'__version__ = "(.*)"', (folder / "comfyui_version.py").read_text()):
                return found[1]
    return ""


VERSION = version()
RELEASE = release_of(VERSION) or "0.3.64"
PROMPTS: dict[str, Any] = json.loads(ANSWERS[RELEASE].read_text())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ComfyUI]:
    async with contextlib.AsyncExitStack() as stack:
        url = COMFYUI_URL
        if not url:
            spec = comfyui_child(Path(COMFYUI_DIR), EngineSpec(), os.environ, gpu=has_gpu(os.environ))
            opening = open_child(spec, tmp_path_factory.mktemp("comfyui"), limits=Supervision(ready_s=150))
            url = str((await (await stack.enter_async_context(opening)).address()).url)
        found = ComfyUI(url)
        for file in sorted(INPUTS.iterdir()):
            found.upload(file)
        yield found


async def test_its_release_was_recorded(server: ComfyUI) -> None:
    assert release_of(server.version()) is not None
    assert server.version() == VERSION


@pytest.mark.parametrize("case", cases(RELEASE))
async def test_a_workflow_gives_the_recorded_pixels(case: str, server: ComfyUI) -> None:
    status, body, history = server.run(recorded(RELEASE, case)["workflow"])
    assert status == 200, body
    assert history["status"]["status_str"] == "success", history["status"]["messages"][-1]
    shown = [
        [Image.open(io.BytesIO(server.file(file))) for file in each.get("images", ())]
        for each in history["outputs"].values()
    ]
    # Python's hashes decide which of several save nodes a ComfyUI runs first.
    orders = [list(itertools.chain.from_iterable(order)) for order in itertools.permutations(shown)]
    orders.sort(key=lambda pictures: not is_recorded(RELEASE, case, pictures))
    assert_recorded(RELEASE, case, orders[0])


@pytest.mark.parametrize("name", PROMPTS)
async def test_a_prompt_is_answered_as_recorded(name: str, server: ComfyUI) -> None:
    expected = {key: value for key, value in PROMPTS[name].items() if key != "prompt"}
    assert unordered(told(*server.run(PROMPTS[name]["prompt"]))) == unordered(expected)


# 0.3.64 was recorded at a125cd84 of Comfy-Org/ComfyUI, three days after its tag, which says less of two nodes.
async def test_the_embedded_engines_catalogue_is_its_own(server: ComfyUI, tmp_path: Path) -> None:
    real = server.get("/object_info")
    folders = EngineFolders(input=tmp_path, output=tmp_path, temp=tmp_path)
    ours = {
        name: json.loads(json.dumps(catalogue_entry(kind, folders, RELEASES[RELEASE])))
        for name, kind in node_classes_of(RELEASE).items()
    }
    for catalogue in (real, ours):
        for name in ("LoadImage", "LoadImageMask"):
            catalogue[name]["input"]["required"]["image"][0] = "files"
    assert {name: real.get(name) for name in ours} == ours

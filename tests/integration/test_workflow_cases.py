"""Jobs from public reports, as they were sent, on the embedded engine: each ends as its report says that it should."""

import base64
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from comfypin.engine.command import embedded_child
from comfypin.engine.standby import open_child
from comfypin.jobs.handler import Handler
from comfypin.lock.model import EngineSpec
from tests.conftest import shared_path
from tests.support.services import a_service

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Case -> what a failed job says; None where it succeeds.
ENDS: dict[str, str | None] = {
    "13-base64-plus-became-space/job.json": "has spaces inside its base64",
    "13b-base64-unpadded-and-urlsafe/unpadded.json": None,
    "13b-base64-unpadded-and-urlsafe/urlsafe.json": None,
    "14-input-names/job.json": None,
    "14-input-names/clipspace.json": None,
    "15-half-a-picture-as-input/job.json": "it is incomplete: the PNG is cut off",
    "17-input-that-no-node-reads/job.json": None,
    "18-preview-beside-save/job.json": None,
    "35-values-out-of-range/job.json": "-1 is below the minimum",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def handler(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Handler]:
    spec = embedded_child(EngineSpec(kind="embedded"), {})
    async with open_child(spec, tmp_path_factory.mktemp("engine")) as engine:
        yield Handler(replace(a_service(), engine=engine))


async def run(handler: Handler, case: str) -> Any:
    job = json.loads(Path(shared_path("cases"), "workflows", case).read_text())
    return (await handler("case", job.get("input", job))).output


@pytest.mark.parametrize("case", ENDS)
async def test_a_reported_job_ends_as_it_should(handler: Handler, case: str) -> None:
    output = await run(handler, case)
    expected = ENDS[case]
    if expected is None:
        assert (output.get("error"), len(output["images"])) == (None, 1)
    else:
        assert expected in output["error"]


async def test_base64_in_every_spelling_gives_the_same_picture(handler: Handler) -> None:
    cases = ("14-input-names/job.json", *(name for name in ENDS if name.startswith("13b")))
    pixels = set()
    for case in cases:
        [image] = (await run(handler, case))["images"]
        pixels.add(Image.open(io.BytesIO(base64.b64decode(image["data"]))).tobytes())
    assert len(pixels) == 1


async def test_an_input_that_no_node_reads_is_a_warning(handler: Handler) -> None:
    output = await run(handler, "17-input-that-no-node-reads/job.json")
    assert output["warnings"] == ["No node of the workflow reads 'in.png' (images.0): it loads no file"]

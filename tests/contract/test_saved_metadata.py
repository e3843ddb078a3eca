"""What a job saves holds the prefix that its user wrote, and the same job gives the same bytes.

On the embedded engine, and on a real ComfyUI where one is (COMFYUI_DIR).
"""

import asyncio
import hashlib
import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from comfypin import wiring
from comfypin.digest import Digest
from comfypin.engine import saved_files
from comfypin.engine.interface import Engine
from comfypin.jobs.job import JobResult
from comfypin.jobs.prepare import RunRequest, prepare_job
from comfypin.jobs.run import run_job
from comfypin.lock.model import EngineSpec
from comfypin.settings.environment import Settings
from comfypin.workflow.document import read_document

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMFYUI_DIR = os.environ.get("COMFYUI_DIR", "")
KINDS = ["embedded", *([pytest.param("comfyui", marks=pytest.mark.comfyui)] if COMFYUI_DIR else [])]


@dataclass
class Subject:
    engine: Engine
    settings: Settings
    folder: Path

    async def run(self, workflow: dict[str, Any], **extra_data: Any) -> tuple[Path, JobResult]:
        """Run a workflow as a job of its own, and return the folder of what it delivered."""
        submission = str(uuid.uuid4())
        request = RunRequest(
            document=read_document(json.dumps(workflow), source="test"),
            job_id=submission,
            submission_id=submission,
            input_folder=self.folder,
            extra_data=extra_data,
        )
        catalogue = await self.engine.catalogue()
        job = prepare_job(request, lock=None, catalogue=catalogue, now=datetime.now().astimezone())
        out = self.folder / "out" / submission
        sink = wiring.make_sink("file", self.settings, out_dir=out)
        return out, await run_job(job, engine=self.engine, sink=sink)


@pytest_asyncio.fixture(params=KINDS, scope="module", loop_scope="module")
async def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Subject]:
    settings = Settings(dict(os.environ)).with_flags(comfy_home=Path(COMFYUI_DIR or "/nowhere"))
    folder = tmp_path_factory.mktemp("saved")
    Image.new("RGB", (16, 16), (9, 8, 7)).save(folder / "photo.png")
    async with AsyncExitStack() as stack:
        choice = wiring.choose_engine(EngineSpec(kind=request.param), settings)
        engine = await stack.enter_async_context(wiring.open_engine(choice))
        yield Subject(engine=engine, settings=settings, folder=folder)


def workflow(color: int, *, title: str = "Picture") -> dict[str, Any]:
    """Two pictures under one prefix, one of them from an input file."""
    empty = {"width": 16, "height": 16, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty, "_meta": {"title": title}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "me/Pic"}},
        "3": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "me/Pic"}},
    }


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def prompt_in(path: Path) -> Any:
    with Image.open(path) as saved:
        return json.loads(saved.info["prompt"])


async def test_the_prefix_in_a_picture_is_the_one_that_the_user_wrote(subject: Subject) -> None:
    folder, _ = await subject.run(workflow(1))
    for name in ("me/Pic_00001_.png", "me/Pic_00002_.png"):
        assert {prompt_in(folder / name)[node]["inputs"]["filename_prefix"] for node in "24"} == {"me/Pic"}


async def test_the_same_workflow_gives_the_same_bytes_again(subject: Subject) -> None:
    first, _ = await subject.run(workflow(2))
    between, _ = await subject.run(workflow(3))
    again, _ = await subject.run(workflow(2))
    assert digests(first) == digests(again)
    assert digests(first) != digests(between)


async def test_the_same_workflow_at_the_same_time_gives_the_same_bytes(subject: Subject) -> None:
    folders = [folder for folder, _ in await asyncio.gather(*(subject.run(workflow(4)) for _ in range(4)))]
    assert sorted(digests(folders[0])) == ["me/Pic_00001_.png", "me/Pic_00002_.png"]
    assert all(digests(folder) == digests(folders[0]) for folder in folders)


async def test_a_cached_file_is_known_by_its_tag_while_nobody_has_noted_its_maker(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of two jobs that end together, the later one may be looked at first.
    monkeypatch.setattr(saved_files, "_describe_maker", lambda prompt: Digest.of(prompt.prompt_id.encode()))
    first, _ = await subject.run(workflow(5))
    again, _ = await subject.run(workflow(5))
    assert digests(first) == digests(again)


async def test_different_workflows_at_the_same_time_get_their_own_pictures(subject: Subject) -> None:
    colors = range(100, 106)
    done = await asyncio.gather(*(subject.run(workflow(color)) for color in colors))
    for color, (folder, _) in zip(colors, done, strict=True):
        with Image.open(folder / "me/Pic_00001_.png") as saved:
            assert saved.getpixel((0, 0)) == (color >> 16, (color >> 8) & 255, color & 255)
        assert prompt_in(folder / "me/Pic_00001_.png")["1"]["inputs"]["color"] == color


async def test_metadata_of_another_job_is_never_delivered(subject: Subject) -> None:
    # The pictures come from the engine's cache, whose files hold what the first job had on its screen.
    await subject.run(workflow(7), extra_pnginfo={"workflow": {"owner": "first"}})
    folder, _ = await subject.run(workflow(7), extra_pnginfo={"workflow": {"owner": "second"}})
    with Image.open(folder / "me/Pic_00001_.png") as saved:
        assert json.loads(saved.info["workflow"]) == {"owner": "second"}
    titled, _ = await subject.run(workflow(7, title="Renamed"))
    assert prompt_in(titled / "me/Pic_00001_.png")["1"]["_meta"] == {"title": "Renamed"}
    assert sorted(digests(titled)) == ["me/Pic_00001_.png", "me/Pic_00002_.png"]


async def test_a_name_that_needs_our_mark_leaves_no_trace_in_the_picture(subject: Subject) -> None:
    # `%batch_num%` counts nothing up, so the engine gets a marked prefix, as every save node of a pack does.
    marked = workflow(8)
    for node in "24":
        marked[node]["inputs"]["filename_prefix"] = f"me/Pic{node}_%batch_num%"
    first, result = await subject.run(marked)
    again, _ = await subject.run(marked)
    (name, *_) = sorted(digests(first))
    assert prompt_in(first / name)["2"]["inputs"]["filename_prefix"] == "me/Pic2_%batch_num%"
    assert digests(first) == digests(again)
    assert b"cp" not in b"".join(json.dumps(prompt_in(path)).encode() for path in first.rglob("*.png"))
    assert not result.warnings

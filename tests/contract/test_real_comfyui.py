"""Jobs on a real ComfyUI (COMFYUI_DIR) through every door, and with nodes that behave as those of packs do."""

import base64
import io
import json
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from comfypin.engine.command import comfyui_child, has_gpu
from comfypin.engine.process import Supervision
from comfypin.engine.standby import open_child
from comfypin.jobs.handler import Handler
from comfypin.lock.model import EngineSpec
from comfypin.queue.job_events import JobEvents
from comfypin.queue.preview_relay import PreviewRelay
from tests.conftest import SHARED
from tests.support.door import run_door
from tests.support.real_comfyui import COMFYUI_DIR, a_lock, saves_of_every_kind
from tests.support.runpod_queue import RunpodQueue, worker
from tests.support.server import serving
from tests.support.services import a_service

pytestmark = [
    pytest.mark.comfyui,
    pytest.mark.skipif(not COMFYUI_DIR, reason="starts a ComfyUI of its own: set COMFYUI_DIR"),
]

READY_S = 280
CASES = SHARED / "cases" / "workflows"
SUPPORT = Path(__file__).parents[1] / "support"


def kinds(answer: dict[str, Any]) -> dict[str, set[str]]:
    """The media types of a job's answer, by its lists."""
    lists = ("images", "videos", "audio", "files")
    return {name: {item["media_type"] for item in answer[name]} for name in lists if answer[name]}


EVERY_KIND = {"images": {"image/png", "video/mp4"}, "videos": {"video/mp4"}, "audio": {"audio/flac"}}


# -- Every door ---------------------------------------------------------------------------------------------------


def test_run_delivers_a_picture_a_video_and_a_sound(tmp_path: Path) -> None:
    lock = a_lock(tmp_path / "real.lock.json", "--disable-all-custom-nodes")
    (tmp_path / "w.json").write_text(json.dumps(saves_of_every_kind()))
    words = ("--lock", lock, "--workflow", tmp_path / "w.json", "--out-dir", tmp_path / "out", "--json")
    done = run_door(*words, timeout_s=READY_S + 60, COMFY_HOME=COMFYUI_DIR)
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout)
    assert {output["media_type"] for output in result["outputs"]} == {"image/png", "video/mp4", "audio/flac"}
    assert all(Path(output["uri"]).stat().st_size == output["size_bytes"] > 0 for output in result["outputs"])
    # The lock pins nothing of this ComfyUI, so the result does not claim it.
    (warning,) = result["warnings"]
    assert warning.startswith("Unpinned: ")


def test_serve_delivers_a_picture_a_video_and_a_sound(tmp_path: Path) -> None:
    lock = a_lock(tmp_path / "real.lock.json", "--disable-all-custom-nodes")
    with serving(tmp_path, "--lock", str(lock), environ={"COMFY_HOME": COMFYUI_DIR}, ready=False) as server:
        deadline = time.monotonic() + READY_S
        while server.ping() != 200:
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.5)
        job = server.post("/run", {"input": {"workflow": saves_of_every_kind()}})
        answer = server.ended(job["id"])
    assert answer["status"] == "COMPLETED", answer
    assert kinds(answer["output"]) == EVERY_KIND


def test_a_worker_delivers_a_picture_a_video_and_a_sound(tmp_path: Path) -> None:
    lock = a_lock(tmp_path / "real.lock.json", "--disable-all-custom-nodes")
    with (
        RunpodQueue().running() as queue,
        worker(queue, "--lock", str(lock), environ={"COMFY_HOME": COMFYUI_DIR}),
    ):
        queue.put("every-kind", {"workflow": saves_of_every_kind(), "output": {"mode": "base64"}})
        answer = queue.wait("every-kind", within_s=READY_S)
    assert "error" not in answer, answer
    assert kinds(answer["output"]) == EVERY_KIND
    [video] = answer["output"]["videos"]
    assert base64.b64decode(video["data"])[4:8] == b"ftyp"


# -- Nodes as packs have them -------------------------------------------------------------------------------------


class Worker:
    """A handler on a ComfyUI with odd nodes, and the folder that its engine writes to."""

    def __init__(self, handler: Handler, work: Path, events: JobEvents) -> None:
        self.handler = handler
        self.work = work
        self.events = events

    async def run(self, case: str) -> Any:
        """What becomes of the case's job, or of its bare workflow."""
        document = json.loads((CASES / case).read_text())
        return await self.run_job(case, document.get("input") or {"workflow": document})

    async def run_job(self, job_id: str, job: Any) -> Any:
        return (await self.handler(job_id, job)).output

    def left(self) -> list[str]:
        """The files that lie in the engine's output and temp folders."""
        folders = (self.work / "output", self.work / "temp")
        return sorted(path.name for folder in folders for path in folder.rglob("*") if path.is_file())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def odd(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    if not (CASES / "odd_nodes").is_dir():
        pytest.skip("needs the cases in ../shared/cases, which only the developers' checkouts have")
    base, work = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("work")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "odd_nodes").symlink_to(CASES / "odd_nodes")
    for pack in ("silent_pack.py", "preview_pack.py", "saving_pack.py"):
        (base / "custom_nodes" / pack).symlink_to(SUPPORT / pack)
    spec = comfyui_child(
        Path(COMFYUI_DIR),
        EngineSpec(args=("--disable-api-nodes", "--base-directory", str(base))),
        os.environ,
        gpu=has_gpu(os.environ),
    )
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_child(spec, work, limits=Supervision(ready_s=READY_S)))
        events = JobEvents()
        handler = Handler(replace(a_service(), engine=engine), previews=PreviewRelay(events))
        yield Worker(handler, work, events)


names = pytest.mark.asyncio(loop_scope="module")


@names
async def test_what_a_node_saved_in_silence_is_delivered_and_said(odd: Worker) -> None:
    output = await odd.run("23-saved-but-not-reported/silent.json")
    assert [image["filename"] for image in output["images"]] == ["quiet_00001.png"]
    assert output["warnings"] == [
        "Node 2 (SavesSilently) saved quiet_00001.png without reporting it; the file was found by its name and is "
        "delivered."
    ]
    assert odd.left() == []


@names
async def test_save_nodes_of_packs_leave_the_users_prefix_in_what_they_save(odd: Worker) -> None:
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SavesItsOwnPng", "inputs": {"images": ["1", 0], "filename_prefix": "mine/Cat"}},
        "3": {"class_type": "SavesItsOwnWebp", "inputs": {"images": ["1", 0], "filename_prefix": "Cat"}},
    }
    answers = [await odd.run_job(f"packs-{number}", {"workflow": graph}) for number in range(2)]
    # ComfyUI runs the two in any order.
    first, second = ({image["filename"]: base64.b64decode(image["data"]) for image in one["images"]} for one in answers)
    assert sorted(first) == ["Cat-1.png", "Cat.webp"]
    with Image.open(io.BytesIO(first["Cat-1.png"])) as picture:
        picture.load()
        assert json.loads(picture.info["prompt"])["2"]["inputs"]["filename_prefix"] == "mine/Cat"
    with Image.open(io.BytesIO(first["Cat.webp"])) as picture:
        prompt = json.loads(json.loads(picture.getexif()[0x010F])["prompt"])
        assert prompt["3"]["inputs"]["filename_prefix"] == "Cat"
    assert answers[0]["warnings"] == []
    assert first == second
    assert odd.left() == []


@names
async def test_a_path_that_a_node_says_as_text_is_delivered(odd: Worker) -> None:
    output = await odd.run("23-saved-but-not-reported/path_as_text.json")
    assert [(image["subfolder"], image["filename"]) for image in output["images"]] == [("od", "d_00001.png")]
    assert output["texts"] == {"2": ["od/d_00001.png"]}
    assert len(output["warnings"]) == 1
    assert odd.left() == []


@names
async def test_an_absolute_name_inside_the_output_folder_is_delivered(odd: Worker) -> None:
    output = await odd.run("24-output-elsewhere/absolute.json")
    [image] = output["images"]
    assert image["subfolder"] == "od"
    assert re.fullmatch(r"d_\d{5}\.png", image["filename"]), "the numbers of a worker count up"
    assert output["warnings"] == []


@names
async def test_a_file_outside_is_said_to_be_outside(odd: Worker) -> None:
    output = await odd.run("24-output-elsewhere/outside.json")
    assert output["error_type"] == "OutputOutside"
    assert "which is outside ComfyUI's output folder" in output["error"]


@names
async def test_the_companions_of_a_video_are_removed(odd: Worker) -> None:
    output = await odd.run("19-video-combine-companions/job.json")
    assert [video["filename"] for video in output["videos"]] == ["AD_00001-audio.mp4"]
    assert (output["images"], output["warnings"], odd.left()) == ([], [], [])


@names
async def test_a_node_that_reads_the_saved_workflow_gets_that_of_the_body(odd: Worker) -> None:
    # In this order: what a node made of the saved workflow is cached, and serves a job without one too.
    missed = await odd.run("22-node-needs-the-saved-workflow/api.json")
    assert "extra_data.extra_pnginfo" in missed["error"]
    output = await odd.run("22-node-needs-the-saved-workflow/prompt_body.json")
    assert output["texts"] == {"2": ["hello"]}


@names
async def test_texts_alone_are_a_result(odd: Worker) -> None:
    output = await odd.run("20-text-only/job.json")
    assert "errors" not in output
    assert output["texts"]


@names
@pytest.mark.parametrize(
    "how, ends",
    [("empty", "OutputEmpty"), ("missing", "OutputGone"), ("nested", None), ("samename", None), ("dotdot", None)],
)
async def test_odd_reports_are_told_apart(odd: Worker, how: str, ends: str | None) -> None:
    job = json.loads((CASES / "24-output-elsewhere/absolute.json").read_text())
    job["2"]["inputs"]["how"] = how
    output = (await odd.handler(how, {"workflow": job})).output
    assert output.get("error_type") == ends, output


@names
async def test_a_dead_engine_is_tried_once_more_and_its_reason_told(odd: Worker) -> None:
    output = await odd.run("31-engine-dies-in-a-node/exit.json")
    assert output["error_type"] == "EngineCrashed"
    assert "exit code 3" in output["error"]


# -- Previews -----------------------------------------------------------------------------------------------------


def shows_previews(count: int, pause_ms: int, size: int = 256) -> dict[str, Any]:
    return {
        "1": {"class_type": "ShowsPreviews", "inputs": {"count": count, "size": size, "pause_ms": pause_ms}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "seen"}},
    }


# Before all that follow: for ten minutes after somebody did, engines go on making previews.
@names
async def test_the_engine_makes_previews_only_if_somebody_looks(odd: Worker) -> None:
    unseen = (await odd.handler("unseen", {"workflow": shows_previews(2, 1)})).output
    with odd.events.subscribe("looked-at"):
        seen = (await odd.handler("looked-at", {"workflow": shows_previews(3, 1)})).output
    assert unseen["texts"] == {"1": ["none"]}
    # Before 0.33 only the engine's own --preview-method decides.
    assert seen["texts"] in ({"1": ["auto"]}, {"1": ["none"]})
    assert odd.events.newest_preview("unseen") is None


@names
async def test_followers_see_what_a_node_makes_twice_a_second(odd: Worker) -> None:
    with odd.events.subscribe("seen") as following:
        output = (await odd.handler("seen", {"workflow": shows_previews(20, 60)})).output
        assert "error" not in output, output
        event = await following.next_within(1)
    assert event is not None
    assert (event.kind, event.data["node_id"], event.data["content_type"]) == ("preview", "1", "image/jpeg")
    with Image.open(io.BytesIO(base64.b64decode(str(event.data["data_base64"])))) as picture:
        assert picture.size == (256, 256)
        assert picture.convert("RGB").getpixel((9, 9))[0] > 100, "the newest of them"

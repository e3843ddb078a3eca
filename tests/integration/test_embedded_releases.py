"""What the embedded engine does as ComfyUI 0.33 that it does not do as 0.3.64."""

import asyncio
import io
import json
import os
import struct
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfypin.engine.embedded.arguments import parse_arguments
from comfypin.engine.embedded.pixels.encode import encode_exr_floats, encode_png_16_bit
from comfypin.engine.embedded.releases import RELEASES
from comfypin.engine.embedded.replacements import replace_nodes
from comfypin.errors import ConfigError
from comfypin.lock.model import EngineSpec
from comfypin.settings.environment import Settings
from comfypin.wiring.engines import choose_engine, open_engine
from tests.support.embedded import Embedded, embedded_engine, empty, node, save
from tests.support.recordings import ANSWERS
from tools.record_comfyui.server import told

NEWER = RELEASES["0.33.0"]
RECORDED: dict[str, dict[str, Any]] = {release: json.loads(file.read_text()) for release, file in ANSWERS.items()}


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Embedded]:
    async with embedded_engine(tmp_path, release=NEWER) as running:
        yield running


def unordered(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: unordered(each, name) for name, each in value.items()}
    if isinstance(value, list):
        inner = [unordered(each) for each in value]
        return sorted(inner, key=str) if key in ("errors", "dependent_outputs") else inner
    return value.strip() if isinstance(value, str) else value


@pytest.mark.parametrize("release, name", [(release, name) for release in RECORDED for name in RECORDED[release]])
async def test_a_prompt_is_answered_as_by_comfyui(release: str, name: str, tmp_path: Path) -> None:
    expected = {key: value for key, value in RECORDED[release][name].items() if key != "prompt"}
    async with embedded_engine(tmp_path, release=RELEASES[release]) as engine:
        status, body = await engine.post({"prompt": RECORDED[release][name]["prompt"]})
        history = await engine.ended(body["prompt_id"]) if status == 200 else None
    assert unordered(told(status, body, history)) == unordered(expected)


class TestTheCatalogue:
    @pytest.mark.parametrize(
        "release, folder", [("0.3.64", "convert"), ("0.33.0", "comfyui-0.33")], ids=["0.3.64", "0.33.0"]
    )
    async def test_is_that_of_the_release(self, release: str, folder: str, captures: Path, tmp_path: Path) -> None:
        real = json.loads((captures / folder / "object_info.json").read_text())
        async with embedded_engine(tmp_path, release=RELEASES[release]) as running:
            ours = await running.get("/object_info")
        for catalogue in (real, ours):
            for name in ("LoadImage", "LoadImageMask"):
                catalogue[name]["input"]["required"]["image"][0] = "files"
        assert {name: real[name] for name in ours} == ours

    async def test_names_the_release_in_system_stats(self, engine: Embedded) -> None:
        assert (await engine.get("/system_stats"))["system"]["comfyui_version"] == "0.33.0"

    async def test_of_the_older_release_has_none_of_the_new_classes(self, tmp_path: Path) -> None:
        async with embedded_engine(tmp_path) as older:
            assert await older.get("/object_info/BatchImagesNode") == {}


class TestAPromptId:
    @pytest.mark.parametrize("bad", ["mine", "8B6C7B68-42A7-4D1B-9F4C-0E6BD1B6E4F1", "{}", 5, ["x"]])
    async def test_that_is_no_uuid_is_refused(self, bad: object, engine: Embedded) -> None:
        status, body = await engine.post({"prompt": {"1": empty(), "2": save("1")}, "prompt_id": bad})
        assert (status, body["error"]["type"]) == (400, "invalid_prompt_id")

    async def test_of_null_is_made_by_the_server(self, engine: Embedded) -> None:
        status, body = await engine.post({"prompt": {"1": empty(), "2": save("1")}, "prompt_id": None})
        assert (status, str(uuid.UUID(body["prompt_id"]))) == (200, body["prompt_id"])

    async def test_may_be_any_text_in_the_older_release(self, tmp_path: Path) -> None:
        async with embedded_engine(tmp_path) as older:
            status, body = await older.post({"prompt": {"1": empty(), "2": save("1")}, "prompt_id": "mine"})
        assert (status, body["prompt_id"]) == (200, "mine")


class TestNodeReplacements:
    KNOWN = frozenset({"ControlNetLoader", "BatchImagesNode"})

    def test_rename_an_unknown_class_and_its_inputs(self) -> None:
        graph = {"1": {**node("T2IAdapterLoader", t2i_adapter_name="a"), "_meta": {"title": "x"}}}
        replace_nodes(graph, self.KNOWN)
        assert graph["1"] == {**node("ControlNetLoader", control_net_name="a"), "_meta": {"title": "x"}}

    def test_leave_a_class_that_is_known(self) -> None:
        graph = {"1": node("ImageBatch", image1=["2", 0], image2=["2", 0])}
        replace_nodes(graph, self.KNOWN | {"ImageBatch"})
        assert graph["1"]["class_type"] == "ImageBatch"

    def test_leave_a_class_whose_replacement_is_unknown(self) -> None:
        graph = {"1": node("Load3DAnimation")}
        replace_nodes(graph, self.KNOWN)
        assert graph["1"]["class_type"] == "Load3DAnimation"

    async def test_are_listed(self, engine: Embedded) -> None:
        listed = await engine.get("/node_replacements")
        assert listed["T2IAdapterLoader"][0]["new_node_id"] == "ControlNetLoader"


class TestJobs:
    async def test_that_ended_are_listed_newest_first(self, engine: Embedded) -> None:
        for color in (1, 2):
            await engine.run({"1": empty(color=color), "2": save("1")})
        listed = await engine.get("/api/jobs?limit=1")
        assert [job["status"] for job in listed["jobs"]] == ["completed"]
        assert listed["pagination"] == {"offset": 0, "limit": 1, "total": 2, "has_more": True}

    async def test_are_told_one_by_one_with_their_outputs(self, engine: Embedded) -> None:
        entry = await engine.run({"1": empty(), "2": save("1")})
        job = await engine.get(f"/api/jobs/{entry['prompt'][1]}")
        assert (job["outputs"], job["outputs_count"]) == (entry["outputs"], 1)
        assert job["preview_output"]["nodeId"] == "2"

    async def test_that_failed_say_why(self, engine: Embedded) -> None:
        entry = await engine.run({"1": node("ColorToRGBInt", color="red"), "2": node("PreviewAny", source=["1", 0])})
        job = await engine.get(f"/api/jobs/{entry['prompt'][1]}")
        assert (job["status"], job["execution_error"]["node_id"]) == ("failed", "1")

    async def test_that_are_unknown_are_not_found(self, engine: Embedded) -> None:
        async with engine.client.get("/api/jobs/x") as answer:
            assert (answer.status, await answer.json()) == (404, {"error": "Job not found"})

    @pytest.mark.parametrize("query", ["status=done", "limit=0", "limit=x", "sort_by=name", "sort_order=up"])
    async def test_are_not_listed_for_a_query_that_is_wrong(self, query: str, engine: Embedded) -> None:
        async with engine.client.get(f"/api/jobs?{query}") as answer:
            assert answer.status == 400

    async def test_that_wait_or_run_are_cancelled_and_no_other(self, engine: Embedded) -> None:
        blur = node("ImageBlur", image=["1", 0], blur_radius=31, sigma=9.0)
        ids = []
        for color in (1, 2):
            source = empty(width=1024, height=1024, batch_size=8, color=color)
            ids.append((await engine.post({"prompt": {"1": source, "2": blur, "3": save("2")}}))[1]["prompt_id"])
        while (await engine.get(f"/api/jobs/{ids[0]}"))["status"] != "in_progress":  # noqa: ASYNC110, as clients poll
            await asyncio.sleep(0.005)
        for job_id in (ids[1], ids[0]):
            assert (await engine.post({}, f"/api/jobs/{job_id}/cancel"))[1] == {"cancelled": True}
        entry = await engine.ended(ids[0])
        assert entry["status"]["messages"][-1][0] == "execution_interrupted"
        assert (await engine.get(f"/api/jobs/{ids[0]}"))["status"] == "cancelled"
        assert await engine.get(f"/history/{ids[1]}") == {}
        assert (await engine.post({}, f"/api/jobs/{ids[0]}/cancel"))[1] == {"cancelled": False}

    async def test_of_ids_that_are_no_uuids_are_not_cancelled(self, engine: Embedded) -> None:
        status, body = await engine.post({"job_ids": ["x", 5]}, "/api/jobs/cancel")
        assert (status, body["invalid_ids"]) == (400, ["x", "5"])

    async def test_are_no_route_of_the_older_release(self, tmp_path: Path) -> None:
        async with embedded_engine(tmp_path) as older, older.client.get("/api/jobs") as answer:
            assert answer.status == 404


class TestLazyInputs:
    async def test_of_the_branch_that_is_not_taken_do_not_run(self, engine: Embedded) -> None:
        fails = node("ColorToRGBInt", color="red")
        switch = node("ComfySwitchNode", switch=False, on_false=["1", 0], on_true=["2", 0])
        entry = await engine.run({"1": empty(), "2": fails, "3": switch, "4": save("3")})
        assert entry["status"]["status_str"] == "success"


class TestFilesOfSaveImageAdvanced:
    async def test_have_no_underscore_at_the_end_and_count_on(self, engine: Embedded) -> None:
        chosen = {"format": "png", "format.bit_depth": "8-bit", "format.input_color_space": "sRGB"}
        names = []
        for color in (1, 2):
            inputs = {"images": ["1", 0], "filename_prefix": "a", **chosen}
            saver = {"class_type": "SaveImageAdvanced", "inputs": inputs}
            entry = await engine.run({"1": empty(color=color), "2": saver})
            names += [file["filename"] for file in entry["outputs"]["2"]["images"]]
        assert names == ["a_00001.png", "a_00002.png"]

    def test_of_16_bits_hold_every_level(self) -> None:
        values = np.arange(5 * 7 * 1, dtype=np.uint16).reshape(5, 7, 1) * 1871
        content = encode_png_16_bit(values, [("prompt", "{}")])
        picture = Image.open(io.BytesIO(content))
        assert picture.text == {"prompt": "{}"}  # type: ignore[attr-defined]
        np.testing.assert_array_equal(np.asarray(picture).astype(np.uint16), values[..., 0])

    def test_in_exr_hold_the_floats_by_channel(self) -> None:
        values = np.random.default_rng(1).normal(size=(3, 4, 3)).astype(np.float32)
        content = encode_exr_floats(values, [("prompt", "{}")], (0.0,) * 8)
        assert content[:4] == struct.pack("<I", 20000630)
        rows = 8 + 4 * 3 * 4
        lines = content[-3 * rows :]
        blue = np.frombuffer(lines[8 : 8 + 16], "<f4")
        np.testing.assert_array_equal(blue, values[0, :, 2])


def test_the_release_is_an_option_of_the_process() -> None:
    assert parse_arguments(["--comfyui-version", "0.33.0"]).release is NEWER
    assert parse_arguments([]).release.version == "0.3.64"


def test_a_release_that_it_does_not_know_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--comfyui-version", "0.40.0"])
    assert "0.3.64" in capsys.readouterr().err


async def test_a_release_that_no_setting_may_name_is_refused_by_its_variable() -> None:
    settings = Settings({"COMFYPIN_EMBEDDED_VERSION": "0.40.0"})
    choice = choose_engine(EngineSpec(kind="embedded"), settings)
    with pytest.raises(ConfigError, match=r"COMFYPIN_EMBEDDED_VERSION is '0.40.0'.*0.3.64 or 0.33.0"):
        async with open_engine(choice):
            pass


async def test_the_setting_chooses_the_catalogue() -> None:
    settings = Settings({**os.environ, "COMFYPIN_EMBEDDED_VERSION": "0.33.0"})
    async with open_engine(choose_engine(EngineSpec(kind="embedded"), settings)) as engine:
        assert "BatchImagesNode" in await engine.catalogue()

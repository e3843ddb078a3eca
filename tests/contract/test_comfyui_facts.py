"""What every client of ComfyUI's API must survive: one group of tests a fact, against a ComfyUI that does it wrong."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from comfypin.engine.client import HttpEngine
from comfypin.engine.errors import NodeFailed, PromptInterrupted, PromptLost
from comfypin.engine.http_transport import EngineTimeouts
from comfypin.engine.interface import EngineEvent, InputFile, NodeStarted, Prompt, Queued, Started, Warned
from comfypin.engine.remote import open_remote
from comfypin.workflow.errors import InputFileInvalid, WorkflowRejected
from tests.support.fake_comfyui import NEWER, PNG, Canned, FakeComfyUI, fake_comfyui
from tests.support.graphs import a_prompt, graph, loaded, node, picture

QUICK = EngineTimeouts(
    poll_s=0.05, lost_s=0.1, history_s=0.5, unreachable_s=0.4, cancel_s=1.0, websocket_s=1.0, request_s=2.0
)


@asynccontextmanager
async def engine_at(**script: Any) -> AsyncIterator[tuple[FakeComfyUI, HttpEngine]]:
    async with fake_comfyui(**script) as fake, open_remote(fake.url, timeouts=QUICK) as engine:
        yield fake, engine


async def follow(engine: HttpEngine, prompt: Prompt) -> list[EngineEvent]:
    await engine.submit(prompt)
    return [event async for event in engine.events(prompt.prompt_id)]


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


MISSING = {
    "9": {
        "errors": [
            {
                "type": "required_input_missing",
                "message": "Required input is missing",
                "details": "images",
                "extra_info": {"input_name": "images"},
            }
        ],
        "dependent_outputs": ["9"],
        "class_type": "SaveImage",
    }
}


class TestA200WithNodeErrors:
    async def test_is_refused_and_names_the_outputs_that_would_have_been_dropped(self) -> None:
        async with engine_at(node_errors=MISSING) as (_, engine):
            with pytest.raises(WorkflowRejected, match="without the outputs of node 9") as caught:
                await engine.submit(a_prompt())
        assert caught.value.node_errors == {"9": "Required input is missing"}

    async def test_does_not_leave_the_other_branches_running(self) -> None:
        async with engine_at(node_errors=MISSING, held={"1"}) as (fake, engine):
            prompt = a_prompt()
            with pytest.raises(WorkflowRejected):
                await engine.submit(prompt)
            await until(lambda: fake.running is None)
            assert prompt.prompt_id in fake.interrupted or not fake.history


class TestA400:
    @pytest.mark.parametrize(
        "recording, expected",
        [
            ("prompt_err_b_missing_required", ("1", "EmptyImage", "color", None, None)),
            ("prompt_err_c2_value_too_big", ("1", "EmptyImage", "width", 99999, (1, 16384))),
            (
                "prompt_err_c4_value_not_in_list",
                (
                    "3",
                    "ImageScale",
                    "upscale_method",
                    "bogus",
                    ("nearest-exact", "bilinear", "area", "bicubic", "lanczos"),
                ),
            ),
            ("prompt_err_c5_type_mismatch_link", ("2", "SaveImage", "images", "MASK", ("IMAGE",))),
        ],
    )
    async def test_names_node_class_input_received_and_allowed(
        self, recording: str, expected: tuple[object, ...], http_recordings: Path
    ) -> None:
        body = json.loads((http_recordings / f"{recording}.json").read_text())["body"]
        async with engine_at() as (fake, engine):
            fake.say_next("POST /prompt", Canned(400, json.dumps(body).encode()))
            with pytest.raises(WorkflowRejected) as caught:
                await engine.submit(a_prompt())
        [problem] = caught.value.problems
        assert (
            problem.node_id,
            problem.class_type,
            problem.input_name,
            problem.received,
            problem.allowed,
        ) == expected

    @pytest.mark.parametrize(
        "recording, words",
        [
            ("prompt_err_a_unknown_class", "NoSuchNode"),
            ("prompt_err_f2_ui_format_workflow", "class_type"),
            ("prompt_err_d_empty_prompt", "no outputs"),
            ("prompt_err_h_cycle", "failed validation"),
            ("prompt_err_i_loadimage_missing_file", "nope.png"),
        ],
    )
    async def test_without_a_node_says_what_the_engine_said(
        self, recording: str, words: str, http_recordings: Path
    ) -> None:
        body = json.loads((http_recordings / f"{recording}.json").read_text())["body"]
        async with engine_at() as (fake, engine):
            fake.say_next("POST /prompt", Canned(400, json.dumps(body).encode()))
            with pytest.raises(WorkflowRejected, match=words):
                await engine.submit(a_prompt())


class TestAnEmptyHistory:
    async def test_of_a_running_prompt_is_waited_for(self) -> None:
        async with engine_at(held={"2"}, websocket="silent") as (fake, engine):
            prompt = a_prompt()
            await engine.submit(prompt)
            await until(lambda: len(fake.asked("GET /queue")) >= 5)
            fake.release()
            assert [event async for event in engine.events(prompt.prompt_id)]

    async def test_of_a_prompt_in_neither_queue_nor_history_is_a_lost_prompt(self) -> None:
        async with engine_at(held={"1"}) as (fake, engine):
            prompt = a_prompt()
            await engine.submit(prompt)
            await fake.restart()
            with pytest.raises(PromptLost, match="no longer knows"):
                [event async for event in engine.events(prompt.prompt_id)]

    async def test_of_a_prompt_that_somebody_deleted_from_the_queue_is_a_lost_prompt(self) -> None:
        async with engine_at(held={"n"}) as (fake, engine):
            fake.queue_of_another()
            prompt = a_prompt()
            await engine.submit(prompt)
            fake.pending.clear()
            with pytest.raises(PromptLost):
                [event async for event in engine.events(prompt.prompt_id)]


class TestTheMessagesAreTheTruth:
    async def test_a_failure_with_outputs_is_a_failure(self) -> None:
        failure = {"node_type": "X", "exception_type": "ValueError", "exception_message": "no", "traceback": []}
        async with engine_at(fails={"2": failure}, reports={"2": {"images": [{"filename": "a.png"}]}}) as (_, engine):
            with pytest.raises(NodeFailed):
                await follow(engine, a_prompt())

    async def test_an_interrupt_is_an_interrupt(self) -> None:
        async with engine_at(held={"1"}) as (fake, engine):
            prompt = a_prompt()
            await engine.submit(prompt)
            await until(lambda: fake.running)
            fake.interrupted.add(prompt.prompt_id)
            with pytest.raises(PromptInterrupted, match="at node 1"):
                [event async for event in engine.events(prompt.prompt_id)]

    async def test_a_null_status_is_taken_by_its_outputs_and_told(self) -> None:
        async with engine_at(status_is_null=True, reports={"2": {"images": [{"filename": "a.png"}]}}) as (_, engine):
            prompt = a_prompt()
            events = await follow(engine, prompt)
            assert [file.filename for file in (await engine.outputs(prompt.prompt_id)).files] == ["a.png"]
        assert any(isinstance(event, Warned) and "no status" in event.message for event in events)


class TestTheHistoryComesLate:
    async def test_after_execution_success_it_is_waited_for(self) -> None:
        async with engine_at(history_late_s=0.2, reports={"2": {"images": [{"filename": "a.png"}]}}) as (_, engine):
            prompt = a_prompt()
            await follow(engine, prompt)
            assert (await engine.outputs(prompt.prompt_id)).files

    async def test_after_execution_error_it_is_waited_for(self) -> None:
        async with engine_at(history_late_s=0.2, fails={"2": {"exception_type": "E"}}) as (_, engine):
            with pytest.raises(NodeFailed):
                await follow(engine, a_prompt())

    async def test_one_that_never_comes_is_given_up(self) -> None:
        async with engine_at() as (fake, engine):
            prompt = a_prompt()
            fake.say_next(f"GET /history/{prompt.prompt_id}", *[Canned(body=b"{}")] * 1000)
            await engine.submit(prompt)
            with pytest.raises(PromptLost):
                [event async for event in engine.events(prompt.prompt_id)]


class TestEventsAreNeverReplayed:
    async def test_a_prompt_survives_its_websocket(self) -> None:
        async with engine_at(held={"2"}) as (fake, engine):
            prompt = a_prompt()
            await engine.submit(prompt)
            await until(lambda: fake.running)
            await fake.cut_websockets()
            await until(lambda: fake.connections == 2)
            fake.release()
            events = [event async for event in engine.events(prompt.prompt_id)]
        assert any(isinstance(event, Warned) and "was cut" in event.message for event in events)

    async def test_every_connection_has_a_client_id_of_its_own(self) -> None:
        async with engine_at() as (fake, engine):
            await follow(engine, a_prompt())
            first = fake.asked("POST /prompt")[0]["client_id"]
            await fake.cut_websockets()
            await until(lambda: fake.connections == 2)
            await follow(engine, a_prompt())
            assert fake.asked("POST /prompt")[1]["client_id"] not in ("", first)


class TestASilentWebsocket:
    async def test_does_not_keep_a_result_back(self) -> None:
        async with engine_at(websocket="silent") as (_, engine):
            events = await follow(engine, a_prompt())
        assert any(isinstance(event, Warned) and "silent" in event.message for event in events)

    async def test_is_replaced_by_a_new_one(self) -> None:
        async with engine_at(websocket="silent") as (fake, engine):
            await follow(engine, a_prompt())
            await until(lambda: fake.connections == 2)

    async def test_one_that_is_refused_is_done_without(self) -> None:
        async with engine_at(websocket="refused") as (_, engine):
            assert any(isinstance(event, Started) for event in await follow(engine, a_prompt()))

    async def test_the_place_in_the_queue_is_told_without_it(self) -> None:
        async with engine_at(websocket="refused", held={"n"}) as (fake, engine):
            fake.queue_of_another()
            await until(lambda: fake.running)
            prompt = a_prompt()
            await engine.submit(prompt)
            events = engine.events(prompt.prompt_id)
            assert await anext(events) == Queued(ahead=1)
            await events.aclose()


class TestCachedNodes:
    async def test_their_files_are_outputs(self) -> None:
        reports = {"2": {"images": [{"filename": "old_00001_.png", "subfolder": "", "type": "output"}]}}
        async with engine_at(cached=["1", "2"], reports=reports) as (_, engine):
            prompt = a_prompt()
            events = await follow(engine, prompt)
            outputs = await engine.outputs(prompt.prompt_id)
        assert events == [Started(cached=frozenset({"1", "2"}))]
        assert (outputs.files[0].filename, outputs.cached) == ("old_00001_.png", frozenset({"1", "2"}))

    async def test_the_client_id_is_always_sent(self) -> None:
        async with engine_at(websocket="refused") as (fake, engine):
            await follow(engine, a_prompt())
            assert fake.asked("POST /prompt")[0]["client_id"]


class TestTemporaryFiles:
    async def test_come_from_the_temp_folder(self) -> None:
        reports = {"2": {"images": [{"filename": "p.png", "subfolder": "s", "type": "temp"}]}}
        async with engine_at(reports=reports, files={"temp/s/p.png": PNG}) as (_, engine):
            prompt = a_prompt()
            await follow(engine, prompt)
            [file] = (await engine.outputs(prompt.prompt_id)).files
            assert file.folder == "temp"
            assert b"".join([chunk async for chunk in file.read()]) == PNG


class TestOutputKeys:
    async def test_every_dict_with_a_filename_is_an_output_under_any_key(self) -> None:
        reports = {
            "2": {
                "images": [{"filename": "a.png", "type": "output"}, None, True],
                "animated": [True],
                "gifs": [{"filename": "b.mp4", "type": "temp", "format": "video/h264-mp4", "fullpath": "/x/b.mp4"}],
                "audio": [{"filename": "c.flac", "subfolder": "audio"}],
                "3d": [{"filename": "d.glb", "subfolder": "mesh", "type": "output"}],
                "latents": [{"filename": "e.latent"}],
                "text": ["a caption"],
                "result": ["f.glb", None, {"position": "front"}],
                "odd": {"nested": [[{"filename": "g.bin"}]]},
            }
        }
        async with engine_at(reports=reports) as (_, engine):
            prompt = a_prompt()
            await follow(engine, prompt)
            outputs = await engine.outputs(prompt.prompt_id)
        assert [(file.key, file.filename, file.subfolder, file.folder) for file in outputs.files] == [
            ("images", "a.png", "", "output"),
            ("gifs", "b.mp4", "", "temp"),
            ("audio", "c.flac", "audio", "output"),
            ("3d", "d.glb", "mesh", "output"),
            ("latents", "e.latent", "", "output"),
            ("odd", "g.bin", "", "output"),
        ]
        assert outputs.texts == {"2": ("a caption", "f.glb")}


class TestCancelling:
    @pytest.mark.parametrize("version", ["0.3.40", "0.3.64"])
    async def test_a_queued_prompt_leaves_the_queue_and_nobody_else_is_stopped(self, version: str) -> None:
        async with engine_at(version=version, held={"n"}) as (fake, engine):
            fake.queue_of_another()
            await until(lambda: fake.running)
            prompt = a_prompt()
            await engine.submit(prompt)
            await engine.cancel(prompt.prompt_id)
            assert fake.pending == []
            assert fake.asked("POST /interrupt") == []
            with pytest.raises(PromptInterrupted):
                [event async for event in engine.events(prompt.prompt_id)]

    @pytest.mark.parametrize("version", ["0.3.40", "0.3.64"])
    async def test_a_running_prompt_is_interrupted(self, version: str) -> None:
        async with engine_at(version=version, held={"1"}) as (fake, engine):
            prompt = a_prompt()
            await engine.submit(prompt)
            await until(lambda: fake.running)
            await engine.cancel(prompt.prompt_id)
            with pytest.raises(PromptInterrupted):
                [event async for event in engine.events(prompt.prompt_id)]
            assert fake.interrupted == {prompt.prompt_id}

    async def test_the_interrupt_names_the_prompt_where_the_version_listens(self) -> None:
        async with engine_at(version="0.3.64", held={"1"}) as (fake, engine):
            prompt = a_prompt()
            await engine.submit(prompt)
            await until(lambda: fake.running)
            await engine.cancel(prompt.prompt_id)
            assert fake.asked("POST /interrupt")[0] == {"prompt_id": prompt.prompt_id}

    async def test_the_newest_are_asked_through_their_jobs(self) -> None:
        async with engine_at(jobs_api=True, held={"1"}) as (fake, engine):
            prompt = a_prompt()
            await engine.submit(prompt)
            await until(lambda: fake.running)
            await engine.cancel(prompt.prompt_id)
            assert fake.asked("POST /interrupt") == []
            with pytest.raises(PromptInterrupted):
                [event async for event in engine.events(prompt.prompt_id)]

    async def test_one_that_the_newest_forget_before_the_first_node_is_said_again(self) -> None:
        async with engine_at(**NEWER, forgets_interrupts=1, held={"1"}) as (fake, engine):
            prompt = a_prompt()
            await engine.submit(prompt)
            await until(lambda: fake.running)
            await engine.cancel(prompt.prompt_id)
            assert fake.interrupted == {prompt.prompt_id}

    async def test_a_page_at_the_jobs_address_is_no_cancelling(self) -> None:
        async with engine_at(held={"1"}) as (fake, engine):
            prompt = a_prompt()
            await engine.submit(prompt)
            await until(lambda: fake.running)
            page = Canned(200, b"<html>the page</html>", "text/html")
            fake.say_next(f"POST /api/jobs/{prompt.prompt_id}/cancel", page)
            await engine.cancel(prompt.prompt_id)
            assert fake.interrupted == {prompt.prompt_id}

    async def test_what_has_ended_stays_as_it_is(self) -> None:
        async with engine_at() as (fake, engine):
            prompt = a_prompt()
            await follow(engine, prompt)
            await engine.cancel(prompt.prompt_id)
            assert (fake.asked("POST /interrupt"), fake.asked("POST /queue")) == ([], [])


class TestPromptIds:
    async def test_ours_are_sent(self) -> None:
        async with engine_at() as (fake, engine):
            prompt = a_prompt()
            await follow(engine, prompt)
            assert fake.asked("POST /prompt")[0]["prompt_id"] == prompt.prompt_id

    async def test_an_old_server_s_own_are_followed(self) -> None:
        reports = {"2": {"images": [{"filename": "a.png"}]}}
        async with engine_at(honours_prompt_id=False, reports=reports) as (_, engine):
            prompt = a_prompt()
            events = await follow(engine, prompt)
            assert (await engine.outputs(prompt.prompt_id)).files
        assert [event.node_id for event in events if isinstance(event, NodeStarted)] == ["1", "2"]

    async def test_an_old_server_that_is_faster_than_its_answer_is_followed(self) -> None:
        async def linger() -> None:
            await asyncio.sleep(0.05)

        async with engine_at(honours_prompt_id=False, before_post=linger) as (_, engine):
            events = await follow(engine, a_prompt())
        assert [event.node_id for event in events if isinstance(event, NodeStarted)] == ["1", "2"]

    async def test_a_cancelled_status_is_an_interrupt(self) -> None:
        async with engine_at() as (fake, engine):
            prompt = a_prompt()
            entry = {prompt.prompt_id: {"outputs": {}, "status": {"status_str": "cancelled", "messages": []}}}
            fake.say_next(f"GET /history/{prompt.prompt_id}", Canned(body=json.dumps(entry).encode()))
            with pytest.raises(PromptInterrupted):
                await follow(engine, prompt)

    async def test_the_newest_take_ours(self) -> None:
        async with engine_at(**NEWER) as (fake, engine):
            prompt = a_prompt()
            await follow(engine, prompt)
            assert list(fake.history) == [prompt.prompt_id]


class TestTheQueue:
    async def test_of_the_newest_is_asked_without_its_graphs(self) -> None:
        async with engine_at(**NEWER, websocket="silent", held={"n"}) as (fake, engine):
            fake.queue_of_another()
            await until(lambda: fake.running)
            prompt = a_prompt()
            await engine.submit(prompt)
            assert await anext(engine.events(prompt.prompt_id)) == Queued(ahead=1)
            assert fake.asked("GET /queue") == []

    async def test_of_older_ones_is_asked_for_jobs_once(self) -> None:
        async with engine_at(websocket="silent", held={"1"}) as (fake, engine):
            await engine.submit(a_prompt())
            await until(lambda: len(fake.asked("GET /queue")) > 2)
            assert len(fake.asked("GET /api/jobs")) == 1


class TestARestart:
    async def test_of_an_engine_far_away_is_told_apart_from_a_queue_that_was_cleared(self) -> None:
        async with engine_at(held={"n"}) as (fake, engine):
            fake.queue_of_another()
            await until(lambda: fake.running)
            forgotten, removed = a_prompt(), a_prompt()
            await engine.submit(removed)
            fake.pending.clear()
            with pytest.raises(PromptLost) as cleared:
                [event async for event in engine.events(removed.prompt_id)]
            await engine.submit(forgotten)
            await fake.restart()
            with pytest.raises(PromptLost) as restarted:
                [event async for event in engine.events(forgotten.prompt_id)]
        assert (cleared.value.restarted, restarted.value.restarted) == (False, True)

    async def test_that_was_only_a_cut_connection_is_none(self) -> None:
        async with engine_at(held={"n"}) as (fake, engine):
            await follow(engine, a_prompt())
            fake.queue_of_another()
            await until(lambda: fake.running)
            prompt = a_prompt()
            await engine.submit(prompt)
            await fake.cut_websockets()
            fake.pending.clear()
            with pytest.raises(PromptLost) as caught:
                [event async for event in engine.events(prompt.prompt_id)]
        assert caught.value.restarted is False


class TestTheHistoryIsForgotten:
    async def test_outputs_are_known_though_the_engine_forgot_them(self) -> None:
        async with engine_at(reports={"2": {"images": [{"filename": "a.png"}]}}) as (fake, engine):
            prompt = a_prompt()
            await follow(engine, prompt)
            fake.history.clear()
            assert (await engine.outputs(prompt.prompt_id)).files


class TestUploads:
    async def test_each_job_has_a_folder_of_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "here.png").write_bytes(PNG)
        async with engine_at() as (fake, engine):
            prompts = [
                a_prompt(loaded(), InputFile(node_id="1", input_name="image", path=tmp_path / "here.png")) for _ in "ab"
            ]
            for prompt in prompts:
                await follow(engine, prompt)
            assert list(fake.uploads) == [f"comfypin/{prompt.prompt_id}/here.png" for prompt in prompts]

    async def test_the_name_that_the_engine_answers_is_used(self, tmp_path: Path) -> None:
        (tmp_path / "here.png").write_bytes(PNG)
        async with engine_at() as (fake, engine):
            stored = {"name": "here (1).png", "subfolder": "elsewhere", "type": "input"}
            fake.say_next("POST /upload/image", Canned(body=json.dumps(stored).encode()))
            await follow(
                engine, a_prompt(loaded(), InputFile(node_id="1", input_name="image", path=tmp_path / "here.png"))
            )
            assert fake.asked("POST /prompt")[0]["prompt"]["1"]["inputs"]["image"] == "elsewhere/here (1).png"

    async def test_two_files_of_one_name_stay_two(self, tmp_path: Path) -> None:
        files = []
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "here.png").write_bytes(folder.encode())
            files.append(InputFile(node_id=folder, input_name="image", path=tmp_path / folder / "here.png"))
        both = graph(node("a", "LoadImage", image="x"), node("b", "LoadVideo", image="x"))
        async with engine_at() as (fake, engine):
            await follow(engine, a_prompt(both, *files))
            sent = fake.asked("POST /prompt")[0]["prompt"]
            assert [fake.uploads[sent[name]["inputs"]["image"]] for name in "ab"] == [b"a", b"b"]

    async def test_a_file_over_the_limit_is_refused_before_it_is_sent(self, tmp_path: Path) -> None:
        big = tmp_path / "film.mp4"
        with big.open("wb") as file:
            file.truncate(200_000_000)
        async with engine_at() as (fake, engine):
            with pytest.raises(InputFileInvalid, match=r"200 MB.*at most 105 MB.*upload limit raised to 201 MB"):
                await engine.submit(a_prompt(loaded(), InputFile(node_id="1", input_name="image", path=big)))
            assert fake.asked("POST /upload/image") == []

    async def test_a_413_says_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "film.mp4").write_bytes(bytes(2_000_000))
        async with engine_at(max_upload_size=1_000_000) as (_, engine):
            with pytest.raises(InputFileInvalid, match="upload limit"):
                await engine.submit(
                    a_prompt(loaded(), InputFile(node_id="1", input_name="image", path=tmp_path / "film.mp4"))
                )

    async def test_a_prompt_over_the_limit_is_rejected(self) -> None:
        async with engine_at() as (fake, engine):
            fake.say_next("POST /prompt", Canned(413, b"Maximum request body size 1048576 exceeded.", "text/plain"))
            with pytest.raises(WorkflowRejected, match="upload limit"):
                await engine.submit(a_prompt())


class TestNodeFailures:
    async def test_name_node_class_exception_and_traceback(self) -> None:
        failure = {
            "node_type": "KSampler",
            "exception_type": "torch.OutOfMemoryError",
            "exception_message": "CUDA out of memory.\n",
            "traceback": ["  File x\n"],
            "current_inputs": {"text": ["sk-very-secret"]},
        }
        async with engine_at(fails={"2": failure}) as (_, engine):
            with pytest.raises(NodeFailed) as caught:
                await follow(engine, a_prompt())
        assert (caught.value.node_id, caught.value.class_type) == ("2", "KSampler")
        assert caught.value.exception_type == "torch.OutOfMemoryError"
        assert caught.value.traceback == ("  File x\n",)

    async def test_never_show_the_inputs(self) -> None:
        failure = {"node_type": "X", "exception_type": "E", "current_inputs": {"text": ["sk-very-secret"]}}
        async with engine_at(fails={"2": failure}) as (_, engine):
            with pytest.raises(NodeFailed) as caught:
                await follow(engine, a_prompt())
        assert "sk-very-secret" not in f"{caught.value}{caught.value.to_json()}{vars(caught.value)}"


class TestExtraData:
    async def test_goes_with_the_prompt(self) -> None:
        async with engine_at() as (fake, engine):
            await follow(engine, a_prompt(picture(), api_key_comfy_org="k"))
            assert fake.asked("POST /prompt")[0]["extra_data"] == {"api_key_comfy_org": "k"}

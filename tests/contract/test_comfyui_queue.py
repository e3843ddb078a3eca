"""How a ComfyUI queues, cancels, restarts and forgets prompts, and how nodes fail."""

import asyncio
import json

import pytest

from comfypin.engine.errors import NodeFailed, PromptInterrupted, PromptLost
from comfypin.engine.interface import NodeStarted, Queued
from tests.support.fake_comfyui import NEWER, Canned
from tests.support.graphs import a_prompt, picture
from tests.support.scripted_comfyui import engine_at, follow, until


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

"""How a ComfyUI tells what happens: messages that are lost or late, and a history that lags."""

import pytest

from comfypin.engine.errors import NodeFailed, PromptInterrupted, PromptLost
from comfypin.engine.interface import Queued, Started, Warned
from tests.support.fake_comfyui import Canned
from tests.support.graphs import a_prompt
from tests.support.scripted_comfyui import engine_at, follow, until


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

"""A connection that fails in every way, between a prompt and its end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comfypin.engine.client import HttpEngine
from comfypin.engine.errors import EngineAnswerInvalid, EngineUnreachable, EngineUrlInvalid, OutputGone
from comfypin.engine.host import EngineAddress, LocalFolders
from comfypin.engine.http_transport import EngineTimeouts, parse_engine_url
from comfypin.engine.interface import EngineEvent, Prompt
from comfypin.engine.remote import RemoteHost, open_remote
from comfypin.errors import EngineError
from tests.support.fake_comfyui import PNG, Canned, FakeComfyUI, fake_comfyui
from tests.support.graphs import a_prompt

QUICK = EngineTimeouts(
    poll_s=0.05, lost_s=0.2, history_s=0.5, unreachable_s=0.4, cancel_s=0.5, websocket_s=1.0, request_s=0.5
)
REPORTS = {"2": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}}


@asynccontextmanager
async def engine_at(**script: Any) -> AsyncIterator[tuple[FakeComfyUI, HttpEngine]]:
    async with fake_comfyui(**{"reports": REPORTS, **script}) as fake, open_remote(fake.url, timeouts=QUICK) as engine:
        yield fake, engine


async def follow(engine: HttpEngine, prompt: Prompt) -> list[EngineEvent]:
    await engine.submit(prompt)
    return [event async for event in engine.events(prompt.prompt_id)]


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


HICCUPS = {
    "500": Canned(500, b"500 Internal Server Error\n\nServer got itself in trouble", "text/plain"),
    "garbage": Canned(200, b"<html>a proxy's greeting</html>", "text/html"),
    "half an answer": Canned(200, b'{"queue_running": [], "queue_pending": []}', cut=10),
    "another JSON": Canned(200, b"[1, 2]"),
}


@pytest.mark.parametrize("hiccup", HICCUPS)
@pytest.mark.parametrize("request_", ["GET /queue", "GET /history"])
async def test_a_prompt_survives_answers_that_fail_for_a_moment(hiccup: str, request_: str) -> None:
    async with engine_at(websocket="silent", held={"2"}) as (fake, engine):
        prompt = a_prompt()
        await engine.submit(prompt)
        fake.say_next(request_, *[HICCUPS[hiccup]] * 3)
        await until(lambda: not fake.canned[request_] or request_ == "GET /history")
        fake.release()
        assert [event async for event in engine.events(prompt.prompt_id)]


@pytest.mark.parametrize("hiccup", HICCUPS)
async def test_an_engine_that_goes_on_failing_fails_the_prompt(hiccup: str) -> None:
    async with engine_at(websocket="silent", held={"2"}) as (fake, engine):
        prompt = a_prompt()
        await engine.submit(prompt)
        fake.say_next("GET /queue", *[HICCUPS[hiccup]] * 1000)
        with pytest.raises(EngineError):
            [event async for event in engine.events(prompt.prompt_id)]


async def test_a_500_to_a_prompt_says_so() -> None:
    async with engine_at() as (fake, engine):
        fake.say_next("POST /prompt", HICCUPS["500"])
        with pytest.raises(EngineAnswerInvalid, match=r"POST /prompt with HTTP 500.*got itself in trouble"):
            await engine.submit(a_prompt())


async def test_a_500_to_a_prompt_brings_the_end_of_the_log_if_that_is_ours() -> None:
    class Near(RemoteHost):
        def log_tail(self) -> tuple[str, ...]:
            return ("Traceback (most recent call last):", "KeyError: '_meta'")

    async with fake_comfyui() as fake, aiohttp.ClientSession() as session:
        engine = HttpEngine(Near(EngineAddress(url=parse_engine_url(fake.url))), session, QUICK)
        fake.say_next("POST /prompt", HICCUPS["500"])
        with pytest.raises(EngineAnswerInvalid, match=r"(?s)look into its log.*\| KeyError: '_meta'"):
            await engine.submit(a_prompt())
        await engine.close()


@pytest.mark.parametrize("hiccup", ["garbage", "half an answer", "another JSON"])
async def test_a_prompt_whose_answer_was_spoilt_is_found_in_the_queue(hiccup: str) -> None:
    async with engine_at(after_post=HICCUPS[hiccup], held={"1"}) as (fake, engine):
        prompt = a_prompt()
        await engine.submit(prompt)
        fake.release()
        assert [event async for event in engine.events(prompt.prompt_id)]
        assert len(fake.asked("POST /prompt")) == 1


async def test_a_prompt_that_never_arrived_is_not_believed_to_have() -> None:
    async with engine_at() as (fake, engine):
        fake.say_next("POST /prompt", *[HICCUPS["half an answer"]] * 100)
        with pytest.raises(EngineUnreachable, match="was cut off"):
            await engine.submit(a_prompt())


async def test_a_prompt_that_never_arrived_is_sent_again() -> None:
    async with engine_at() as (fake, engine):
        fake.say_next("POST /prompt", *[HICCUPS["half an answer"]] * 2)
        assert await follow(engine, a_prompt())
        assert len(fake.asked("POST /prompt")) == 3


async def test_our_own_engine_forgets_prompts_of_long_ago(tmp_path: Path) -> None:
    class Ours(RemoteHost):
        """An engine on this machine."""

    folders = LocalFolders(input=tmp_path / "input", output=tmp_path / "output", temp=tmp_path / "temp")
    async with fake_comfyui() as fake, aiohttp.ClientSession() as session:
        engine = HttpEngine(Ours(EngineAddress(url=parse_engine_url(fake.url), folders=folders)), session, QUICK)
        ids = []
        for _ in range(120):
            prompt = a_prompt()
            await follow(engine, prompt)
            ids.append(prompt.prompt_id)
        await until(lambda: fake.asked("POST /history"))
        assert [body["delete"] for body in fake.asked("POST /history")] == [ids[:50]]
        await engine.close()


async def test_the_history_of_another_machines_engine_is_not_ours_to_forget() -> None:
    async with engine_at() as (fake, engine):
        for _ in range(120):
            await follow(engine, a_prompt())
        assert fake.asked("POST /history") == []


async def test_an_engine_that_never_answers_is_given_up() -> None:
    async with engine_at() as (fake, engine):
        await engine.catalogue()

        async def linger() -> None:
            fake.pending.clear()
            await asyncio.sleep(30)

        fake.before_post = linger
        with pytest.raises(EngineUnreachable, match="in time"):
            await engine.submit(a_prompt())


async def test_nobody_at_the_address_is_said_at_once() -> None:
    async with fake_comfyui() as fake:
        url = fake.url
    async with open_remote(url, timeouts=QUICK) as engine:
        with pytest.raises(EngineUnreachable, match="refused"):
            await engine.submit(a_prompt())


async def test_an_engine_that_vanishes_fails_its_prompts() -> None:
    async with engine_at(held={"1"}) as (fake, engine):
        prompt = a_prompt()
        await engine.submit(prompt)
        await fake.stop()
        with pytest.raises(EngineUnreachable):
            [event async for event in engine.events(prompt.prompt_id)]


async def test_a_client_outlives_a_restart_of_its_engine() -> None:
    async with engine_at() as (fake, engine):
        await follow(engine, a_prompt())
        await fake.restart()
        assert await follow(engine, a_prompt())


async def test_a_cut_websocket_in_the_middle_of_many_prompts_costs_none_of_them() -> None:
    async with engine_at(node_s=0.005) as (fake, engine):
        prompts = [a_prompt() for _ in range(10)]
        for prompt in prompts:
            await engine.submit(prompt)
        following = [asyncio.create_task(_all(engine, prompt)) for prompt in prompts]
        for _ in range(3):
            await asyncio.sleep(0.02)
            await fake.cut_websockets()
        assert all(await asyncio.gather(*following))


async def _all(engine: HttpEngine, prompt: Prompt) -> list[EngineEvent]:
    return [event async for event in engine.events(prompt.prompt_id)]


async def test_an_output_that_breaks_off_is_not_taken_for_whole() -> None:
    async with engine_at(files={"output/a.png": PNG}) as (fake, engine):
        prompt = a_prompt()
        await follow(engine, prompt)
        [file] = (await engine.outputs(prompt.prompt_id)).files
        fake.say_next("GET /view", Canned(200, PNG, "image/png", cut=20))
        with pytest.raises(EngineUnreachable, match="was cut off"):
            [chunk async for chunk in file.read()]


async def test_an_output_that_is_gone_is_named() -> None:
    async with engine_at() as (_, engine):
        prompt = a_prompt()
        await follow(engine, prompt)
        [file] = (await engine.outputs(prompt.prompt_id)).files
        with pytest.raises(OutputGone, match=r"a\.png"):
            [chunk async for chunk in file.read()]


async def test_a_submission_that_is_stopped_while_it_is_posted_can_be_cancelled() -> None:
    async with engine_at(held={"1"}) as (fake, engine):
        posted = asyncio.Event()

        async def linger() -> None:
            posted.set()
            await asyncio.sleep(0.3)

        fake.before_post = linger
        prompt = a_prompt()
        submitting = asyncio.create_task(engine.submit(prompt))
        await posted.wait()
        submitting.cancel()
        await asyncio.gather(submitting, return_exceptions=True)
        await engine.cancel(prompt.prompt_id)
        await until(lambda: fake.running is None and not fake.pending)


async def test_cancelling_in_a_dead_engine_is_no_error() -> None:
    async with engine_at(held={"1"}) as (fake, engine):
        prompt = a_prompt()
        await engine.submit(prompt)
        await fake.stop()
        await engine.cancel(prompt.prompt_id)


async def test_closing_fails_what_is_still_open() -> None:
    async with fake_comfyui(held={"1"}) as fake:
        async with open_remote(fake.url, timeouts=QUICK) as engine:
            prompt = a_prompt()
            await engine.submit(prompt)
            following = asyncio.create_task(_all(engine, prompt))
            await asyncio.sleep(0)
        with pytest.raises(EngineUnreachable):
            await following


async def test_garbage_on_the_websocket_is_passed_over() -> None:
    async with engine_at(held={"1"}) as (fake, engine):
        prompt = a_prompt()
        await engine.submit(prompt)
        [socket] = fake.sockets.values()
        for text in ("", "{", "null", '{"type": 1}', '{"type": "progress", "data": {"node": null, "value": "x"}}'):
            await socket.send_str(text)
        await socket.send_str(
            json.dumps({"type": "progress_state", "data": {"prompt_id": prompt.prompt_id, "nodes": [1]}})
        )
        await socket.send_bytes(b"\x00\x00\x00\x01preview")
        fake.release()
        assert [event async for event in engine.events(prompt.prompt_id)]


@pytest.mark.parametrize("url", ["", "localhost:8188", "ftp://host", "http://", "http://host:99999", "http://host:x"])
async def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(EngineUrlInvalid):
        async with open_remote(url):
            pass


async def test_a_password_in_the_address_is_never_shown() -> None:
    async with open_remote("http://me:hunter2@127.0.0.1:9/?token=hunter3", timeouts=QUICK) as engine:
        with pytest.raises(EngineUnreachable) as caught:
            await engine.submit(a_prompt())
    assert "hunter" not in f"{caught.value}{caught.value.to_json()}"


async def test_a_path_in_front_of_the_api_is_kept() -> None:
    async with fake_comfyui() as fake, open_remote(f"{fake.url}/behind/a/proxy", timeouts=QUICK) as engine:
        with pytest.raises(EngineAnswerInvalid):
            await engine.catalogue()
        assert fake.requests[-1][0] == "GET /behind/a/proxy/object_info"


async def test_a_name_that_no_server_has_is_said() -> None:
    async with open_remote("http://no-such-host.invalid:8188", timeouts=QUICK) as engine:
        with pytest.raises(EngineUnreachable, match="host name does not exist"):
            await engine.submit(a_prompt())


async def test_a_server_that_drops_every_websocket_is_not_asked_without_end() -> None:
    async with engine_at(held={"1"}) as (fake, engine):
        prompt = a_prompt()
        await engine.submit(prompt)
        for _ in range(20):
            await fake.cut_websockets()
            await asyncio.sleep(0.02)
        assert fake.connections < 10
        fake.release()
        assert [event async for event in engine.events(prompt.prompt_id)]


async def test_a_long_silence_is_not_polled_away() -> None:
    async with engine_at(held={"1"}) as (fake, engine):
        prompt = a_prompt()
        await engine.submit(prompt)
        await asyncio.sleep(1.0)
        assert len(fake.asked("GET /queue")) <= 8
        fake.release()
        assert [event async for event in engine.events(prompt.prompt_id)]

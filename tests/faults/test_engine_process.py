"""An engine's process that does not start, dies, or will not; and ours, killed: nothing is left behind."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import aiohttp
import pytest

from comfypin.engine.client import HttpEngine
from comfypin.engine.command import ChildSpec, WorkFolder, comfyui_child, embedded_child, has_gpu
from comfypin.engine.errors import EngineCrashed, EngineStartFailed, EngineUnreachable, PromptInterrupted
from comfypin.engine.host import EngineAddress
from comfypin.engine.http_transport import EngineTimeouts
from comfypin.engine.interface import Prompt
from comfypin.engine.process import RESTARTS, ChildHost, Supervision
from comfypin.engine.standby import StandbyHost, open_child
from comfypin.lock.model import EngineSpec
from comfypin.workflow.graph import ApiGraph, ApiLink
from tests.support.graphs import a_prompt, graph, node, picture

TOY = Path(__file__).parent.parent / "support" / "toy_engine.py"
LIMITS = Supervision(ready_s=20, grace_s=1.0)


def toy(*modes: str, once: Path | None = None, pids: Path | None = None) -> ChildSpec:
    options = [*(["--once", str(once)] if once else []), *(["--pids", str(pids)] if pids else [])]
    argv = (sys.executable, str(TOY), "--mode", ",".join(modes), *options)
    return ChildSpec(argv=argv, environ=dict(os.environ))


@asynccontextmanager
async def hosting(spec: ChildSpec, work: Path, limits: Supervision = LIMITS) -> AsyncIterator[ChildHost]:
    async with aiohttp.ClientSession() as session:
        host = ChildHost(spec, WorkFolder(work), session, limits)
        try:
            yield host
        finally:
            await host.stop()


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def in_work(work: Path) -> list[int]:
    """The processes whose command line names the folder: the guard and all that it started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(work).encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return [pid for pid in found if lives(pid)]


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def fetch(url: object) -> object:
    def get() -> object:
        with urllib.request.urlopen(str(url), timeout=5) as response:
            return json.load(response)

    return await asyncio.to_thread(get)


# -- Start --------------------------------------------------------------------------------------------------------


async def test_an_engine_that_ends_at_once_says_its_code_and_last_lines(tmp_path: Path) -> None:
    async with hosting(toy("exit 3"), tmp_path) as host:
        with pytest.raises(EngineStartFailed, match=r"exit code 3\.(.|\n)*no module named torch"):
            await host.address()


async def test_an_engine_that_ends_while_we_wait_is_noticed_long_before_the_deadline(tmp_path: Path) -> None:
    began = time.monotonic()
    async with hosting(toy("exit 3"), tmp_path, Supervision(ready_s=120)) as host:
        with pytest.raises(EngineStartFailed):
            await host.address()
    assert time.monotonic() - began < 60


async def test_an_engine_that_never_answers_is_given_up_and_stopped(tmp_path: Path) -> None:
    async with hosting(toy("deaf"), tmp_path, Supervision(ready_s=0.5, grace_s=0.5)) as host:
        with pytest.raises(EngineStartFailed, match=r"did not answer within 0\.5 s"):
            await host.address()
        assert in_work(tmp_path) == []


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    spec = ChildSpec(argv=(str(tmp_path / "nothing"),), environ={})
    async with hosting(spec, tmp_path / "work") as host:
        with pytest.raises(EngineStartFailed, match=r"cannot start .*nothing: No such file"):
            await host.address()


async def test_a_port_that_somebody_else_took_is_replaced(tmp_path: Path) -> None:
    async with hosting(toy("port taken", once=tmp_path / "once"), tmp_path / "work") as host:
        assert await fetch((await host.address()).url / "system_stats")


async def test_an_engine_that_is_not_ours_at_our_port_is_not_used(tmp_path: Path) -> None:
    async with hosting(toy("impostor", once=tmp_path / "once"), tmp_path / "work") as host:
        address = await host.address()
        stats = await fetch(address.url / "system_stats")
        assert str(address.url.port) in stats["system"]["argv"]  # type: ignore[index]


async def test_stopping_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    async with hosting(toy("deaf"), tmp_path) as host:
        starting = asyncio.create_task(host.address())
        await until(lambda: in_work(tmp_path))
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert in_work(tmp_path) == []


# -- Death --------------------------------------------------------------------------------------------------------


async def test_a_crash_is_noticed_at_once_with_signal_memory_and_last_words(tmp_path: Path) -> None:
    async with hosting(toy(), tmp_path) as host:
        address = await host.address()
        death = asyncio.create_task(host.wait_for_crash(address))
        with pytest.raises(OSError):
            await fetch(address.url / "die")
        crash = await asyncio.wait_for(death, 5)
        assert "SIGKILL (exit code 137)" in crash.reason
        assert "out of memory" in crash.reason
        assert crash.log_tail[-1] == "last words"


async def test_a_dead_engine_is_told_from_one_that_cannot_be_reached(tmp_path: Path) -> None:
    async with hosting(toy(), tmp_path) as host:
        address = await host.address()
        failure = EngineUnreachable(url="x", reason="reset")
        assert await host.explain_failure(address, failure) is failure
        with pytest.raises(OSError):
            await fetch(address.url / "die")
        assert isinstance(await host.explain_failure(address, failure), EngineCrashed)


async def test_a_crashed_engine_is_started_again_when_it_is_needed(tmp_path: Path) -> None:
    async with hosting(toy(), tmp_path) as host:
        first = await host.address()
        with pytest.raises(OSError):
            await fetch(first.url / "die")
        await host.wait_for_crash(first)
        second = await host.address()
        assert await fetch(second.url / "system_stats")


async def die(address: EngineAddress) -> None:
    with pytest.raises(OSError):
        await fetch(address.url / "die")


@asynccontextmanager
async def standing_by(count: int, work: Path) -> AsyncIterator[tuple[StandbyHost, list[ChildHost]]]:
    async with aiohttp.ClientSession() as session:
        hosts = [ChildHost(toy(), WorkFolder(work / str(number)), session, LIMITS) for number in range(count)]
        host = StandbyHost(hosts)
        try:
            yield host, hosts
        finally:
            await host.stop()


async def test_a_dead_engine_is_started_again_before_it_is_needed(tmp_path: Path) -> None:
    async with standing_by(1, tmp_path) as (host, (child,)):
        address = await host.address()
        await die(address)
        await until(lambda: child.is_ready and not child.is_at_address(address))
        assert await host.address() != address
    assert in_work(tmp_path) == []


async def test_the_engine_that_stands_by_takes_the_place_of_a_dead_one(tmp_path: Path) -> None:
    async with standing_by(2, tmp_path) as (host, (first, second)):
        dead = await host.address()
        await until(lambda: second.is_ready)
        waiting = await second.address()
        await die(dead)
        await host.wait_for_crash(dead)
        assert await host.address() == waiting
        await until(lambda: first.is_ready and not first.is_at_address(dead))
        await die(waiting)
        await host.wait_for_crash(waiting)
        assert first.is_at_address(await host.address())
    assert in_work(tmp_path) == []


async def test_stopping_while_the_second_engine_starts_leaves_nothing(tmp_path: Path) -> None:
    async with standing_by(2, tmp_path) as (host, _):
        await host.address()
    assert in_work(tmp_path) == []


async def test_an_engine_that_crashes_again_and_again_is_tried_again_each_time(tmp_path: Path) -> None:
    async with hosting(toy("exit 3"), tmp_path) as host:
        for _ in range(3):
            with pytest.raises(EngineStartFailed):
                await host.address()


def test_crashes_in_a_row_put_the_next_start_off_ever_longer() -> None:
    ceilings = [RESTARTS.ceiling_s(failures) for failures in (1, 2, 3, 9)]
    assert ceilings == sorted(set(ceilings))


async def test_a_gpu_without_memory_is_named(tmp_path: Path) -> None:
    async with hosting(toy("cuda"), tmp_path) as host:
        with pytest.raises(EngineStartFailed, match="out of memory: the GPU"):
            await host.address()


# -- End ----------------------------------------------------------------------------------------------------------


async def test_what_the_engine_started_ends_with_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with hosting(toy("grandchildren", pids=pids), tmp_path / "work") as host:
        await host.address()
        started = [int(pid) for pid in pids.read_text().split()]
        assert all(map(lives, started))
    assert not any(map(lives, started))


async def test_an_engine_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with hosting(toy("ignores SIGTERM", pids=pids), tmp_path / "work", Supervision(grace_s=0.2)) as host:
        await host.address()
    assert not lives(int(pids.read_text()))


async def test_a_crash_takes_its_children_along(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with hosting(toy("grandchildren", pids=pids), tmp_path / "work") as host:
        address = await host.address()
        with pytest.raises(OSError):
            await fetch(address.url / "die")
        await host.wait_for_crash(address)
        await until(lambda: not any(lives(int(pid)) for pid in pids.read_text().split()))


OURS = """
import asyncio, os, signal, sys, threading
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored, and so would we
from comfypin.engine.command import ChildSpec
from comfypin.engine.standby import open_child

async def main():
    spec = ChildSpec(argv=(sys.executable, {toy!r}, "--mode", {modes!r}, "--pids", {pids!r}), environ=dict(os.environ))
    async with open_child(spec, Path({work!r})):
        print("ready", flush=True)
        {then}
        await asyncio.sleep(600)

{run}
"""


IN_A_THREAD = "threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start(); __import__('signal').pause()"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("run", ["asyncio.run(main())", IN_A_THREAD], ids=["main thread", "another thread"])
async def test_no_orphan_when_we_are_killed(number: signal.Signals, run: str, tmp_path: Path) -> None:
    await _killed(tmp_path, run=run, kill=lambda ours: ours.send_signal(number))


async def test_no_orphan_when_a_fork_of_us_holds_our_end_of_the_pipe(tmp_path: Path) -> None:
    fork = "os.fork() or (__import__('time').sleep(3), os._exit(0))"
    await _killed(tmp_path, run="asyncio.run(main())", kill=lambda ours: ours.kill(), then=fork)


async def test_no_orphan_when_the_guard_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with hosting(toy(pids=pids), tmp_path / "work") as host:
        address = await host.address()
        engine = int(pids.read_text())
        guard = int(Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(guard, signal.SIGKILL)
        await host.wait_for_crash(address)
        await until(lambda: not lives(engine))


async def _killed(
    tmp_path: Path, *, run: str, kill: Callable[["subprocess.Popen[str]"], None], then: str = "pass"
) -> None:
    pids = tmp_path / "pids"
    script = textwrap.dedent(OURS).format(
        toy=str(TOY),
        modes="grandchildren,ignores SIGTERM",
        pids=str(pids),
        work=str(tmp_path / "w"),
        then=then,
        run=run,
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ours:  # noqa: ASYNC220
        assert ours.stdout is not None
        try:
            assert await asyncio.to_thread(ours.stdout.readline) == "ready\n"
            started = [int(pid) for pid in pids.read_text().split()]
            kill(ours)
            await until(lambda: not any(map(lives, started)))
            await until(lambda: not in_work(tmp_path / "w"))
        finally:
            ours.kill()


# -- The whole ----------------------------------------------------------------------------------------------------


def slow() -> ApiGraph:
    """Runs for many seconds if it is let."""
    chain = [node("1", "EmptyImage", width=2048, height=2048, batch_size=8, color=1)]
    for number in range(2, 12):
        chain.append(
            node(
                str(number),
                "ImageScale",
                image=ApiLink(str(number - 1), 0),
                upscale_method="lanczos",
                width=2048 + number,
                height=2048,
                crop="disabled",
            )
        )
    return graph(*chain, node("99", "SaveImage", images=ApiLink("11", 0), filename_prefix="slow"))


async def test_an_engine_killed_while_it_runs_a_prompt_fails_it_at_once_and_runs_the_next(tmp_path: Path) -> None:
    spec = embedded_child(EngineSpec(kind="embedded"), os.environ)
    async with open_child(spec, tmp_path, timeouts=EngineTimeouts(poll_s=5.0)) as engine:
        prompt = a_prompt(slow())
        await engine.submit(prompt)
        events = engine.events(prompt.prompt_id)
        await anext(events)
        [pid] = [
            pid for pid in in_work(tmp_path) if b"process_guard.py" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineCrashed, match="SIGKILL"):
            async with asyncio.timeout(4):
                [event async for event in events]
        again = a_prompt(picture())
        await engine.submit(again)
        assert [event async for event in engine.events(again.prompt_id)]
    assert in_work(tmp_path) == []


@pytest.mark.soak
@pytest.mark.timeout(600)  # ever longer pauses between the restarts are part of it
async def test_an_engine_killed_at_any_moment_always_comes_back(tmp_path: Path) -> None:
    random = Random(7)
    spec = embedded_child(EngineSpec(kind="embedded"), os.environ)
    async with open_child(spec, tmp_path) as engine:
        for _ in range(9):
            prompt = a_prompt(slow())
            running = asyncio.create_task(_outcome(engine, prompt))
            await asyncio.sleep(random.uniform(0, 0.3))
            for pid in in_work(tmp_path):
                if random.random() < 0.5:
                    os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(120):
                while not running.done():
                    await engine.cancel(prompt.prompt_id)
                    await asyncio.sleep(0.2)
            assert await running in ("ended", "crashed", "interrupted")
    assert in_work(tmp_path) == []


async def _outcome(engine: HttpEngine, prompt: Prompt) -> str:
    try:
        await engine.submit(prompt)
        async for _ in engine.events(prompt.prompt_id):
            pass
    except EngineCrashed:
        return "crashed"
    except PromptInterrupted:
        return "interrupted"
    return "ended"


@pytest.mark.comfyui
@pytest.mark.skipif(not os.environ.get("COMFYUI_DIR"), reason="starts a ComfyUI of its own: set COMFYUI_DIR")
async def test_a_comfyui_killed_while_it_runs_a_prompt_is_started_again_and_leaves_nothing(tmp_path: Path) -> None:
    engine_spec = EngineSpec(args=("--disable-api-nodes",))
    spec = comfyui_child(Path(os.environ["COMFYUI_DIR"]), engine_spec, os.environ, gpu=has_gpu(os.environ))
    async with open_child(spec, tmp_path, limits=Supervision(ready_s=150)) as engine:
        prompt = a_prompt(slow())
        await engine.submit(prompt)
        events = engine.events(prompt.prompt_id)
        await anext(events)
        [pid] = [
            pid for pid in in_work(tmp_path) if b"process_guard.py" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineCrashed, match=r"SIGKILL \(exit code 137\)(.|\n)*got prompt"):
            [event async for event in events]
        again = a_prompt(picture())
        await engine.submit(again)
        assert [event async for event in engine.events(again.prompt_id)]
    assert in_work(tmp_path) == []


async def test_the_log_is_kept_in_a_file(tmp_path: Path) -> None:
    async with hosting(toy("chatty"), tmp_path) as host:
        await host.address()
        await until(lambda: "red line" in host.engine_log.last_lines())
        assert len(host.engine_log.last_lines(10)) <= 4
    assert "2999%" in (tmp_path / "engine.log").read_text()


async def test_the_engine_sees_no_secrets_of_ours(tmp_path: Path) -> None:
    ours = {**os.environ, "AWS_SECRET_ACCESS_KEY": "s1", "HF_TOKEN": "s2", "RUNPOD_API_KEY": "s3"}
    spec = embedded_child(EngineSpec(kind="embedded", env={"HF_TOKEN": "$HF_TOKEN"}), ours)
    toy_spec = ChildSpec(argv=(sys.executable, str(TOY)), environ=spec.environ)
    async with hosting(toy_spec, tmp_path) as host:
        seen = await fetch((await host.address()).url / "environ")
    assert isinstance(seen, dict)
    assert [value for value in seen.values() if value in ("s1", "s2", "s3")] == ["s2"]

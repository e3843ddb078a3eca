"""The warm-up: the release's own workflow, small; whatever happens to it, jobs come next."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfypin.engine.errors import NodeFailed
from comfypin.jobs.handler import Handler, JobService
from comfypin.jobs.warmup import IdleWarmUp, check_engine, warm_engine
from comfypin.lock.model import EngineSpec, Lock
from comfypin.testing import FAKE_CATALOGUE, FakeEngine
from tests.support.graphs import picture
from tests.support.services import a_service

LARGE: dict[str, Any] = dict(picture(size=512, batch=4).to_api())
HELD: dict[str, Any] = {
    "w1": LARGE["1"],
    "w2": {**LARGE["2"], "inputs": {**LARGE["2"]["inputs"], "images": ["w1", 0]}},
}


def service_of(engine: FakeEngine, spec: EngineSpec, folder: Path) -> JobService:
    return replace(a_service(engine, folder=folder), lock=Lock(version_name="test", engine=spec))


async def warmed(engine: FakeEngine, spec: EngineSpec, folder: Path, **changes: Any) -> list[dict[str, Any]]:
    """What the engine was asked for, as the inputs of node 1."""
    service = replace(service_of(engine, spec, folder), **changes)
    await warm_engine(Handler(service), service)
    return [dict(prompt.graph.nodes["1"].inputs) for prompt in engine.prompts]


async def test_the_locks_workflow_runs_with_the_smallest_size(tmp_path: Path) -> None:
    (inputs,) = await warmed(FakeEngine(), EngineSpec(warmup=LARGE), tmp_path)
    assert (inputs["width"], inputs["height"], inputs["batch_size"]) == (64, 64, 1)


async def test_the_locks_workflow_runs_as_it_is_if_the_lock_says_so(tmp_path: Path) -> None:
    (inputs,) = await warmed(FakeEngine(), EngineSpec(warmup=LARGE, warmup_size="full"), tmp_path)
    assert (inputs["width"], inputs["batch_size"]) == (512, 4)


async def test_without_one_the_first_workflow_of_the_image_runs(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "a.json").write_text(json.dumps(picture(color=7, size=256).to_api()))
    (inputs,) = await warmed(FakeEngine(), EngineSpec(), tmp_path)
    assert (inputs["color"], inputs["width"]) == (7, 64)


async def test_without_any_the_smallest_picture_runs(tmp_path: Path) -> None:
    (inputs,) = await warmed(FakeEngine(), EngineSpec(), tmp_path)
    assert inputs["color"] == 0x2F6F4F


async def test_a_workflow_that_fails_leaves_the_engine_to_the_jobs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = {
        "1": {"class_type": "Gone", "inputs": {}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }
    (inputs,) = await warmed(FakeEngine(), EngineSpec(warmup=unknown), tmp_path)
    assert inputs["color"] == 0x2F6F4F, "the smallest picture shows that the engine works"
    assert "warm-up failed" in caplog.text


async def test_what_is_no_workflow_leaves_the_engine_to_the_jobs(tmp_path: Path) -> None:
    assert len(await warmed(FakeEngine(), EngineSpec(warmup={"1": 3}), tmp_path)) == 1


async def test_an_engine_that_cannot_make_the_smallest_picture_takes_no_job(tmp_path: Path) -> None:
    with pytest.raises(NodeFailed):
        await warmed(FakeEngine(fails={"1": "no memory"}), EngineSpec(), tmp_path)


async def test_a_paid_api_is_not_called(tmp_path: Path) -> None:
    catalogue = {**FAKE_CATALOGUE, "EmptyImage": {**FAKE_CATALOGUE["EmptyImage"], "api_node": True}}
    (inputs,) = await warmed(FakeEngine(catalogue=catalogue), EngineSpec(warmup=LARGE), tmp_path)
    assert inputs["color"] == 0x2F6F4F


async def test_it_can_be_switched_off(tmp_path: Path) -> None:
    (inputs,) = await warmed(FakeEngine(), EngineSpec(warmup=LARGE), tmp_path, warms_up=False)
    assert inputs["color"] == 0x2F6F4F


async def test_an_engine_that_is_checked_makes_the_smallest_picture_or_says_why_not(tmp_path: Path) -> None:
    engine = FakeEngine()
    await check_engine(Handler(service_of(engine, EngineSpec(warmup=LARGE), tmp_path)))
    assert [prompt.graph.nodes["1"].inputs["color"] for prompt in engine.prompts] == [0x2F6F4F]
    with pytest.raises(NodeFailed):
        await check_engine(Handler(service_of(FakeEngine(fails={"1": "no memory"}), EngineSpec(), tmp_path)))


def idle_warmup(engine: FakeEngine, spec: EngineSpec, folder: Path, notes: list[str], **options: Any) -> IdleWarmUp:
    service = service_of(engine, spec, folder)
    return IdleWarmUp(
        Handler(service),
        service,
        note_seconds=lambda _seconds: notes.append("warmed"),
        note_first_job=lambda: notes.append("first job"),
        **{"job_comes_within_s": 0.0, **options},
    )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - neither the engine nor the warm-up tells others
            await asyncio.sleep(0.001)


async def test_while_no_job_comes_the_warm_up_runs(tmp_path: Path) -> None:
    engine, notes = FakeEngine(), list[str]()
    async with idle_warmup(engine, EngineSpec(warmup=LARGE), tmp_path, notes):
        await until(lambda: notes)
    assert [prompt.graph.nodes["1"].inputs["width"] for prompt in engine.prompts] == [64]
    assert notes == ["warmed"]


async def test_a_job_that_waits_already_is_first_and_alone(tmp_path: Path) -> None:
    engine, notes = FakeEngine(), list[str]()
    async with idle_warmup(engine, EngineSpec(warmup=HELD), tmp_path, notes, job_comes_within_s=3600.0) as warm_up:
        outcome = await warm_up("job-1", {"workflow": LARGE})
        assert outcome.failure is None
    assert [set(prompt.graph.nodes) for prompt in engine.prompts] == [{"1", "2"}]
    assert notes == ["first job"]


async def test_a_job_breaks_the_warm_up_off(tmp_path: Path) -> None:
    engine, notes = FakeEngine(holds="w1"), list[str]()
    async with idle_warmup(engine, EngineSpec(warmup=HELD), tmp_path, notes) as warm_up:
        await until(lambda: engine.prompts)
        for job_id in ("job-1", "job-2"):
            assert (await warm_up(job_id, {"workflow": LARGE})).failure is None
    assert engine.cancelled == [engine.prompts[0].prompt_id]
    assert sorted(notes) == ["first job", "warmed"]


async def test_a_worker_that_ends_breaks_the_warm_up_off(tmp_path: Path) -> None:
    engine = FakeEngine(holds="w1")
    async with idle_warmup(engine, EngineSpec(warmup=HELD), tmp_path, []):
        await until(lambda: engine.prompts)
    assert engine.cancelled == [engine.prompts[0].prompt_id]


async def test_a_warm_up_that_fails_costs_no_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine, notes = FakeEngine(fails={"w1": "no memory"}), list[str]()
    async with idle_warmup(engine, EngineSpec(warmup=HELD), tmp_path, notes) as warm_up:
        await until(lambda: notes)
        assert (await warm_up("job-1", {"workflow": LARGE})).failure is None
    assert "warm-up failed" in caplog.text

"""What clients see of a job while it runs, and what /health says of the queue."""

import asyncio
from pathlib import Path

from comfypin.digest import JsonValue
from comfypin.queue.interface import JobCounts
from comfypin.queue.status_bodies import health_body, progress_summary
from tests.unit.queue.test_local_queue import Work, a_queue, send


async def test_followers_see_the_newest_progress_until_the_job_ends(tmp_path: Path) -> None:
    work = Work()
    async with a_queue(tmp_path, work) as queue:
        job_id = await send(queue, "hold")
        followed = queue.follow_progress(job_id, silence_s=30)
        assert await anext(followed) == {"progress": 0.5}
        work.release.set()
        assert [progress async for progress in followed] == []


async def test_silence_is_shown_as_none(tmp_path: Path) -> None:
    work = Work()
    async with a_queue(tmp_path, work) as queue:
        job_id = await send(queue, "hold")
        while not work.ran:  # noqa: ASYNC110 - the test looks from outside
            await asyncio.sleep(0.001)
        followed = queue.follow_progress(job_id, silence_s=0.01)
        assert (await anext(followed), await anext(followed)) == ({"progress": 0.5}, None)


async def test_each_poller_is_given_progress_once(tmp_path: Path) -> None:
    async with a_queue(tmp_path, Work()) as queue:
        job_id = await send(queue, "ok")
        await queue.read_record(job_id, wait_s=30)
        for poller in ("one", "another"):
            assert queue.take_progress(job_id, poller=poller, after=None) == ([{"progress": 0.5}], 1)
            assert queue.take_progress(job_id, poller=poller, after=None) == ([], 1)
        assert queue.take_progress(job_id, poller="one", after=0) == ([{"progress": 0.5}], 1)
        assert queue.take_progress(job_id, poller="third", after=7) == ([], 1)
        assert queue.take_progress("nobody", poller="one", after=None) == ([], 0)


def test_a_queue_in_trouble_is_unhealthy_and_says_why() -> None:
    counts = JobCounts(waiting=2, running=1, completed=5, failed=3, retried=0)
    body = health_body(counts, trouble="the disk is full", ready=True)
    assert body["jobs"] == {"completed": 5, "failed": 3, "inProgress": 1, "inQueue": 2, "retried": 0}
    assert body["workers"] == {
        "idle": 0,
        "initializing": 0,
        "ready": 0,
        "running": 1,
        "throttled": 0,
        "unhealthy": 1,
    }
    assert body["problems"] == ["the disk is full"]


def test_models_that_arrive_are_progress_before_anything_runs() -> None:
    assert progress_summary({"event": "phase_started", "phase": "inputs", "progress": 0.0}) is None
    begun = progress_summary({"event": "phase_started", "phase": "models", "progress": 0.0})
    assert begun is not None
    assert begun["phase"] == "models"
    event: dict[str, JsonValue] = {
        "event": "model_progress",
        "model": "loras/a.safetensors",
        "done_bytes": 5,
        "total_bytes": 9,
    }
    told = progress_summary({**event, "progress": 0.0})
    assert told is not None
    assert (told["phase"], told["model"], told["done_bytes"], told["total_bytes"]) == ("models", event["model"], 5, 9)

"""Jobs as lists and followers see them: each its own, found in all alphabets, a snapshot made once for many."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from comfypin.queue.job_listing import JobFilter
from comfypin.queue.job_runner import QueueLimits
from comfypin.queue.local_queue import LocalJobQueue
from comfypin.queue.sqlite import JobStore
from comfypin.queue.webhook import Webhooks
from comfypin.server.event_frames import FrameCache
from comfypin.server.event_stream import EventGroup
from comfypin.server.job_views import JobViews


@contextlib.asynccontextmanager
async def a_queue(folder: Path) -> AsyncIterator[LocalJobQueue]:
    """A queue in which nothing begins."""
    store = JobStore(folder / "jobs.sqlite")
    try:
        yield LocalJobQueue(store, Webhooks(secret=None, allow_private=True), QueueLimits(), worker_id="test")
    finally:
        store.close()


def a_group(queue: LocalJobQueue) -> EventGroup:
    return EventGroup(queue.events, FrameCache(JobViews(queue), queue.events), with_previews=False)


async def send(queue: LocalJobQueue, **more: Any) -> str:
    job_input = {"workflow": {"1": {"class_type": "Note", "inputs": {"text": more.pop("text", "a castle")}}}, **more}
    return await queue.accept_job(job_input, webhook=None, timeout_s=None, ttl_s=None)


async def test_a_job_is_shown_though_a_newer_ones_text_names_it(tmp_path: Path) -> None:
    async with a_queue(tmp_path) as queue:
        asked = await send(queue, workflow_name="the older")
        naming = await send(queue, text=f"as in {asked}", workflow_name="the newer")
        for job_id in (asked, naming):
            await queue.cancel_job(job_id)
    async with a_queue(tmp_path) as queue:
        shown = await JobViews(queue).details(asked)
        assert (shown["id"], shown["workflow"]) == (asked, "the older")


async def test_a_job_that_is_about_to_be_written_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_queue(tmp_path) as queue:
        written, may_write = JobStore.write_changes, asyncio.Event()

        async def write_later(store: JobStore, *job_changes: Any) -> None:
            await may_write.wait()
            await written(store, *job_changes)

        monkeypatch.setattr(JobStore, "write_changes", write_later)
        sending = asyncio.create_task(send(queue))
        await asyncio.sleep(0)
        (live_job,) = queue.list_pending()
        shown = await JobViews(queue).details(live_job.row.id)
        assert (shown["status"], shown["input"]) == ("IN_QUEUE", None)
        may_write.set()
        await sending


@pytest.mark.parametrize("name", ["ÜBERSICHT", "Афиша", "Straße", "ΣΊΣΥΦΟΣ"])
async def test_a_workflows_name_is_found_in_any_case_and_alphabet(tmp_path: Path, name: str) -> None:
    async with a_queue(tmp_path) as queue:
        job_id = await send(queue, workflow_name=name)
        for text in (name, name.lower(), name.upper(), job_id.upper()):
            assert [found.row.id for found in await queue.list_jobs(JobFilter(text=text))] == [job_id], text


async def test_followers_that_come_together_share_one_snapshot_and_miss_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0
    snapshot = JobViews.snapshot

    async def counted(views: JobViews) -> Any:
        nonlocal made
        made += 1
        return await snapshot(views)

    monkeypatch.setattr(JobViews, "snapshot", counted)
    async with a_queue(tmp_path) as queue:
        first = await send(queue)
        group = a_group(queue)
        streams = [group.follow(None) for _ in range(50)]
        begun = await asyncio.gather(*(anext(stream) for stream in streams))
        assert len(set(begun)) == made == 1
        assert [job["id"] for job in snapshot_of(begun[0])["jobs"]] == [first]
        second = await send(queue)
        late = group.follow(None)
        assert [job["id"] for job in snapshot_of(await anext(late))["jobs"]] == [first, second]
        for stream in streams:
            assert second.encode() in await anext(stream)
        for stream in (*streams, late):
            await stream.aclose()  # type: ignore[attr-defined]


def snapshot_of(frame: bytes) -> Any:
    assert b"event: snapshot" in frame
    return json.loads(frame.partition(b"data: ")[2])

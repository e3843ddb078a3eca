"""What followers of all jobs are sent: the same, together, and nothing missed in a storm."""

import asyncio
import contextlib
import json
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from comfypin.queue.job_events import JobEvents
from comfypin.queue.job_runner import QueueLimits
from comfypin.queue.local_queue import LocalJobQueue
from comfypin.queue.sqlite import JobStore
from comfypin.queue.webhook import Webhooks
from comfypin.server import event_stream
from comfypin.server.counted_stream import EventStreamResponse, OpenStreams
from comfypin.server.event_frames import FrameCache
from comfypin.server.event_stream import EventGroup
from comfypin.server.job_views import JobViews
from comfypin.server.responses import failure_response

Told = list[tuple[str, dict[str, Any]]]


@contextlib.asynccontextmanager
async def a_group(folder: Path, *, with_previews: bool = False) -> AsyncIterator[tuple[LocalJobQueue, EventGroup]]:
    """A queue in which nothing begins, and the followers of its jobs."""
    store = JobStore(folder / "jobs.sqlite")
    try:
        limits = QueueLimits(max_waiting=5000)
        queue = LocalJobQueue(store, Webhooks(secret=None, allow_private=True), limits, worker_id="test")
        frames = FrameCache(JobViews(queue), queue.events)
        yield queue, EventGroup(queue.events, frames, with_previews=with_previews)
    finally:
        store.close()


async def send(queue: LocalJobQueue) -> str:
    return await queue.accept_job({"workflow": {}}, webhook=None, timeout_s=None, ttl_s=None)


def read(chunk: bytes) -> Told:
    told: Told = []
    for frame in chunk.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in frame.splitlines() if not line.startswith(":"))
        if lines:
            told.append((lines["event"], json.loads(lines["data"])))
    return told


def progress(fraction: float) -> dict[str, Any]:
    return {"nodes_total": 4, "progress": fraction}


async def test_events_of_a_moment_are_sent_together_each_job_and_the_queue_once(tmp_path: Path) -> None:
    async with a_group(tmp_path) as (queue, group):
        streams = [group.follow(None) for _ in range(40)]
        for stream in streams:
            await anext(stream)
        # 40 followers are told every 40 ms, and were not yet: the first of these is told at once.
        job_ids = await asyncio.gather(*(send(queue) for _ in range(20)))
        heard = [(await asyncio.gather(*(anext(stream) for stream in streams)))]
        while sum(chunk.count(b"event: job") for chunk, *_ in heard) < 20:
            heard.append(await asyncio.gather(*(anext(stream) for stream in streams)))
        assert all(len({id(chunk) for chunk in chunks}) == 1 for chunks in heard), "the same bytes for all"
        told = [one for chunk, *_ in heard for one in read(chunk)]
        assert sorted(data["id"] for name, data in told if name == "job") == sorted(job_ids)
        assert sum(name == "queue" for name, _ in told) == len(heard)
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]


async def test_a_follower_that_does_not_read_is_kept_the_newest_progress_alone(tmp_path: Path) -> None:
    async with a_group(tmp_path, with_previews=True) as (queue, group):
        stream = group.follow(None)
        await anext(stream)
        job_id = await send(queue)
        for step in range(30):
            queue.events.publish("progress", job_id, progress(step / 30))
            queue.events.publish("preview", job_id, {"node_id": "1", "content_type": "x", "data_base64": str(step)})
            await asyncio.sleep(0.01)
        await asyncio.sleep(event_stream._PROGRESS_EVERY_S * 1.5)
        told = read(await anext(stream))
        assert sorted(name for name, _ in told) == ["job", "preview", "progress", "queue"]
        assert [data["data"] for name, data in told if name == "preview"] == ["29"]
        assert [data["progress"]["fraction"] for name, data in told if name == "progress"] == [29 / 30]


async def test_a_stream_begins_with_a_snapshot_however_much_happens_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_group(tmp_path) as (queue, group):
        snapshot = JobViews.snapshot

        async def in_a_storm(views: JobViews) -> Any:
            shown = await snapshot(views)
            for number in range(3000):
                queue.events.publish("removed", f"gone {number}")
            await asyncio.sleep(0.05)
            return shown

        monkeypatch.setattr(JobViews, "snapshot", in_a_storm)
        assert [name for name, _ in read(await anext(group.follow(None)))] == ["snapshot"]


async def test_what_happens_while_the_snapshot_is_made_is_told_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_group(tmp_path) as (queue, group):
        snapshot, came_meanwhile = JobViews.snapshot, list[str]()

        async def with_a_job(views: JobViews) -> Any:
            shown = await snapshot(views)
            came_meanwhile.append(await send(queue))
            return shown

        monkeypatch.setattr(JobViews, "snapshot", with_a_job)
        stream = group.follow(None)
        assert read(await anext(stream))[0][1]["jobs"] == []
        told = read(await anext(stream))
        assert [data["id"] for name, data in told if name == "job"] == came_meanwhile


async def test_who_comes_back_hears_what_it_missed_once(tmp_path: Path) -> None:
    async with a_group(tmp_path) as (queue, group):
        seen = queue.events.newest_wire_id
        job_id = await send(queue)
        stream = group.follow(seen)
        assert [data["id"] for name, data in read(await anext(stream)) if name == "job"] == [job_id]
        second = await send(queue)
        assert [data["id"] for name, data in read(await anext(stream)) if name == "job"] == [second]


async def test_nobody_is_told_and_nothing_is_kept_when_the_last_follower_has_gone(tmp_path: Path) -> None:
    async with a_group(tmp_path, with_previews=True) as (queue, group):
        stream = group.follow(None)
        await anext(stream)
        assert queue.events.wants_previews("a")
        await stream.aclose()  # type: ignore[attr-defined]
        assert not queue.events.wants_previews("a")


async def test_a_large_snapshot_is_written_in_pieces(tmp_path: Path) -> None:
    async with a_group(tmp_path) as (queue, group):
        for _ in range(300):
            await send(queue)
        stream, pieces = group.follow(None), list[bytes]()
        while not pieces or not pieces[-1].endswith(b"\n\n"):
            pieces.append(await anext(stream))
        assert len(pieces) > 1
        assert max(map(len, pieces)) <= 65_536
        assert len(read(b"".join(pieces))[0][1]["jobs"]) == 300


async def test_of_many_who_come_at_once_no_more_are_let_in_than_may_follow() -> None:
    open_streams, statuses, may_end = OpenStreams(3), list[int](), asyncio.Event()

    async def silent() -> AsyncIterator[bytes]:
        await may_end.wait()
        yield b""

    async def send_to(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive() -> Any:
        await may_end.wait()
        return {"type": "http.disconnect"}

    responses = [
        EventStreamResponse(silent(), open_streams, refuse=lambda: failure_response(429, "full")) for _ in range(10)
    ]
    serving = [asyncio.create_task(one({"type": "http"}, receive, send_to)) for one in responses]
    await asyncio.sleep(0.05)
    assert (sorted(statuses), open_streams.count) == ([200] * 3 + [429] * 7, 3)
    may_end.set()
    await asyncio.gather(*serving)
    assert open_streams.count == 0


async def test_a_hub_tells_a_job_that_moved() -> None:
    events = JobEvents()
    with events.subscribe(None) as following:
        events.publish("moved", "a")
        event = await following.next_within(1)
        assert event is not None
        assert event.kind == "moved"


async def test_who_does_not_read_a_large_snapshot_holds_one_piece_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "_PIECE_BYTES", 4096)
    async with a_group(tmp_path) as (queue, group):
        for _ in range(300):
            await send(queue)
        tracemalloc.start()
        try:
            followers = [group.follow(None) for _ in range(50)]
            assert {len(await anext(follower)) for follower in followers} == {4096}
            held_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # 50 times all of it would be 4 MB.
        assert held_bytes < 2_000_000
        for follower in followers:
            await follower.aclose()  # type: ignore[attr-defined]

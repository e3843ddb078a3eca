"""What the APIs promise of jobs, on both queues: the file of one machine, and the NATS of a fleet."""

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from comfypin.queue.errors import JobUnknown, NotReordered, QueueFull, RetryRefused, RouteUnknown
from comfypin.queue.interface import JobRoute
from comfypin.queue.job_listing import JobFilter
from comfypin.queue.job_notes import ComfyNote, JobNotes
from comfypin.server.comfy_api.errors import ApiFailure
from comfypin.server.comfy_api.idempotency import IdempotencyKeys
from comfypin.server.comfy_api.records import Records
from tests.support.job_queues import NAME, PREVIEW, Opened, Work, fleet_queue, local_queue, until
from tests.support.nats_servers import nats_server

OpenQueue = Callable[..., AbstractAsyncContextManager[Opened]]
HOLD = {"do": "hold"}
FAIL = {"do": "fail"}
SECRET = {"do": "fail", "s3Config": {"accessId": "a", "accessSecret": "b"}}


@pytest.fixture(params=["file", "nats"])
def open_queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenQueue]:
    """Opens the queue of a server; again, after it was closed, on what that has left."""
    if request.param == "file":
        yield lambda **options: local_queue(tmp_path, options.pop("work", None) or Work(), **options)
        return
    with nats_server(tmp_path) as server:
        yield lambda **options: fleet_queue(tmp_path, options.pop("work", None) or Work(), server.address, **options)


@pytest.fixture
async def opened(open_queue: OpenQueue) -> AsyncIterator[Opened]:
    async with open_queue() as one:
        yield one


async def test_a_job_runs_and_its_result_is_kept(opened: Opened) -> None:
    record = await opened.end(await opened.send({"do": "nothing", "text": "käse \ud800"}))
    assert record.row.state == "COMPLETED"
    assert json.loads(record.output)["done"] is True
    assert record.row.created_at <= record.row.started_at <= record.row.ended_at
    assert record.worker_id
    assert opened.work.ran == [{"do": "nothing", "text": "käse \ud800"}]


async def test_who_waits_too_short_gets_the_job_as_it_is(opened: Opened) -> None:
    job_id = await opened.send(HOLD)
    await opened.running()
    record = await opened.queue.read_record(job_id, wait_s=0.05)
    assert record.row.state == "IN_PROGRESS"
    assert json.loads(record.output or "{}")["progress"] == 0.5
    opened.work.release.set()
    assert (await opened.end(job_id)).row.state == "COMPLETED"


async def test_a_job_that_was_never_taken_is_unknown(opened: Opened) -> None:
    for ask in (opened.queue.read_record, opened.queue.cancel_job, opened.queue.retry_job):
        with pytest.raises(JobUnknown):
            await ask("5cf3b7a8-9f3c-4a1e-8a4b-3c7a1f0e9d21")


async def test_a_failed_job_says_why_and_runs_again_on_request(opened: Opened) -> None:
    job_id = await opened.send(FAIL)
    record = await opened.end(job_id)
    assert (record.row.state, record.error) == ("FAILED", "it failed")
    await opened.queue.retry_job(job_id)
    assert (await opened.end(job_id)).row.state == "FAILED"
    assert opened.work.ran == [FAIL, FAIL]
    assert (await opened.queue.count_jobs()).retried == 1


async def test_a_job_that_succeeded_is_not_run_again(opened: Opened) -> None:
    job_id = await opened.send()
    await opened.end(job_id)
    with pytest.raises(RetryRefused, match="COMPLETED"):
        await opened.queue.retry_job(job_id)


async def test_secrets_go_with_the_end_of_their_job(opened: Opened) -> None:
    job_id = await opened.send(SECRET)
    await opened.end(job_id)
    assert opened.work.ran == [SECRET]
    assert await opened.queue.had_secrets(job_id)
    assert await opened.queue.read_input(job_id) == {}
    with pytest.raises(RetryRefused, match="secrets"):
        await opened.queue.retry_job(job_id)


async def test_a_waiting_job_that_is_cancelled_never_runs(opened: Opened) -> None:
    await opened.send(HOLD)
    await opened.running()
    waiting = await opened.send()
    assert await opened.queue.cancel_job(waiting) == "CANCELLED"
    opened.work.release.set()
    later = await opened.send()
    await opened.end(later)
    assert opened.work.ran == [HOLD, {"do": "nothing"}]


async def test_a_running_job_that_is_cancelled_is_cut_off(opened: Opened) -> None:
    job_id = await opened.send(HOLD)
    await opened.running()
    assert await opened.queue.cancel_job(job_id) == "CANCELLED"
    await until(lambda: bool(opened.work.cut_off))
    assert (await opened.end(await opened.send())).row.state == "COMPLETED"


async def test_a_job_that_has_ended_keeps_its_state(opened: Opened) -> None:
    job_id = await opened.send()
    await opened.end(job_id)
    assert await opened.queue.cancel_job(job_id) == "COMPLETED"


async def test_all_that_wait_are_cancelled_and_what_runs_goes_on(opened: Opened) -> None:
    running = await opened.send(HOLD)
    await opened.running()
    waiting = [await opened.send() for _ in range(3)]
    assert await opened.queue.cancel_waiting() == 3
    opened.work.release.set()
    assert (await opened.end(running)).row.state == "COMPLETED"
    assert {(await opened.end(job_id)).row.state for job_id in waiting} == {"CANCELLED"}


async def test_a_full_queue_refuses(open_queue: OpenQueue) -> None:
    async with open_queue(runs=False, max_waiting=2) as opened:
        await asyncio.gather(opened.send(), opened.send())
        with pytest.raises(QueueFull):
            await opened.send()
        assert opened.queue.waiting_count == 2


async def test_urgent_jobs_begin_first_and_others_in_order(opened: Opened) -> None:
    await opened.send(HOLD)
    await opened.running()
    for number in range(3):
        await opened.send({"normal": number})
    last = await opened.send({"high": 0}, route=JobRoute(priority="high"))
    assert opened.queue.waiting_place(last) == 1
    opened.work.release.set()
    await until(lambda: len(opened.work.ran) == 5)
    assert opened.work.ran[1:] == [{"high": 0}, {"normal": 0}, {"normal": 1}, {"normal": 2}]


async def test_a_release_that_nobody_serves_is_refused(opened: Opened) -> None:
    with pytest.raises(RouteUnknown, match="other"):
        await opened.send(route=JobRoute(release="other"))
    assert (await opened.end(await opened.send(route=JobRoute(release=NAME)))).row.state == "COMPLETED"


async def test_a_job_that_runs_too_long_is_stopped(opened: Opened) -> None:
    record = await opened.end(await opened.send(HOLD, timeout_s=0.2))
    assert record.row.state == "TIMED_OUT"
    assert "took longer" in (record.error or "")


async def test_a_job_that_waits_too_long_is_given_up(opened: Opened) -> None:
    await opened.send(HOLD)
    await opened.running()
    record = await opened.end(await opened.send(ttl_s=0.2))
    assert record.row.state == "TIMED_OUT"
    assert "waited longer" in (record.error or "")
    assert len(opened.work.ran) == 1


async def test_progress_is_followed_until_the_end(opened: Opened) -> None:
    job_id = await opened.send(HOLD)
    told = []
    async with asyncio.timeout(30):
        async for progress in opened.queue.follow_progress(job_id, silence_s=0.5):
            if progress is not None:
                told.append(progress["progress"])
                opened.work.release.set()
    assert told == [0.5]
    taken, count = opened.queue.take_progress(job_id, poller="a", after=None)
    assert [one["progress"] for one in taken] == [0.5]
    assert count == 1


async def test_what_happens_is_told_in_order(opened: Opened) -> None:
    with opened.queue.events.subscribe(None) as following:
        job_id = await opened.send()
        await opened.end(job_id)
        kinds = []
        while not kinds or kinds[-1] != "ended":
            event = await following.next_within(20)
            assert event is not None, kinds
            assert event.job_id == job_id
            kinds.append(event.kind)
    assert [kind for kind in kinds if kind != "progress"] == ["accepted", "started", "ended"]


async def test_lists_show_the_newest_first_and_what_a_filter_lets_through(opened: Opened) -> None:
    done, failed = await opened.send({"do": "nothing", "workflow": {"1": {"inputs": {"text": "a red Fox"}}}}), None
    await opened.end(done)
    failed = await opened.send(FAIL, api="workflows")
    await opened.end(failed)
    listed = await opened.queue.list_jobs(JobFilter())
    assert [one.row.id for one in listed] == [failed, done]
    assert [one.description.api for one in listed] == ["workflows", "runpod"]
    assert [one.end.outputs for one in listed] == [0, 1]
    assert [one.row.id for one in await opened.queue.list_jobs(JobFilter(states=("FAILED",)))] == [failed]
    assert [one.row.id for one in await opened.queue.list_jobs(JobFilter(text="red fox"))] == [done]
    assert [one.row.id for one in await opened.queue.list_jobs(JobFilter(before=listed[0].number))] == [done]
    assert [one.row.id for one in await opened.queue.list_jobs(JobFilter(release=NAME, job_id=done))] == [done]


async def test_jobs_are_counted_by_what_became_of_them(opened: Opened) -> None:
    await opened.end(await opened.send())
    await opened.end(await opened.send(FAIL))
    await opened.send(HOLD)
    await opened.running(3)
    await opened.send()
    counts = await opened.queue.count_jobs()
    assert (counts.completed, counts.failed, counts.running, counts.waiting) == (1, 1, 1, 1)


async def test_notes_of_an_api_are_kept_with_the_job(opened: Opened) -> None:
    records = Records(opened.store)
    note = ComfyNote(workflow='{"1": {}}', labels={"who": "me"}, had_key=False)
    job_id = await opened.send(api="comfy", notes=JobNotes(comfy=note))
    kept = await records.job(job_id)
    assert kept is not None
    assert (kept.labels, kept.workflow) == ({"who": "me"}, {"1": {}})
    ((_, facts, _),) = await records.page(before=None, labels={"who": "me"}, limit=10)
    assert facts[0] == job_id


async def test_a_webhook_hears_of_the_end_once(opened: Opened) -> None:
    async with _receiver() as (address, heard):
        job_id = await opened.send(webhook=address)
        await opened.end(job_id)
        await until(lambda: len(heard) >= 1)
        await asyncio.sleep(0.3)
    (told,) = heard
    assert (told["id"], told["status"]) == (job_id, "COMPLETED")


async def test_a_webhook_hears_of_the_events_that_it_chose(opened: Opened) -> None:
    async with _receiver() as (address, heard):
        job_id = await opened.send(HOLD, webhook=address, webhook_events=("started", "output", "completed"))
        await opened.running()
        opened.work.release.set()
        await opened.end(job_id)
        await until(lambda: any("status" in told for told in heard))
    events = [event["event"] for told in heard for event in told.get("events", [])]
    assert events == ["started", "output"]
    assert heard[-1]["status"] == "COMPLETED"


async def test_what_ran_when_its_runner_stopped_runs_again_from_the_start(open_queue: OpenQueue) -> None:
    first, second = Work(), Work()
    second.release.set()
    async with open_queue(work=first) as opened:
        job_id = await opened.send(HOLD)
        await opened.running()
        waiting = await opened.send()
    assert first.cut_off == [HOLD]
    async with open_queue(work=second) as opened:
        assert (await opened.end(job_id)).row.attempts == 1
        assert (await opened.end(waiting)).row.state == "COMPLETED"
    assert second.ran == [HOLD, {"do": "nothing"}]


async def test_results_outlive_the_server(open_queue: OpenQueue) -> None:
    async with open_queue() as opened:
        job_id = await opened.send()
        await opened.end(job_id)
    async with open_queue(runs=False) as opened:
        record = await opened.queue.read_record(job_id)
        assert (record.row.state, json.loads(record.output or "{}")["done"]) == ("COMPLETED", True)
        assert [one.row.id for one in await opened.queue.list_jobs(JobFilter())] == [job_id]


async def test_the_oldest_results_go_if_all_take_too_much(
    open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("queue.job_runner", "queue.nats.chores"):
        monkeypatch.setattr(f"comfypin.{module}._PRUNE_EVERY_S", 0.3)
    async with open_queue(keep_bytes=300) as opened:
        jobs = [await opened.send() for _ in range(6)]
        for job_id in jobs:
            await opened.end(job_id)
        gone = await _gone(opened, jobs[0])
        assert gone
        assert (await opened.queue.read_record(jobs[-1])).row.state == "COMPLETED"


async def test_results_that_are_too_old_go(open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("queue.job_runner", "queue.nats.chores"):
        monkeypatch.setattr(f"comfypin.{module}._PRUNE_EVERY_S", 0.2)
    async with open_queue(keep_s=0.5) as opened:
        job_id = await opened.send()
        assert await _gone(opened, job_id)
        # The list of a fleet's server hears of it a moment later.
        async with asyncio.timeout(30):
            while await opened.queue.list_jobs(JobFilter()):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)


async def test_followers_see_previews_of_a_running_job(opened: Opened) -> None:
    with opened.queue.events.subscribe(None) as following:
        await opened.send({"do": "show"})
        async with asyncio.timeout(30):
            while (event := await following.next_within(30)) is None or event.kind != "preview":
                pass
        opened.work.release.set()
    shown = event.data
    assert shown is not None
    assert (shown["node_id"], shown["content_type"]) == ("7", PREVIEW.content_type)
    assert base64.b64decode(str(shown["data_base64"])) == PREVIEW.data


async def test_previews_are_not_wanted_if_nobody_looks(opened: Opened) -> None:
    await opened.send(HOLD)
    await opened.running()
    assert not opened.work.previews.is_wanted("any")


async def test_a_full_queue_refuses_a_retry_and_has_room_again_after_a_cancel(open_queue: OpenQueue) -> None:
    async with open_queue(max_waiting=1) as opened:
        failed = await opened.send(FAIL)
        await opened.end(failed)
        await opened.send(HOLD)
        await opened.running(2)
        waiting = await opened.send()
        for ask in (opened.send(), opened.queue.retry_job(failed)):
            with pytest.raises(QueueFull) as caught:
                await ask
            assert caught.value.retry_after_s >= 1
        await opened.queue.cancel_job(waiting)
        await opened.queue.retry_job(failed)


async def test_a_job_that_timed_out_may_run_again_and_a_cancelled_one_may_not(opened: Opened) -> None:
    slow = await opened.send(HOLD, timeout_s=0.2)
    await opened.end(slow)
    opened.work.release.set()
    await opened.queue.retry_job(slow)
    assert (await opened.end(slow)).row.state == "COMPLETED"
    opened.work.release.clear()
    running = await opened.send(HOLD)
    await opened.running(3)
    await opened.queue.cancel_job(running)
    with pytest.raises(RetryRefused, match="CANCELLED"):
        await opened.queue.retry_job(running)


async def test_two_retries_at_once_run_a_job_once(opened: Opened) -> None:
    failed = await opened.send(FAIL)
    await opened.end(failed)
    await opened.send(HOLD)
    await opened.running(2)
    done = await asyncio.gather(*(opened.queue.retry_job(failed) for _ in range(3)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in done) == ["NoneType", "RetryRefused", "RetryRefused"]
    opened.work.release.set()
    await opened.end(failed)
    assert opened.work.ran.count(FAIL) == 2


async def test_a_webhook_hears_that_a_job_was_cancelled(opened: Opened) -> None:
    await opened.send(HOLD)
    await opened.running()
    async with _receiver() as (address, heard):
        waiting = await opened.send(webhook=address)
        await opened.queue.cancel_job(waiting)
        await until(lambda: len(heard) >= 1)
    assert (heard[0]["id"], heard[0]["status"]) == (waiting, "CANCELLED")


async def test_a_webhook_that_cannot_be_told_is_listed_and_told_on_request(opened: Opened) -> None:
    async with _receiver(refuses=2) as (address, heard):
        job_id = await opened.send(webhook=address)
        await opened.end(job_id)
        async with asyncio.timeout(30):
            while not (failures := await opened.queue.webhooks.list_failures(before=None, limit=10)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        (failure,) = failures
        assert (failure.job_id, failure.kind, failure.reason) == (job_id, "end", "HTTP 500")
        assert await opened.queue.webhooks.retry(failure.number, opened.queue.read_status) is None
        assert await opened.queue.webhooks.list_failures(before=None, limit=10) == []
    assert [told["status"] for told in heard] == ["COMPLETED"]


async def test_only_a_queue_that_can_reorders_what_waits(opened: Opened) -> None:
    await opened.send(HOLD)
    await opened.running()
    first, second = await opened.send({"first": 1}), await opened.send({"second": 2})
    if opened.queue.can_reorder:
        await opened.queue.prioritize_job(second, 5)
        assert (opened.queue.waiting_place(second), opened.queue.waiting_place(first)) == (1, 2)
    else:
        with pytest.raises(NotReordered):
            await opened.queue.prioritize_job(second, 5)
        assert (opened.queue.waiting_place(first), opened.queue.waiting_place(second)) == (1, 2)
    opened.work.release.set()
    await opened.end(first)
    await opened.end(second)


async def test_jobs_that_have_not_ended_are_shown_in_the_order_in_which_they_begin(opened: Opened) -> None:
    done = await opened.send({"workflow": {"1": {"class_type": "A", "inputs": {}}}})
    await opened.end(done)
    running = await opened.send(HOLD)
    await opened.running(2)
    normal = await opened.send({"workflow": {"1": {"class_type": "A", "inputs": {}}}})
    urgent = await opened.send(route=JobRoute(priority="high"))
    pending = opened.queue.list_pending()
    assert [live.row.id for live in pending] == [running, urgent, normal]
    assert set(opened.queue.ends_in_s(pending)) == {running, urgent, normal}
    assert opened.queue.find_live(normal) is not None
    assert opened.queue.waiting_place(running) is None


async def test_an_idempotency_key_is_for_one_request_and_outlives_the_server(open_queue: OpenQueue) -> None:
    async with open_queue() as opened:
        keys = IdempotencyKeys(Records(opened.store), clock=time.time, shared=opened.keys)
        await keys.load()
        with contextlib.suppress(RuntimeError):
            async with keys.claim("refused"):
                raise RuntimeError
        async with keys.claim("refused"):
            pass
        async with keys.claim("one"):
            await opened.send(notes=JobNotes(key="one"))
        with pytest.raises(ApiFailure, match="used already"):
            await keys.check("one")
    async with open_queue(runs=False) as opened:
        keys = IdempotencyKeys(Records(opened.store), clock=time.time, shared=opened.keys)
        await keys.load()
        with pytest.raises(ApiFailure, match="used already"):
            async with keys.claim("one"):
                raise AssertionError("it was claimed twice")
        await keys.check("another")


async def _gone(opened: Opened, job_id: str) -> bool:
    """Whether a job is forgotten within a while."""
    for _ in range(600):
        try:
            await opened.queue.read_record(job_id)
        except JobUnknown:
            return True
        await asyncio.sleep(0.1)
    return False


@contextlib.asynccontextmanager
async def _receiver(*, refuses: int = 0) -> AsyncIterator[tuple[str, list[Any]]]:
    """An address that takes what is posted to it, after some refusals, and what that was."""
    heard: list[Any] = []
    left = refuses

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(
            int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")
        )
        posted = json.loads(await reader.readexactly(size))
        if left:
            left -= 1
            status = b"500 Broken"
        else:
            heard.append(posted)
            status = b"200 OK"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", heard

"""Webhooks that are told of jobs as they go: in order, in batches, over restarts, within bounds."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from comfypin.engine.errors import PromptLost
from comfypin.jobs.interface import Handle, JobOutcome, ProgressCallback, ignore_progress
from comfypin.queue.errors import WebhookNotKept
from comfypin.queue.job_runner import QueueLimits
from comfypin.queue.local_queue import LocalJobQueue
from comfypin.queue.sqlite import JobStore
from comfypin.queue.webhook import SIGNATURE_HEADER, TIMESTAMP_HEADER, Webhooks, sign_body
from comfypin.queue.webhook_records import EVENT_NAMES, EventName, UnsentEvent, events_owed
from comfypin.retry import NO_RETRIES, RetryPolicy

SECRET = "a-webhook-secret"
IMAGE = {"filename": "a.png", "type": "base64", "data": "QUJD" * 100, "node": "9"}


class Receiver:
    """Notes what it is told; answers with `statuses` first, then 200; with `is_deaf`, with 500."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.is_deaf = False
        self.bodies: list[dict[str, Any]] = []
        self.signed: list[bool] = []
        self.told = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.signed.append(
            request.headers[SIGNATURE_HEADER] == sign_body(SECRET, request.headers[TIMESTAMP_HEADER], body)
        )
        status = 500 if self.is_deaf else self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.bodies.append(json.loads(body))
        self.told.set()
        return web.Response(status=status)

    @property
    def names(self) -> list[str]:
        return [
            event["event"] if isinstance(event, Mapping) else event
            for body in self.bodies
            for event in body.get("events", [body.get("status")])
        ]


class Work:
    """Tells progress twice, waits until it may go on, and leaves one picture; `fail` fails."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def __call__(
        self, job_id: str, document: object, *, progress: ProgressCallback = ignore_progress
    ) -> JobOutcome:
        progress({"progress": 0.25, "nodes_total": 4})
        progress({"progress": 0.5, "nodes_total": 4, "nodes_done": 2, "current_node": "3"})
        await self.may_end.wait()
        if document == "fail":
            return JobOutcome(output={"error": "it failed"}, failure=PromptLost(prompt_id=job_id))
        return JobOutcome(output={"images": [IMAGE, {**IMAGE, "filename": "b.png"}]})


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    told = Receiver()
    app = web.Application()
    app.router.add_post("/hook", told)
    async with TestServer(app) as server:
        yield told, str(server.make_url("/hook"))


@contextlib.asynccontextmanager
async def a_queue(folder: Path, work: Handle, retry: RetryPolicy = NO_RETRIES) -> AsyncIterator[LocalJobQueue]:
    store = JobStore(folder / "jobs.sqlite")
    webhooks = Webhooks(secret=SECRET, allow_private=True, retry_policy=retry)
    queue = LocalJobQueue(store, webhooks, QueueLimits(), worker_id="test")
    queue.webhooks._batch_s = 0.01
    await queue.recover_jobs()
    running = asyncio.create_task(queue.run_jobs(work))
    try:
        yield queue
    finally:
        await queue.stop_jobs(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        store.close()


async def send(queue: LocalJobQueue, url: str, names: Sequence[EventName] | None, job_input: object = "work") -> str:
    return await queue.accept_job(job_input, webhook=url, timeout_s=None, ttl_s=None, webhook_events=names)


async def until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not (await found if asyncio.iscoroutine(found := holds()) else found):  # noqa: ASYNC110 - of many kinds
            await asyncio.sleep(0.01)


async def failures(queue: LocalJobQueue) -> list[Any]:
    return await queue.webhooks.list_failures(before=None, limit=50)


async def test_events_come_in_order_signed_and_before_the_end(tmp_path: Path, receiver: tuple[Receiver, str]) -> None:
    told, url = receiver
    work = Work()
    async with a_queue(tmp_path, work) as queue:
        job_id = await send(queue, url, EVENT_NAMES)
        await until(lambda: "progress" in told.names)
        assert told.names == ["started", "progress"]  # the newest progress stands for those before it
        work.may_end.set()
        await until(lambda: "COMPLETED" in told.names)
    assert told.names == ["started", "progress", "output", "output", "COMPLETED"]
    assert all(told.signed)
    events = [event for body in told.bodies for event in body.get("events", ())]
    assert {body["id"] for body in told.bodies} == {job_id}
    assert [event["sequence"] for event in events] == sorted({event["sequence"] for event in events})
    assert events[1]["progress"]["fraction"] == 0.5
    assert events[2]["output"] == {"filename": "a.png", "type": "base64", "node": "9"}


async def test_only_what_was_chosen_is_told(tmp_path: Path, receiver: tuple[Receiver, str]) -> None:
    told, url = receiver
    work = Work()
    work.may_end.set()
    async with a_queue(tmp_path, work) as queue:
        await send(queue, url, ["failed", "output"])
        await send(queue, url, ["failed"], "fail")
        await send(queue, url, ["completed"], "fail")
        await send(queue, url, None)
        await until(lambda: len(told.bodies) >= 3)
        await until(lambda: all_forgotten(queue))
    assert sorted(told.names) == ["COMPLETED", "FAILED", "output", "output"]


def all_forgotten(queue: LocalJobQueue) -> bool:
    return not queue.webhooks._receivers


async def test_a_receiver_that_fails_is_told_in_the_same_order(tmp_path: Path, receiver: tuple[Receiver, str]) -> None:
    told, url = receiver
    told.statuses = [500, 503, 200, 500]
    work = Work()
    async with a_queue(tmp_path, work, RetryPolicy(retries=3, base_s=0)) as queue:
        await send(queue, url, EVENT_NAMES)
        work.may_end.set()
        await until(lambda: "COMPLETED" in told.names)
        assert await failures(queue) == []
    assert told.names == ["started", "progress", "output", "output", "COMPLETED"]


async def test_events_are_told_by_the_next_server(tmp_path: Path, receiver: tuple[Receiver, str]) -> None:
    told, url = receiver
    told.is_deaf = True
    work = Work()
    work.may_end.set()
    # A receiver that is down when the server ends: nothing is given up yet.
    async with a_queue(tmp_path, work, RetryPolicy(retries=5, base_s=60)) as queue:
        job_id = await send(queue, url, EVENT_NAMES)
        assert (await queue.read_record(job_id, wait_s=5)).row.state == "COMPLETED"
        await told.told.wait()
    told.is_deaf = False
    async with a_queue(tmp_path, work):
        await until(lambda: "COMPLETED" in told.names)
    assert told.names == ["started", "progress", "output", "output", "COMPLETED"]


async def test_what_failed_is_listed_without_the_address_and_told_again(
    tmp_path: Path, receiver: tuple[Receiver, str]
) -> None:
    told, url = receiver
    told.is_deaf = True
    work = Work()
    work.may_end.set()
    async with a_queue(tmp_path, work) as queue:
        await send(queue, url, ["output", "completed"])
        await until(lambda: has_failures(queue, 2))
        end, batch = await failures(queue)
        assert (end.kind, batch.kind, batch.events, batch.reason) == ("end", "events", 2, "HTTP 500")
        assert "/hook" not in end.host
        assert await queue.webhooks.retry(batch.number, queue.read_status) == "HTTP 500"
        told.is_deaf = False
        assert await queue.webhooks.retry(batch.number, queue.read_status) is None
        assert await queue.webhooks.retry(end.number, queue.read_status) is None
        assert await failures(queue) == []
        with pytest.raises(WebhookNotKept):
            await queue.webhooks.retry(end.number, queue.read_status)
    assert told.names == ["output", "output", "COMPLETED"]


async def has_failures(queue: LocalJobQueue, count: int) -> bool:
    return len(await failures(queue)) == count


async def test_a_failure_of_a_job_with_secrets_keeps_no_address(tmp_path: Path, receiver: tuple[Receiver, str]) -> None:
    told, url = receiver
    told.is_deaf = True
    work = Work()
    work.may_end.set()
    async with a_queue(tmp_path, work) as queue:
        await send(queue, f"{url}?token=open-sesame", ["output"])
        await until(lambda: has_failures(queue, 1))
        (failure,) = await failures(queue)
        assert (failure.address, failure.body) == (None, None)
        with pytest.raises(WebhookNotKept, match="secrets"):
            await queue.webhooks.retry(failure.number, queue.read_status)
        await until(lambda: all_forgotten(queue))
    assert b"open-sesame" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


async def test_a_job_that_runs_again_tells_its_events_again(tmp_path: Path, receiver: tuple[Receiver, str]) -> None:
    told, url = receiver
    work = Work()
    work.may_end.set()
    async with a_queue(tmp_path, work) as queue:
        job_id = await send(queue, url, ["started", "failed"], "fail")
        await until(lambda: told.names == ["started", "FAILED"])
        await until(lambda: all_forgotten(queue))
        await queue.retry_job(job_id)
        await until(lambda: told.names == ["started", "FAILED"] * 2)


async def test_what_a_deaf_receiver_leaves_is_bounded_and_counted(tmp_path: Path) -> None:
    async with a_queue(tmp_path, Work()) as queue:
        job_id = await send(queue, "http://127.0.0.1:9/", ["output"])
        outputs = [UnsentEvent(name="output", body=json.dumps({"event": "output", "number": n})) for n in range(700)]
        await queue._store.write_changes(*events_owed(job_id, outputs))
        await queue._store.write_changes(
            *events_owed(job_id, [UnsentEvent(name="progress", body=json.dumps({"event": "progress"}))] * 50)
        )
        counted = await queue._store.query_rows("SELECT COUNT(*) FROM webhook_events")
        dropped = await queue._store.query_rows("SELECT dropped FROM webhook_choices")
    assert counted == [(500,)]
    assert dropped == [(250,)]

"""The queue: durable, bounded, each job ended once."""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from comfypin.engine.errors import PromptLost
from comfypin.jobs.interface import Handle, JobOutcome, JobState, ProgressCallback, ignore_progress
from comfypin.queue import job_changes
from comfypin.queue.errors import JobsNotStored, JobUnknown, QueueFull, RetryRefused
from comfypin.queue.interface import JobRoute
from comfypin.queue.job_runner import QueueLimits
from comfypin.queue.local_queue import LocalJobQueue
from comfypin.queue.sqlite import JobStore
from comfypin.queue.webhook import Webhooks
from tests.support.job_queues import until


class Work:
    """A handler that does what the job's input says: `hold`, `fail`, or nothing."""

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.release = asyncio.Event()

    async def __call__(
        self, job_id: str, document: object, *, progress: ProgressCallback = ignore_progress
    ) -> JobOutcome:
        self.ran.append(document)
        progress({"progress": 0.5})
        if document == "hold":
            await self.release.wait()
        if document == "fail":
            return JobOutcome(output={"error": "it failed"}, failure=PromptLost(prompt_id=job_id))
        return JobOutcome(output={"done": True})


@contextlib.asynccontextmanager
async def a_queue(folder: Path, work: Handle, **limits: Any) -> AsyncIterator[LocalJobQueue]:
    store = JobStore(folder / "jobs.sqlite")
    webhooks = Webhooks(secret=None, allow_private=True)
    queue = LocalJobQueue(store, webhooks, QueueLimits(**limits), worker_id="test")
    await queue.recover_jobs()
    running = asyncio.create_task(queue.run_jobs(work))
    try:
        yield queue
    finally:
        await queue.stop_jobs(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        store.close()


@contextlib.asynccontextmanager
async def a_webhook() -> AsyncIterator[str]:
    """An address that takes whatever is posted to it."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def send(queue: LocalJobQueue, job_input: object, **more: Any) -> str:
    policy: Mapping[str, Any] = {"webhook": None, "timeout_s": None, "ttl_s": None, **more}
    return await queue.accept_job(job_input, **policy)


async def state(queue: LocalJobQueue, job_id: str) -> JobState:
    return (await queue.read_record(job_id, wait_s=5)).row.state


async def test_jobs_end_as_their_work_does(tmp_path: Path) -> None:
    async with a_queue(tmp_path, Work()) as queue:
        assert await state(queue, await send(queue, "ok")) == "COMPLETED"
        failed = await queue.read_record(await send(queue, "fail"), wait_s=5)
        assert (failed.row.state, failed.error) == ("FAILED", "it failed")


async def test_what_ran_when_the_server_ended_runs_again_and_what_ended_does_not(tmp_path: Path) -> None:
    async with a_queue(tmp_path, Work()) as queue:
        done = await send(queue, "ok")
        await state(queue, done)
        held = await send(queue, "hold")
        waiting = [await send(queue, "hold") for _ in range(3)]
    again = Work()
    again.release.set()
    async with a_queue(tmp_path, again) as queue:
        assert {await state(queue, job_id) for job_id in (held, *waiting)} == {"COMPLETED"}
        assert await state(queue, done) == "COMPLETED"
    assert again.ran == ["hold"] * 4


async def test_a_full_queue_takes_no_more(tmp_path: Path) -> None:
    async with a_queue(tmp_path, Work(), max_waiting=1, max_running=1) as queue:
        first = await send(queue, "hold")
        while queue.waiting_count:  # noqa: ASYNC110, it is a matter of one turn of the loop
            await asyncio.sleep(0.001)
        await send(queue, "hold")
        with pytest.raises(QueueFull):
            await send(queue, "hold")
        assert await queue.cancel_job(first) == "CANCELLED"


async def test_a_job_that_waits_is_cancelled_without_being_run(tmp_path: Path) -> None:
    work = Work()
    async with a_queue(tmp_path, work, max_running=1) as queue:
        await send(queue, "hold")
        second = await send(queue, "never")
        assert await queue.cancel_job(second) == "CANCELLED"
        assert "never" not in work.ran
        assert await queue.cancel_waiting() == 0


@pytest.mark.parametrize("policy", [{"timeout_s": 0.05}, {"ttl_s": 0.05}])
async def test_policies_bound_a_job(tmp_path: Path, policy: dict[str, float]) -> None:
    async with a_queue(tmp_path, Work()) as queue:
        assert await state(queue, await send(queue, "hold", **policy)) == "TIMED_OUT"


async def test_a_failed_job_may_run_again_and_others_may_not(tmp_path: Path) -> None:
    async with a_queue(tmp_path, Work()) as queue:
        failed, done = await send(queue, "fail"), await send(queue, "ok")
        assert {await state(queue, failed), await state(queue, done)} == {"FAILED", "COMPLETED"}
        await queue.retry_job(failed)
        assert await state(queue, failed) == "FAILED"
        with pytest.raises(RetryRefused):
            await queue.retry_job(done)
        with pytest.raises(JobUnknown):
            await queue.retry_job("nobody")


@pytest.mark.parametrize(
    "job",
    [
        {"workflow": {}, "comfy_org_api_key": "sesame"},
        {"workflow": {"prompt": {}, "extra_data": {"auth_token_comfy_org": "sesame"}}},
        json.dumps({"workflow": {"prompt": {}, "extra_data": {"api_key_comfy_org": "sesame"}}}),
    ],
    ids=["field", "whole body", "text"],
)
async def test_a_job_that_had_secrets_cannot_run_again(job: Any, tmp_path: Path) -> None:
    async with a_queue(tmp_path, Work()) as queue:
        job_id = await send(queue, job, timeout_s=0.0)
        assert await state(queue, job_id) == "TIMED_OUT"
        with pytest.raises(RetryRefused, match="secrets"):
            await queue.retry_job(job_id)


@pytest.mark.parametrize("end", ["COMPLETED", "FAILED", "TIMED_OUT", "CANCELLED"])
@pytest.mark.parametrize(
    "job",
    [
        json.dumps({"s3Config": {"accessSecret": "sesame" * 500}}),
        {"S3Config": {"accessSecret": "sesame" * 500}},
        {"inputs": [{"name": "a.png", "url": "https://user:sesame@example.com/a.png"}]},
    ],
    ids=["text", "spelling", "address"],
)
async def test_nothing_secret_stays_on_the_disk_after_the_end(job: Any, end: JobState, tmp_path: Path) -> None:
    def is_there() -> bool:
        return any(b"sesame" in path.read_bytes() for path in tmp_path.iterdir())

    async def work(job_id: str, document: object, *, progress: ProgressCallback = ignore_progress) -> JobOutcome:
        assert document == job
        if end not in ("COMPLETED", "FAILED"):
            await asyncio.Event().wait()
        failure = PromptLost(prompt_id=job_id) if end == "FAILED" else None
        return JobOutcome(output={"done": True}, failure=failure)

    async with a_webhook() as hook, a_queue(tmp_path, work) as queue:
        job_id = await send(queue, job, timeout_s=0.2 if end == "TIMED_OUT" else None, webhook=f"{hook}?token=sesame")
        assert is_there()
        await asyncio.sleep(0.05)
        if end == "CANCELLED":
            await queue.cancel_job(job_id)
        assert await state(queue, job_id) == end
        async with asyncio.timeout(20):
            while is_there():  # noqa: ASYNC110 - the test looks from outside
                await asyncio.sleep(0.1)


async def test_a_server_that_was_killed_leaves_no_secrets_in_the_log(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite")
    queue = LocalJobQueue(store, Webhooks(secret=None, allow_private=True), QueueLimits(), worker_id="test")
    job_id = await send(queue, {"S3Config": "sesame"})
    killed = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)
    end = job_changes.job_ended(job_id, "CANCELLED", 1.0, output=None, error=None)
    killed.execute(end.statement, end.values)
    for name in ("jobs.sqlite", "jobs.sqlite-wal"):
        (tmp_path / f"copy.{name}").write_bytes((tmp_path / name).read_bytes())
    killed.close()
    store.close()
    for path in tmp_path.glob("jobs.sqlite*"):
        path.unlink()
    assert any(b"sesame" in path.read_bytes() for path in tmp_path.iterdir())
    again = JobStore(tmp_path / "copy.jobs.sqlite")
    assert not any(b"sesame" in path.read_bytes() for path in tmp_path.iterdir())
    again.close()


async def test_old_results_and_too_large_ones_go(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite")
    queue = LocalJobQueue(store, Webhooks(secret=None, allow_private=True), QueueLimits(), worker_id="test")
    sent = [await send(queue, "x" * 1000) for _ in range(4)]
    for job_id in sent:
        await queue.cancel_job(job_id)
    assert await store.prune_results(ended_before=time.time() - 60, max_bytes=2500) == [sent[1], sent[0]]
    assert await store.prune_results(ended_before=time.time(), max_bytes=1 << 30) == [sent[3], sent[2]]
    store.close()


async def test_jobs_are_not_accepted_into_a_file_that_was_removed(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    async with a_queue(tmp_path / "state", Work()) as queue:
        (tmp_path / "state").rename(tmp_path / "away")
        with pytest.raises(JobsNotStored, match="their file was removed"):
            await send(queue, "ok")
        assert queue.trouble
        (tmp_path / "away").rename(tmp_path / "state")
        assert await state(queue, await send(queue, "ok")) == "COMPLETED"


async def test_jobs_are_not_accepted_into_a_file_that_another_has_replaced(tmp_path: Path) -> None:
    async with a_queue(tmp_path, Work()) as queue:
        (tmp_path / "jobs.sqlite").rename(tmp_path / "older.sqlite")
        (tmp_path / "jobs.sqlite").touch()
        with pytest.raises(JobsNotStored, match="another file has taken the place of theirs"):
            await send(queue, "ok")


@pytest.mark.parametrize("query", ["had_secrets", "read_description"])
async def test_a_retry_of_a_job_that_is_dropped_at_that_moment_says_that_it_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    async with a_queue(tmp_path, Work()) as queue:
        job_id = await queue.accept_job("fail", webhook=None, timeout_s=None, ttl_s=None)
        await queue.read_record(job_id, wait_s=10)
        asked = getattr(JobStore, query)

        async def ask_when_dropped(store: JobStore, asked_id: str) -> Any:
            await store.prune_results(ended_before=float("inf"), max_bytes=0)
            return await asked(store, asked_id)

        monkeypatch.setattr(JobStore, query, ask_when_dropped)
        with pytest.raises(JobUnknown):
            await queue.retry_job(job_id)
        assert queue.waiting_count == 0


async def test_a_priority_outlives_the_server(tmp_path: Path) -> None:
    work = Work()
    async with a_queue(tmp_path, work, max_running=1) as queue:
        await queue.accept_job("hold", webhook=None, timeout_s=None, ttl_s=None)
        await queue.accept_job("later", webhook=None, timeout_s=None, ttl_s=None)
        urgent = await queue.accept_job("urgent", webhook=None, timeout_s=None, ttl_s=None)
        await queue.prioritize_job(urgent, 3)
    again = Work()
    again.release.set()
    async with a_queue(tmp_path, again, max_running=1) as queue:
        assert (await queue.read_record(urgent, wait_s=10)).row.state == "COMPLETED"
    assert again.ran[0] == "urgent"


async def test_what_a_job_asks_for_is_not_kept_in_memory_when_it_has_begun_or_ended(tmp_path: Path) -> None:
    async with a_queue(tmp_path, Work()) as queue:
        job_id = await send(queue, {"workflow": {}, "comfy_org_api_key": "sesame"})
        assert await state(queue, job_id) == "COMPLETED"
        live_job = queue.find_live(job_id)
        assert live_job is not None
        assert live_job.job_input is None


async def test_a_job_that_nothing_is_in_the_way_of_is_taken_and_begun_in_one_commit(tmp_path: Path) -> None:
    work = Work()
    async with a_queue(tmp_path, work, max_running=1) as queue:
        await _until_idle(queue)
        commits = _count_commits(queue)
        job_id = await send(queue, "hold")
        await _until_running(queue, job_id)
        assert len(commits) == 1
        second = await send(queue, "after it")
        assert await state(queue, second) == "IN_QUEUE"
        assert _states_on_disk(tmp_path) == {job_id: ("IN_PROGRESS", 1), second: ("IN_QUEUE", 0)}
        work.release.set()
        assert (await queue.read_record(second, wait_s=30)).row.state == "COMPLETED"
    assert _states_on_disk(tmp_path)[second] == ("COMPLETED", 1)


async def test_a_job_that_has_begun_on_the_disk_is_not_overtaken(tmp_path: Path) -> None:
    work = Work()
    async with a_queue(tmp_path, work, max_running=1) as queue:
        await _until_idle(queue)
        urgent = JobRoute(rank=9)
        first, second = await asyncio.gather(send(queue, "hold"), send(queue, "urgent", route=urgent))
        await _until_running(queue, first)
        assert work.ran == ["hold"]
        work.release.set()
        assert (await queue.read_record(second, wait_s=30)).row.state == "COMPLETED"


async def test_all_who_wait_for_an_end_are_told_and_the_result_is_not_kept_in_memory(tmp_path: Path) -> None:
    work = Work()
    async with a_queue(tmp_path, work, max_running=1) as queue:
        job_id = await send(queue, "hold")
        cut_off, *waiting = [asyncio.create_task(queue.read_record(job_id, wait_s=30)) for _ in range(3)]
        await _until_running(queue, job_id)
        cut_off.cancel()
        await asyncio.sleep(0)
        work.release.set()
        for told in await asyncio.gather(*waiting):
            assert (told.row.state, told.output) == ("COMPLETED", '{"done": true}')
            assert told == await queue.read_record(job_id)
        live = queue.find_live(job_id)
        assert live is not None
        assert live.ended is None


def _count_commits(queue: LocalJobQueue) -> list[int]:
    """Return a list that grows with each commit."""
    commits: list[int] = []
    store: Any = queue._store
    commit = store._commit_batch

    def counted(batch: Any) -> Any:
        commits.append(len(batch))
        return commit(batch)

    store._commit_batch = counted
    return commits


async def _until_idle(queue: LocalJobQueue) -> None:
    await until(lambda: queue._runner.is_idle)


async def _until_running(queue: LocalJobQueue, job_id: str) -> None:
    await until(lambda: (live := queue.find_live(job_id)) is not None and bool(live.progress))


def _states_on_disk(folder: Path) -> dict[str, tuple[str, int]]:
    with contextlib.closing(sqlite3.connect(folder / "jobs.sqlite")) as connection:
        return {
            job_id: (kept, tries) for job_id, kept, tries in connection.execute("SELECT id, state, attempts FROM jobs")
        }

"""A server of a large fleet answers before it has read all jobs, and nothing that it says then is wrong."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from comfypin.queue.errors import QueueFull
from comfypin.queue.job_listing import JobFilter
from comfypin.queue.job_runner import QueueLimits
from comfypin.queue.nats import fleet_job
from comfypin.queue.nats.connection import parse_queue_address
from comfypin.queue.nats.dead_jobs import ask_for_dead_jobs
from comfypin.queue.nats.fleet import Fleet, open_fleet
from comfypin.queue.nats.nats_queue import NatsJobQueue
from comfypin.queue.nats.overview import list_dead_jobs
from comfypin.queue.sqlite import JobStore
from comfypin.queue.steady_clock import steady_clock
from comfypin.settings.fleet import FleetSettings
from tests.support.job_queues import NAME, RELEASE, webhooks
from tests.support.nats_servers import NatsServer, nats_server

SENT = 8


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@contextlib.asynccontextmanager
async def opened(
    folder: Path, nats: NatsServer, *, max_waiting: int = 100, read_s: float = 5.0
) -> AsyncIterator[tuple[NatsJobQueue, Fleet]]:
    """The queue of a server that has begun to read, and its fleet; nothing follows the jobs yet."""
    folder.mkdir()
    store = JobStore(folder / "fleet.sqlite")
    try:
        async with open_fleet(parse_queue_address(nats.address), FleetSettings(), client_name="test") as fleet:
            queue = NatsJobQueue(
                fleet,
                store,
                QueueLimits(max_waiting=max_waiting),
                release=RELEASE,
                release_name=NAME,
                clock=steady_clock(),
                webhooks=webhooks(),
                read_before_answers_s=read_s,
            )
            await queue.recover_jobs()
            yield queue, fleet
    finally:
        store.close()


@contextlib.asynccontextmanager
async def following(queue: NatsJobQueue) -> AsyncIterator[None]:
    async def handle(*_: object, **__: object) -> None: ...

    running = asyncio.create_task(queue.run_jobs(handle))  # type: ignore[arg-type]
    try:
        yield
    finally:
        await queue.stop_jobs(0)
        await running


async def send(queue: NatsJobQueue, text: str) -> str:
    return await queue.accept_job({"text": text}, webhook=None, timeout_s=None, ttl_s=None)


async def test_a_server_that_still_reads_takes_tells_and_cancels_jobs(nats: NatsServer, tmp_path: Path) -> None:
    async with opened(tmp_path / "first", nats) as (first, _):
        assert first.has_all_jobs
        ids = [await send(first, str(number)) for number in range(SENT)]
        async with opened(tmp_path / "second", nats, max_waiting=SENT + 1, read_s=0.0) as (second, fleet):
            assert not second.has_all_jobs
            assert second.waiting_count == SENT
            done = partial(fleet_job.ended, state="COMPLETED", at=steady_clock()())
            await fleet.states.change(ids[0], done)
            assert (await second.read_record(ids[0], wait_s=5)).row.state == "COMPLETED"
            assert await second.cancel_job(ids[1]) == "CANCELLED"
            ids.append(await send(second, "new"))
            assert (await second.read_record(ids[-1])).row.state == "IN_QUEUE"
            async with following(second):
                await second.wait_for_all_jobs()
                await asyncio.wait_for(until_listed(second, ids[-1]), 30)
                listed = await second.list_jobs(JobFilter(limit=50))
                assert [one.row.id for one in listed] == ids[::-1]
                assert [second.waiting_place(job_id) for job_id in ids[2:]] == [*range(1, SENT)]
                assert await second.cancel_waiting() == SENT - 1


async def test_a_queue_is_full_also_before_all_was_read(nats: NatsServer, tmp_path: Path) -> None:
    async with opened(tmp_path / "first", nats) as (first, _):
        ids = [await send(first, str(number)) for number in range(3)]
        async with opened(tmp_path / "second", nats, max_waiting=3, read_s=0.0) as (second, _):
            with pytest.raises(QueueFull):
                await send(second, "one too many")
        for job_id in ids:
            await first.cancel_job(job_id)


async def test_a_server_tells_which_jobs_were_given_up_and_without_one_the_records_do(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(tmp_path / "first", nats) as (queue, fleet):
        ids = {await send(queue, str(number)) for number in range(3)}
        for job_id in ids:
            end = partial(fleet_job.ended, state="FAILED", at=1.0, dead=f"{job_id} killed its workers")
            await fleet.states.change(job_id, end)
        assert await ask_for_dead_jobs(fleet.client) is None
        read = await list_dead_jobs(fleet)
        assert {job.id for job in read} == ids
        async with following(queue):
            told = None
            while told is None:  # it listens in a moment
                told = await ask_for_dead_jobs(fleet.client)
            assert sorted(told, key=lambda job: job.id) == sorted(read, key=lambda job: job.id)
            # What has changed before the question is in the answer, whoever changed it.
            again = partial(fleet_job.queued_again, at=2.0)
            for job_id in ids:
                await fleet.states.change(job_id, again)
                left = await ask_for_dead_jobs(fleet.client)
                assert left is not None
                assert job_id not in {job.id for job in left}


async def until_listed(queue: NatsJobQueue, job_id: str) -> None:
    while not [one for one in await queue.list_jobs(JobFilter(limit=1)) if one.row.id == job_id]:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)

"""A disk that is full for a moment under the server's state: every accepted job ends once, and clients are told."""

import asyncio
import contextlib
import os
import random
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from comfypin.queue.errors import JobsNotStored, JobsUnusable
from comfypin.queue.local_queue import LocalJobQueue
from comfypin.queue.sqlite import JobStore
from tests.support.server import Server, serving
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.workflows import picture
from tests.unit.queue.test_local_queue import Work, a_queue, send, state

pytestmark = pytest.mark.needs("unshare")


def a_seed() -> int:
    """The seed of this run, printed, so that a failure can be repeated: FAULT_SEED=N."""
    seed = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"FAULT_SEED={seed}")
    return seed


class Big(Work):
    """Work whose results take room on the disk."""

    async def __call__(self, job_id: str, document: object, **more: Any) -> Any:
        await asyncio.sleep(0.002)
        return await super().__call__(job_id, document, **more)


async def fill_until_refused(disk: SmallDisk, queue: LocalJobQueue) -> None:
    """Fill the disk until the store has no room left either, which must be said in a sentence that clients may read."""
    for _ in range(500):
        # The log first: what lies in it already could be written over without one byte more.
        with contextlib.closing(sqlite3.connect(disk.path / "jobs.sqlite")) as base:
            base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        disk.fill()
        try:
            await send(queue, "x")
        except JobsNotStored as refusal:
            assert "the disk is full" in refusal.message  # noqa: PT017 - the loop ends here
            assert str(disk.path) not in refusal.message  # noqa: PT017 - clients read it
            return
    pytest.fail("the disk took everything")


async def until(reached: Any, within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while not reached():  # noqa: ASYNC110 - the test looks from outside
            await asyncio.sleep(0.02)


async def test_jobs_that_met_a_full_disk_go_on_by_themselves(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mb=4) as disk:
        work = Work()
        async with a_queue(disk.path, work, max_running=2) as queue:
            sent = [await send(queue, "hold") for _ in range(8)]
            await until(lambda: len(work.ran) == 2)
            await fill_until_refused(disk, queue)
            work.release.set()
            await asyncio.sleep(0.3)
            assert {(await queue.read_record(job_id)).row.state for job_id in sent} == {"IN_PROGRESS", "IN_QUEUE"}
            assert (queue.trouble is not None, len(work.ran)) == (True, 2)
            problems = queue.trouble
            assert "the disk is full" in str(problems)
            disk.free()
            assert {await state(queue, job_id) for job_id in sent} == {"COMPLETED"}
            await until(lambda: queue.trouble is None)
        assert work.ran.count("hold") == 8


async def test_a_job_is_cancelled_on_a_full_disk_as_soon_as_it_can_be_noted(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mb=4) as disk:
        work = Work()
        async with a_queue(disk.path, work, max_running=1) as queue:
            running, waiting, other = [await send(queue, "hold") for _ in range(3)]
            await until(lambda: len(work.ran) == 1)
            await fill_until_refused(disk, queue)
            for job_id in (running, waiting):
                with pytest.raises(JobsNotStored, match="the disk is full"):
                    await queue.cancel_job(job_id)
            with pytest.raises(JobsNotStored, match="the disk is full"):
                await queue.cancel_waiting()
            disk.free()
            assert {await state(queue, job_id) for job_id in (running, waiting, other)} == {"CANCELLED"}
        assert work.ran == ["hold"]


async def test_a_server_that_ends_does_not_wait_for_a_full_disk_and_the_next_one_runs_the_job(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mb=4) as disk:
        work = Work()
        async with a_queue(disk.path, work, max_running=2) as queue:
            sent = [await send(queue, "hold") for _ in range(2)]
            await until(lambda: len(work.ran) == 2)
            await fill_until_refused(disk, queue)
            work.release.set()
            async with asyncio.timeout(30):
                await queue.stop_jobs(grace_s=3600)
        disk.free()
        async with a_queue(disk.path, work) as queue:
            assert {await state(queue, job_id) for job_id in sent} == {"COMPLETED"}


async def test_a_retry_that_a_full_disk_refuses_leaves_the_job_failed(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mb=4) as disk:
        async with a_queue(disk.path, Work()) as queue:
            failed = await send(queue, "fail")
            assert await state(queue, failed) == "FAILED"
            await fill_until_refused(disk, queue)
            with pytest.raises(JobsNotStored, match="the disk is full"):
                await queue.retry_job(failed)
            assert (await queue.read_record(failed)).row.state == "FAILED"
            disk.free()
            await until(lambda: queue.trouble is None)
            await queue.retry_job(failed)
            assert await state(queue, failed) == "FAILED"


async def test_one_job_that_does_not_fit_takes_no_other_along(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mb=4) as disk:
        work = Work()
        async with a_queue(disk.path, work) as queue:
            sent = await asyncio.gather(send(queue, "x" * 8_000_000), send(queue, "ok"), return_exceptions=True)
            assert isinstance(sent[0], JobsNotStored)
            assert await state(queue, str(sent[1])) == "COMPLETED"
        assert work.ran == ["ok"]


async def test_a_disk_that_is_full_again_and_again_ends_every_job_once(tmp_path: Path) -> None:
    dice = random.Random(a_seed())
    with small_disk(tmp_path / "disk", size_mb=4) as disk:
        work = Big()
        async with a_queue(disk.path, work, max_running=2) as queue:
            accepted: list[str] = []
            for _ in range(6):
                for _ in range(10):
                    try:
                        accepted.append(await send(queue, "x" * dice.randrange(1, 20_000)))
                    except JobsNotStored:
                        disk.free()
                disk.fill()
                await asyncio.sleep(dice.random() / 4)
                disk.free()
            assert {await state(queue, job_id) for job_id in accepted} == {"COMPLETED"}
        rows = _rows(disk.path / "jobs.sqlite")
        assert rows == dict.fromkeys(accepted, "COMPLETED")


def _rows(path: Path) -> dict[str, str]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as base:
        return dict(base.execute("SELECT id, state FROM jobs").fetchall())


def _send_until_taken(server: Server, disk: SmallDisk, told: Counter[int]) -> str:
    deadline = time.monotonic() + 60
    while True:
        status, answer, headers = server.ask("POST", "/run", {"input": {"workflow": picture(len(told), size=16)}})
        told[status] += 1
        if status == 200:
            return str(answer["id"])
        assert (status, headers.get("retry-after")) == (503, "5"), answer
        assert "the disk is full" in answer["error"], answer
        assert time.monotonic() < deadline
        disk.free()


def test_a_server_whose_state_disk_is_full_for_moments_ends_all_sixty_jobs(tmp_path: Path) -> None:
    dice = random.Random(a_seed())
    told: Counter[int] = Counter()
    pings = set()
    with (
        small_disk(tmp_path / "disk", size_mb=16) as disk,
        serving(tmp_path, "--state-dir", str(disk.path / "state")) as server,
    ):
        accepted: list[str] = []
        for number in range(60):
            if number % 10 == 5:
                disk.fill()
                pings.add(_ping_within(server, 503, within_s=5, accepted=accepted))
                status, answer, _ = server.ask("GET", "/health")
                assert status == 503 or "the disk is full" in str(answer["problems"])
                time.sleep(dice.random())
                disk.free()
            accepted.append(_send_until_taken(server, disk, told))
        assert {server.ended(job_id)["status"] for job_id in accepted} == {"COMPLETED"}
        assert len(accepted) >= 60
        assert _ping_within(server, 200, within_s=10, accepted=accepted) == 200
        assert {server.ended(job_id)["status"] for job_id in accepted} == {"COMPLETED"}
        assert 503 in pings
        assert _rows(disk.path / "state/jobs.sqlite") == dict.fromkeys(accepted, "COMPLETED")
        assert "Traceback" not in server.log.read_text()
        print(f"answers to /run by status: {dict(told)}")


def _ping_within(server: Server, status: int, *, within_s: float, accepted: list[str]) -> int | None:
    """Ask until the status comes or the time is over; the jobs that are sent meanwhile meet the disk."""
    deadline = time.monotonic() + within_s
    while (seen := server.ping()) != status and time.monotonic() < deadline:
        code, answer, _ = server.ask("POST", "/run", {"input": {"workflow": {}, "note": "x" * 10_000}})
        accepted += [answer["id"]] if code == 200 else []
        time.sleep(0.05)
    return seen


async def test_a_store_that_cannot_be_opened_names_the_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mb=1) as disk:
        disk.fill()
        with pytest.raises(JobsUnusable, match="disk"):
            JobStore(disk.path / "jobs.sqlite")

"""A release takes the place of another on a fleet that works on, as fleet.md shows: real NATS, no engines."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from comfypin.queue.interface import JobRoute
from comfypin.queue.nats.connection import parse_queue_address
from comfypin.queue.nats.fleet import Fleet, open_fleet
from comfypin.queue.nats.rolls import Roll, change_rolls, read_rolls
from comfypin.queue.nats.worker_records import list_workers
from comfypin.settings.fleet import FleetSettings
from tests.conftest import ROOT
from tests.support.job_queues import NAME, RELEASE, Opened, Work, fleet_queue, fleet_worker
from tests.support.nats_servers import NatsServer, nats_server

NEW, NEW_NAME = "cd" * 8, "demo-2"
OLD_WORKER, NEW_WORKER = {RELEASE: NAME}, {NEW: NEW_NAME}


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_server(tmp_path) as server:
        yield server


@pytest.fixture
async def fleet(nats: NatsServer) -> AsyncIterator[Fleet]:
    async with open_fleet(parse_queue_address(nats.address), FleetSettings(), client_name="test") as opened:
        yield opened


async def eventually(holds: Callable[[], Awaitable[bool]], within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - what is looked at tells nobody
            await asyncio.sleep(0.1)


async def roll(fleet: Fleet, *, held: bool = False) -> None:
    one = Roll(old=RELEASE, old_name=NAME, new=NEW, new_name=NEW_NAME, at=time.time(), is_held=held)
    await change_rolls(fleet.control, lambda rolls: rolls.with_roll(one))


async def is_held(fleet: Fleet) -> bool:
    return (await read_rolls(fleet.control)).successor(RELEASE) == NEW


async def own_releases(fleet: Fleet) -> list[str]:
    return [worker.own for worker in await list_workers(fleet.workers)]


async def follows(opened: Opened, release: str) -> None:
    async def has_heard() -> bool:
        return opened.queue.release == release  # type: ignore[attr-defined]

    await eventually(has_heard)


async def ran_on(fleet: Fleet, opened: Opened, **route: str) -> str:
    """Send a job and return the release that ran it."""
    job_id = await opened.send(route=JobRoute(**route))  # type: ignore[arg-type]
    await opened.end(job_id)
    kept = await fleet.states.read(job_id)
    assert kept is not None
    return kept.job.lane.release


async def test_jobs_go_to_the_new_release_once_it_is_warm_and_old_workers_leave(
    nats: NatsServer, fleet: Fleet, tmp_path: Path
) -> None:
    old_work, new_work = Work(), Work()
    async with (
        fleet_queue(tmp_path, old_work, nats.address, runs=False) as opened,
        fleet_worker(old_work, nats.address, releases=OLD_WORKER),
    ):
        await roll(fleet)
        assert await ran_on(fleet, opened) == RELEASE
        held = await opened.send({"do": "hold"})
        async with fleet_worker(new_work, nats.address, releases=NEW_WORKER):
            await follows(opened, NEW)
            assert await ran_on(fleet, opened) == NEW
            assert await ran_on(fleet, opened, release=NAME) == NEW
            # The old worker finishes what it runs, and whatever names its release by digest.
            named = await opened.send(route=JobRoute(release=RELEASE))
            assert RELEASE in await own_releases(fleet)
            old_work.release.set()
            assert (await opened.end(held)).row.state == "COMPLETED"
            assert (await opened.end(named)).row.state == "COMPLETED"
            assert {"do": "hold"} not in new_work.ran

            async def old_has_left() -> bool:
                return await own_releases(fleet) == [NEW]

            await eventually(old_has_left)


async def test_a_roll_is_taken_back_at_once(nats: NatsServer, fleet: Fleet, tmp_path: Path) -> None:
    work = Work()
    async with fleet_queue(tmp_path, work, nats.address, runs=False) as opened:
        await roll(fleet, held=True)
        await follows(opened, NEW)
        back = await change_rolls(fleet.control, lambda rolls: rolls.without_last(at=time.time()))
        assert back is not None
        await follows(opened, RELEASE)
        async with fleet_worker(work, nats.address, releases=OLD_WORKER):
            assert await ran_on(fleet, opened) == RELEASE


async def test_a_failed_job_is_retried_on_the_new_release_unless_it_named_the_old_one(
    nats: NatsServer, fleet: Fleet, tmp_path: Path
) -> None:
    work = Work()
    async with fleet_queue(tmp_path, work, nats.address, runs=False) as opened:
        async with fleet_worker(work, nats.address, releases=OLD_WORKER):
            free = await opened.send({"do": "fail"})
            pinned = await opened.send({"do": "fail"}, route=JobRoute(release=f"sha256:{RELEASE}"))
            for job_id in (free, pinned):
                assert (await opened.end(job_id)).row.state == "FAILED"
        await roll(fleet, held=True)
        await follows(opened, NEW)
        for job_id, release in ((free, NEW), (pinned, RELEASE)):
            await opened.queue.retry_job(job_id)
            kept = await fleet.states.read(job_id)
            assert kept is not None
            assert kept.job.lane.release == release


async def test_jobs_are_moved_if_the_last_old_worker_died(nats: NatsServer, fleet: Fleet, tmp_path: Path) -> None:
    work = Work()
    async with fleet_queue(tmp_path, work, nats.address, runs=False) as opened:
        waiting = await opened.send()
        pinned = await opened.send(route=JobRoute(release=RELEASE))
        await roll(fleet, held=True)
        async with fleet_worker(work, nats.address, releases=NEW_WORKER):
            assert (await opened.end(waiting)).row.state == "COMPLETED"
            kept = await fleet.states.read(pinned)
            assert kept is not None
            assert kept.job.row.state == "IN_QUEUE"
        assert await fleet.tickets.subjects(RELEASE) == {kept.job.ticket}


def write_lock(folder: Path, name: str) -> str:
    lock = {"schema_version": 3, "version_name": name, "engine": {"kind": "embedded"}}
    path = folder / f"{name}.lock.json"
    path.write_text(json.dumps(lock))
    return str(path)


async def test_the_command_rolls_says_what_to_start_and_goes_back(
    nats: NatsServer, fleet: Fleet, tmp_path: Path
) -> None:
    def command(*words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "comfypin.cli.main", "fleet", "roll", *words, "--queue", nats.address],
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done

    new = write_lock(tmp_path, NEW_NAME)
    work = Work()
    async with fleet_queue(tmp_path, work, nats.address, runs=False) as opened:
        refused = await asyncio.to_thread(command, new, code=64)
        assert "Which release should be replaced?" in refused.stderr
        async with fleet_worker(work, nats.address, releases=OLD_WORKER, gpu_class="rtx4090"):
            await eventually(lambda: _is_known(fleet))
            told = (await asyncio.to_thread(command, new)).stdout
            assert f"{NAME} ({RELEASE}) -> {NEW_NAME}" in told
            assert f"1 x comfypin worker --queue {nats.address} --release {NEW_NAME} --class rtx4090" in told
            assert not await is_held(fleet)
            # A roll that was taken back offers no way back.
            assert "--back" not in (await asyncio.to_thread(command, "--back")).stdout
            await asyncio.to_thread(command, new)
        back = json.loads((await asyncio.to_thread(command, "--back", "--json")).stdout)
        assert (back["to"]["release_key"], back["held"]) == (RELEASE, True)
        await follows(opened, RELEASE)
        again = await asyncio.to_thread(command, "--back", code=64)
        assert "no roll to take back" in again.stderr


async def _is_known(fleet: Fleet) -> bool:
    return await own_releases(fleet) == [RELEASE]

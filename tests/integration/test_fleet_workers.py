"""What holds for the workers and servers of a fleet: who is given up, who takes over, who swaps, who leaves."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfypin.jobs.interface import JobOutcome, ProgressCallback, ignore_progress
from comfypin.queue.interface import JobRoute
from comfypin.queue.nats import layout, lease, names
from comfypin.queue.nats.connection import parse_queue_address
from comfypin.queue.nats.errors import LeaseTaken
from comfypin.queue.nats.fleet import open_fleet
from comfypin.queue.nats.layout import ensure_lane
from comfypin.queue.nats.lease import CHORES, FleetLease
from comfypin.queue.nats.names import Lane
from comfypin.queue.nats.pulling import open_puller
from comfypin.queue.nats.worker import WorkerWornOut
from comfypin.settings.fleet import FleetSettings
from tests.support.fleets import working
from tests.support.job_queues import NAME, RELEASE, Opened, Work, fleet_queue, fleet_worker, until
from tests.support.nats_servers import NatsServer, nats_server

OTHER = "cd" * 8
HOLD = {"do": "hold"}


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_server(tmp_path) as server:
        yield server


def fleet_command(server: NatsServer, home: Path, *words: str) -> Any:
    """What `comfypin fleet ... --json` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "comfypin.cli.main", "fleet", *words, "--queue", server.address, "--json"],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


async def wear_out(job_id: str, document: object, *, progress: ProgressCallback = ignore_progress) -> JobOutcome:
    """A job that takes its worker's engine down with it."""
    return JobOutcome(output={"error": "the engine died"}, replace_worker=True)


async def test_a_job_that_takes_five_workers_down_is_given_up_with_the_reason_and_runs_again_on_request(
    nats: NatsServer, tmp_path: Path
) -> None:
    good = Work()
    async with fleet_queue(tmp_path, good, nats.address, runs=False) as opened:
        job_id = await opened.send()
        for attempt in range(1, 6):
            with pytest.raises(WorkerWornOut):
                async with fleet_worker(wear_out, nats.address):
                    await _attempts(opened, job_id, attempt)
        async with fleet_worker(good, nats.address):
            record = await opened.end(job_id)
            assert record.row.state == "FAILED"
            assert "ended 5 times" in (record.error or "")
            assert good.ran == []
            (dead,) = (await asyncio.to_thread(fleet_command, nats, tmp_path, "status"))["dead"]
            assert (dead["id"], "ended 5 times" in dead["reason"]) == (job_id, True)
            retried = await asyncio.to_thread(fleet_command, nats, tmp_path, "retry-dead")
            assert retried == {"retried": [job_id], "refused": []}
            await until(lambda: bool(good.ran))
            assert (await opened.end(job_id)).row.state == "COMPLETED"
            assert (await asyncio.to_thread(fleet_command, nats, tmp_path, "status"))["dead"] == []


async def _attempts(opened: Opened, job_id: str, count: int) -> None:
    async with asyncio.timeout(30):
        while (await opened.queue.read_record(job_id)).row.attempts < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)


async def test_a_job_whose_ticket_nobody_can_use_is_given_up(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MOST_DELIVERIES", 3)
    async with (
        fleet_queue(tmp_path, Work(), nats.address, runs=False) as opened,
        open_fleet(parse_queue_address(nats.address), FleetSettings(), client_name="test") as fleet,
        open_puller(fleet.client) as puller,
    ):
        job_id = await opened.send()
        refusals = 0
        while refusals < 3:
            # A refused ticket is not always there again at the next request.
            ticket = await puller.take_one(names.JOBS_STREAM, Lane(release=RELEASE).consumer)
            if ticket is not None:
                await ticket.nak()
                await fleet.client.flush()
                refusals += 1
        # NATS gives it up when the next worker asks, once it has taken in the last refusal.
        ending = asyncio.create_task(opened.end(job_id))
        while not ending.done():
            await puller.take_one(names.JOBS_STREAM, Lane(release=RELEASE).consumer)
            await asyncio.wait([ending], timeout=0.2)
        record = await ending
        assert record.row.state == "FAILED"
        assert "delivered 3 times" in (record.error or "")
        assert await fleet.tickets.subjects() == set()


async def test_one_server_does_the_chores_and_another_takes_over_if_it_dies(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (layout, lease):
        monkeypatch.setattr(module, "LEASE_S", 1.5)
    monkeypatch.setattr(lease, "_RENEW_EVERY_S", 0.3)
    at_work: list[str] = []
    most_at_once = 0

    async def chores(name: str) -> None:
        nonlocal most_at_once
        at_work.append(name)
        most_at_once = max(most_at_once, len(at_work))
        try:
            await asyncio.sleep(3600)
        finally:
            at_work.remove(name)

    async with contextlib.AsyncExitStack() as stack:
        holding: dict[str, asyncio.Task[None]] = {}
        fleets = {}
        for name in ("one", "two"):
            fleets[name] = await stack.enter_async_context(
                open_fleet(parse_queue_address(nats.address), FleetSettings(), client_name=name)
            )
            held = FleetLease(fleets[name].leases, CHORES, name)
            holding[name] = asyncio.create_task(held.hold(lambda name=name: chores(name)))  # type: ignore[misc]
        await until(lambda: len(at_work) == 1)
        await asyncio.sleep(2)
        assert len(at_work) == 1
        (first,) = at_work
        # As if its machine was gone: nothing is given back.
        await fleets[first].client.close()
        (second,) = {"one", "two"} - {first}
        await until(lambda: at_work == [second])
        assert most_at_once == 1
        for task in holding.values():
            task.cancel()
        await asyncio.gather(*holding.values(), return_exceptions=True)


async def test_a_lease_that_was_lost_stays_with_whoever_took_it(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a laptop's sleep: the first holder must neither act nor give away what is another's by now."""
    monkeypatch.setattr(lease, "_RENEW_EVERY_S", 0.1)
    async with contextlib.AsyncExitStack() as stack:
        fleets = [
            await stack.enter_async_context(
                open_fleet(parse_queue_address(nats.address), FleetSettings(), client_name="test")
            )
            for _ in range(2)
        ]
        slept, awake = (FleetLease(fleet.leases, "scale", str(number)) for number, fleet in enumerate(fleets))
        async with contextlib.AsyncExitStack() as awake_stack:
            async with slept.keep():
                slept.require_held()
                await fleets[1].leases.drop(["scale"])  # as its age does
                await awake_stack.enter_async_context(awake.keep())
                await until(lambda: not slept.is_held)
                with pytest.raises(LeaseTaken):
                    slept.require_held()
            awake.require_held()
            held = await fleets[1].leases.get("scale")
            assert held is not None
            assert held.data == b"1"


async def test_another_release_is_helped_only_once_it_waits_longer_than_a_swap(
    nats: NatsServer, tmp_path: Path
) -> None:
    work, swap_s = Work(), 1.5
    releases = {RELEASE: NAME, OTHER: "other"}
    async with fleet_queue(tmp_path, work, nats.address, runs=False) as opened:
        await _make_known(nats, OTHER, "other")
        async with fleet_worker(work, nats.address, releases=releases, swap_s=swap_s):
            await opened.end(await opened.send({"warm": 0}))
            other = await opened.send({"other": 1}, route=JobRoute(release="other"))
            own = await opened.send({"warm": 1})
            helped, warm = await opened.end(other), await opened.end(own)
    assert work.ran == [{"warm": 0}, {"warm": 1}, {"other": 1}]
    assert helped.row.started_at - helped.row.created_at > swap_s
    assert warm.row.started_at < helped.row.started_at - swap_s / 2


async def test_a_worker_does_not_take_what_it_cannot_serve(nats: NatsServer, tmp_path: Path) -> None:
    work = Work()
    async with fleet_queue(tmp_path, work, nats.address) as opened:
        await _make_known(nats, OTHER, "other")
        strange = await opened.send({"other": 1}, route=JobRoute(release="other"))
        classed = await opened.send({"class": 1}, route=JobRoute(gpu_class="rtx4090"))
        await opened.end(await opened.send({"warm": 1}))
        assert work.ran == [{"warm": 1}]
        async with fleet_worker(work, nats.address, gpu_class="rtx4090"):
            assert (await opened.end(classed)).row.state == "COMPLETED"
        assert (await opened.queue.read_record(strange)).row.state == "IN_QUEUE"


async def _make_known(server: NatsServer, release: str, name: str) -> None:
    async with open_fleet(parse_queue_address(server.address), FleetSettings(), client_name="test") as fleet:
        await fleet.releases.put(f"name.{release}", name.encode())


async def test_a_worker_leaves_once_it_idles_and_never_while_a_job_runs(nats: NatsServer, tmp_path: Path) -> None:
    work = Work()
    async with (
        fleet_queue(tmp_path, work, nats.address, runs=False) as opened,
        open_fleet(parse_queue_address(nats.address), FleetSettings(), client_name="test") as fleet,
        fleet_worker(work, nats.address, idle_exit_s=0.5),
    ):
        job_id = await opened.send(HOLD)
        await opened.running()
        await asyncio.sleep(1.5)
        assert work.cut_off == []
        work.release.set()
        assert (await opened.end(job_id)).row.state == "COMPLETED"
        async with asyncio.timeout(30):
            while await fleet.workers.keys():  # noqa: ASYNC110
                await asyncio.sleep(0.05)


def test_a_worker_that_idles_ends_with_success(nats: NatsServer, tmp_path: Path) -> None:
    with working(tmp_path, nats.address, "--idle-exit", "1", ready=False) as worker:
        assert worker.process.wait(120) == 0
        assert '"worker_idle"' in worker.log.read_text()


@pytest.fixture
def never_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that idle do not look by themselves: whoever is not woken sleeps for ever."""
    monkeypatch.setattr("comfypin.queue.nats.worker._LOOK_EVERY_S", 3600.0)


@pytest.mark.usefixtures("never_looking")
async def test_jobs_that_come_at_once_wake_as_many_workers(nats: NatsServer, tmp_path: Path) -> None:
    works = [Work() for _ in range(4)]
    async with (
        fleet_queue(tmp_path, works[0], nats.address, runs=False) as opened,
        contextlib.AsyncExitStack() as stack,
    ):
        for work in works:
            await stack.enter_async_context(fleet_worker(work, nats.address))
        await opened.end(await opened.send())
        jobs = await asyncio.gather(
            *(opened.send(HOLD, route=JobRoute(priority="high" if number % 2 else "normal")) for number in range(8))
        )
        await until(lambda: sum(work.ran.count(HOLD) for work in works) == 4)
        for work in works:
            work.release.set()
        assert {(await opened.end(job_id)).row.state for job_id in jobs} == {"COMPLETED"}


@pytest.mark.usefixtures("never_looking")
async def test_a_worker_with_a_job_does_not_hear_what_an_idle_one_should(nats: NatsServer, tmp_path: Path) -> None:
    works = [Work() for _ in range(3)]
    async with (
        fleet_queue(tmp_path, works[0], nats.address, runs=False) as opened,
        contextlib.AsyncExitStack() as stack,
    ):
        for work in works:
            await stack.enter_async_context(fleet_worker(work, nats.address))
        for number in range(1, 4):
            await opened.send(HOLD)
            await until(lambda number=number: sum(len(work.ran) for work in works) == number)  # type: ignore[misc]
        assert [len(work.ran) for work in works] == [1, 1, 1]
        for work in works:
            work.release.set()
        for _ in range(20):
            assert (await opened.end(await opened.send())).row.state == "COMPLETED"


async def test_a_ticket_is_not_behind_what_was_asked_for_while_nats_was_away(nats: NatsServer) -> None:
    async with (
        open_fleet(parse_queue_address(nats.address), FleetSettings(), client_name="test") as fleet,
        open_puller(fleet.client) as puller,
    ):
        lane = Lane(release=RELEASE)
        await ensure_lane(fleet.stream, lane)
        # Responses that nobody has read come late: here all at once, with the connection.
        for number in range(20):
            request = json.dumps({"batch": 1, "no_wait": True}).encode()
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{names.JOBS_STREAM}.{lane.consumer}"
            await fleet.client.publish(subject, request, reply=f"{puller.inbox_subject}.late{number}")
        await fleet.client.flush()
        await fleet.stream.publish(lane.ticket_subject("a-job", 0), b"")
        ticket = await puller.take_one(names.JOBS_STREAM, lane.consumer)
        assert ticket is not None
        assert names.job_of_ticket(ticket.subject) == ("a-job", 0)

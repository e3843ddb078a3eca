"""What a fleet does when a part of NATS is away for a moment, or was removed."""

import asyncio
from pathlib import Path

import pytest
from nats.errors import NoRespondersError
from nats.js.errors import NoStreamResponseError

from comfypin.queue.interface import JobRoute
from comfypin.queue.nats import failures, names
from comfypin.queue.nats.connection import open_connection, parse_queue_address
from comfypin.queue.nats.failures import until_clear
from comfypin.queue.nats.fleet import open_fleet
from comfypin.queue.nats.names import Lane
from comfypin.queue.nats.pulling import open_puller
from comfypin.settings.fleet import FleetSettings
from tests.support.job_queues import RELEASE, Work, fleet_queue, until
from tests.support.nats_servers import NatsServer, nats_server
from tests.support.networks import can_make_networks, network


async def test_a_line_without_a_leader_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        async with (
            open_fleet(parse_queue_address(server.address), FleetSettings(), client_name="test") as fleet,
            open_puller(fleet.client) as puller,
        ):
            lane = Lane(release=RELEASE, priority="high")
            with pytest.raises(NoRespondersError):
                await puller.take_one(names.JOBS_STREAM, lane.consumer)
            await fleet.tickets.open_lane(lane)
            assert await puller.take_one(names.JOBS_STREAM, lane.consumer) is None


async def test_a_worker_makes_a_line_again_that_was_removed(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        async with fleet_queue(tmp_path, Work(), server.address) as opened:
            await opened.end(await opened.send())
            async with open_fleet(parse_queue_address(server.address), FleetSettings(), client_name="test") as fleet:
                lane = Lane(release=RELEASE, priority="high")
                await fleet.stream.delete_consumer(names.JOBS_STREAM, lane.consumer)
            job_id = await opened.send(route=JobRoute(priority="high"))
            assert (await opened.end(job_id)).row.state == "COMPLETED"


async def test_while_a_leader_is_chosen_tries_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "_TRY_AGAIN_S", 0.001)
    refusals = iter(range(50))

    async def refused_at_once() -> str:
        if next(refusals, None) is not None:
            raise NoStreamResponseError
        return "stored"

    assert await until_clear(refused_at_once) == "stored"


async def test_who_gets_no_answer_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "_TRY_AGAIN_S", 0.001)
    monkeypatch.setattr(failures, "_CLEAR_WITHIN_S", 0.02)

    async def refuse() -> None:
        raise NoStreamResponseError

    with pytest.raises(NoStreamResponseError):
        await until_clear(refuse)


async def test_a_network_that_swallows_packets_is_noticed(tmp_path: Path) -> None:
    if not can_make_networks():
        pytest.skip("needs to make network namespaces: run as root, with iproute2")
    with network(1) as (_, (cable,)):
        server = NatsServer(tmp_path / "nats", host=cable.host)
        server.prefix = cable.prefix
        server.start()
        try:
            server.wait_until_ready()
            async with open_connection((server.address,), FleetSettings(), client_name="test") as client:
                cable.pull()
                # Nobody tells the client; a minute is far less than TCP takes.
                await until(lambda: not client.is_connected)
                cable.plug()
                await until(lambda: client.is_connected)
                await asyncio.wait_for(client.flush(), 30)
        finally:
            server.kill()

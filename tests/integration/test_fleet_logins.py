"""Logins and TLS of a fleet, against real servers: each kind does a whole job, and a worker can do no more."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import nats
import pytest

from comfypin.queue.nats import connection
from comfypin.queue.nats.connection import parse_queue_address
from comfypin.queue.nats.errors import QueueLoginRefused, QueueUnfit, QueueUnreachable
from comfypin.queue.nats.fleet import open_fleet
from comfypin.settings.fleet import FleetSettings
from tests.support.job_queues import SEALED, Work, fleet_queue, fleet_worker, until
from tests.support.nats_logins import Operator, permissions_block, shipped_permissions, user_key
from tests.support.nats_servers import nats_server
from tests.support.nginx import free_port
from tests.support.tls import Certificate


@dataclass(frozen=True, kw_only=True)
class LoggedIn:
    """A server's address, and the settings with which servers, workers and strangers come."""

    address: str
    serve: FleetSettings
    worker: FleetSettings
    stranger: FleetSettings


@contextlib.contextmanager
def token(folder: Path) -> Iterator[LoggedIn]:
    with nats_server(folder, more='authorization { token: "s3same" }') as server:
        own = replace(SEALED, token="s3same")
        yield LoggedIn(address=server.address, serve=own, worker=own, stranger=replace(SEALED, token="guessed"))


@contextlib.contextmanager
def nkey(folder: Path) -> Iterator[LoggedIn]:
    keys = {name: user_key() for name in ("serve", "worker", "stranger")}
    for name, key in keys.items():
        (folder / f"{name}.nk").write_text(f"{key.seed}\n")
    users = f"{{ nkey: {keys['serve'].public} }}, {{ nkey: {keys['worker'].public}, {permissions_block()} }}"
    with nats_server(folder, more=f"authorization {{ users: [{users}] }}") as server:
        serve, worker, stranger = (replace(SEALED, nkey=folder / f"{name}.nk") for name in keys)
        yield LoggedIn(address=server.address, serve=serve, worker=worker, stranger=stranger)


@contextlib.contextmanager
def credentials(folder: Path) -> Iterator[LoggedIn]:
    operator = Operator()
    publish, subscribe = shipped_permissions()
    serve = operator.credentials(folder / "serve.creds")
    worker = operator.credentials(folder / "worker.creds", publish=publish, subscribe=subscribe)
    stranger = Operator().credentials(folder / "stranger.creds")
    with nats_server(folder, more=operator.configuration()) as server:
        yield LoggedIn(
            address=server.address,
            serve=replace(SEALED, credentials=serve),
            worker=replace(SEALED, credentials=worker),
            stranger=replace(SEALED, credentials=stranger),
        )


@contextlib.contextmanager
def certificate(folder: Path) -> Iterator[LoggedIn]:
    """TLS with which both sides show who they are."""
    server_side, client_side = Certificate.made(folder / "server"), Certificate.made(folder / "client")
    tls = f'cert_file: "{server_side.path}", key_file: "{server_side.key}", ca_file: "{client_side.path}", verify: true'
    with nats_server(folder, more=f"tls {{ {tls} }}") as server:
        address = server.address.replace("nats://", "tls://")
        own = replace(SEALED, ca=server_side.path, certificate=client_side.path, certificate_key=client_side.key)
        yield LoggedIn(address=address, serve=own, worker=own, stranger=replace(own, certificate=None))


KINDS = [token, nkey, credentials, certificate]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_whole_job_is_done_with_each_kind_of_login(kind: object, tmp_path: Path) -> None:
    with kind(tmp_path) as fleet:  # type: ignore[operator]
        async with fleet_queue(
            tmp_path, Work(), fleet.address, settings=fleet.serve, worker_settings=fleet.worker
        ) as opened:
            record = await opened.end(await opened.send({"do": "nothing", "apiKey": "sesame"}))
            assert record.row.state == "COMPLETED"


@pytest.fixture
def quick_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot connect hears so soon."""
    monkeypatch.setattr(connection, "_FIRST_WITHIN_S", 3.0)


@pytest.mark.usefixtures("quick_refusals")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_stranger_is_refused_and_hears_why(kind: object, tmp_path: Path) -> None:
    with kind(tmp_path) as fleet:  # type: ignore[operator]
        with pytest.raises((QueueLoginRefused, QueueUnreachable, QueueUnfit)) as caught:
            async with open_fleet(parse_queue_address(fleet.address), fleet.stranger, client_name="test"):
                pass
        assert "guessed" not in str(caught.value)
        assert "cannot be" in str(caught.value) or "lets us in with a login only" in str(caught.value)


async def test_a_command_that_ends_does_not_say_that_the_queue_was_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with nats_server(tmp_path) as server:
        async with open_fleet(parse_queue_address(server.address), SEALED, client_name="test"):
            pass
    assert [record.getMessage() for record in caplog.records if record.name.startswith("comfypin")] == []


async def test_whoever_ends_while_nats_is_away_ends_without_a_failure(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        async with open_fleet(parse_queue_address(server.address), SEALED, client_name="test") as fleet:
            server.kill()
            async with asyncio.timeout(30):
                while fleet.client.is_connected:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.01)
            await fleet.client.publish("comfypin.wake.nobody")


@pytest.mark.usefixtures("quick_refusals")
async def test_an_address_at_which_nobody_answers_is_told() -> None:
    with pytest.raises(QueueUnreachable, match="refused"):
        async with open_fleet((f"nats://127.0.0.1:{free_port()}",), SEALED, client_name="test"):
            pass


@pytest.mark.usefixtures("quick_refusals")
async def test_a_server_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    with certificate(tmp_path) as fleet:
        other = Certificate.made(tmp_path / "other")
        with pytest.raises(QueueUnreachable, match="certificate"):
            async with open_fleet(
                parse_queue_address(fleet.address), replace(fleet.serve, ca=other.path), client_name="test"
            ):
                pass


@pytest.mark.usefixtures("quick_refusals")
async def test_without_tls_a_server_that_wants_it_is_not_talked_to(tmp_path: Path) -> None:
    with certificate(tmp_path) as fleet:
        plain = fleet.address.replace("tls://", "nats://")
        with pytest.raises((QueueUnreachable, QueueUnfit)):
            async with open_fleet(parse_queue_address(plain), SEALED, client_name="test"):
                pass


@pytest.mark.parametrize("kind", [nkey, credentials])
@pytest.mark.parametrize(
    "subject",
    [
        "comfypin.jobs.any.normal.abababababababab.forged.0",
        "comfypin.cancel.somebody",
        "$KV.comfypin_keys.forged",
        "$KV.comfypin_leases.chores",
        "$JS.API.STREAM.UPDATE.COMFYPIN_JOBS",
        "$JS.API.STREAM.DELETE.KV_comfypin_jobs",
        "$JS.API.STREAM.PURGE.KV_comfypin_jobs",
        "$JS.API.STREAM.MSG.DELETE.COMFYPIN_JOBS",
        "$JS.API.CONSUMER.DELETE.COMFYPIN_JOBS.any_normal_abababababababab",
        "$JS.API.CONSUMER.CREATE.KV_comfypin_bodies.all",
    ],
)
async def test_a_worker_can_do_no_more_than_take_and_answer(kind: object, subject: str, tmp_path: Path) -> None:
    with kind(tmp_path) as fleet:  # type: ignore[operator]
        (refusal,) = await _refusals(fleet, publish=subject)
        assert "permissions violation for publish" in refusal.lower()


async def test_a_worker_hears_nothing_of_other_workers_jobs(tmp_path: Path) -> None:
    with credentials(tmp_path) as fleet:
        for subject in (">", "comfypin.jobs.>", "$KV.comfypin_jobs.>", "comfypin.progress.*"):
            (refusal,) = await _refusals(fleet, subscribe=subject)
            assert "permissions violation for subscription" in refusal.lower()


async def _refusals(fleet: LoggedIn, *, publish: str | None = None, subscribe: str | None = None) -> list[str]:
    told: list[str] = []

    async def note(error: Exception) -> None:
        told.append(str(error))

    login = (
        {"nkeys_seed": str(fleet.worker.nkey)}
        if fleet.worker.nkey
        else {"user_credentials": str(fleet.worker.credentials)}
    )
    client = await nats.connect(fleet.address, error_cb=note, **login)  # type: ignore[arg-type]
    try:
        if publish is not None:
            await client.publish(publish, b"{}")
        if subscribe is not None:
            await client.subscribe(subscribe)
        await client.flush()
        await until(lambda: bool(told))
    finally:
        await client.close()
    return told


async def test_a_job_that_a_worker_hands_back_is_taken_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody looks for it by himself: the wake of the worker that left must arrive.
    monkeypatch.setattr("comfypin.queue.nats.worker._LOOK_EVERY_S", 600.0)
    first, second = Work(), Work()
    second.release.set()
    with credentials(tmp_path) as fleet:
        async with fleet_queue(tmp_path, first, fleet.address, settings=fleet.serve, runs=False) as opened:
            async with fleet_worker(first, fleet.address, settings=fleet.worker) as leaving:
                job_id = await opened.send({"do": "hold"})
                await until(lambda: bool(first.ran))
                async with fleet_worker(second, fleet.address, settings=fleet.worker):
                    await asyncio.sleep(0.5)  # it has looked once, and waits to be woken
                    leaving.stop()
                    record = await opened.end(job_id)
            assert record.row.state == "COMPLETED"
            assert second.ran == [{"do": "hold"}]

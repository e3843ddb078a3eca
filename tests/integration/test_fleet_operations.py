"""A fleet with the configuration of NATS that we ship, as fleet.md starts it: a worker's limits, what people ask."""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from comfypin.queue.nats import layout
from comfypin.queue.nats.connection import parse_queue_address
from comfypin.queue.nats.errors import QueueUnfit
from comfypin.queue.nats.fleet import open_fleet
from comfypin.settings.fleet import FleetSettings
from tests.conftest import ROOT
from tests.support.fleets import serving_fleet, working
from tests.support.nats_servers import NatsServer, nats_server
from tests.support.workflows import picture

SHIPPED = ROOT / "deploy" / "fleet" / "nats.conf"
SERVE = {"COMFYPIN_NATS_USER": "serve", "COMFYPIN_NATS_PASSWORD": "s3rve"}
WORKER = {"COMFYPIN_NATS_USER": "worker", "COMFYPIN_NATS_PASSWORD": "w0rker"}


@pytest.fixture
def nats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NatsServer]:
    """NATS with the logins of the file that we ship."""
    monkeypatch.setenv("NATS_SERVE_PASSWORD", SERVE["COMFYPIN_NATS_PASSWORD"])
    monkeypatch.setenv("NATS_WORKER_PASSWORD", WORKER["COMFYPIN_NATS_PASSWORD"])
    logins = SHIPPED.read_text()
    with nats_server(tmp_path, more=logins[logins.index("authorization {") :]) as server:
        yield server


def fleet_command(
    nats: NatsServer, home: Path, *words: str, login: Mapping[str, str] = SERVE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "comfypin.cli.main", "fleet", *words, "--queue", nats.address],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", **login},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def fleet_with_a_warm_worker(nats: NatsServer, home: Path) -> Any:
    """What the status shows once the worker has written that it is warm, which it does every ten seconds."""
    for _ in range(60):
        shown = fleet_command(nats, home, "status", "--json")
        assert shown.returncode == 0, shown.stderr
        fleet = json.loads(shown.stdout)
        if [worker["warm"] for worker in fleet["workers"]] == ["demo"]:
            return fleet
        time.sleep(0.5)
    raise AssertionError(fleet)


def test_a_worker_with_its_own_login_does_jobs_and_the_status_shows_it(nats: NatsServer, tmp_path: Path) -> None:
    with (
        serving_fleet(tmp_path / "serve", nats.address, environ=SERVE) as server,
        working(tmp_path / "worker", nats.address, environ=WORKER),
    ):
        answer = server.post("/runsync", {"input": {"workflow": picture(1)}})
        assert answer["status"] == "COMPLETED", answer
        fleet = fleet_with_a_warm_worker(nats, tmp_path)
        (worker,) = fleet["workers"]
        assert worker["jobs"] == []
        assert {lane["waiting"] for lane in fleet["backlog"]} == {0}
        assert {lane["release"] for lane in fleet["backlog"]} == {"demo"}
        assert fleet["dead"] == []
        figures = server.get_bytes("/metrics").decode()
        assert re.search(
            r'^comfypin_fleet_workers\{class="any",release="demo",state="(idle|busy)"\} 1\.0$', figures, re.M
        )
        assert 'comfypin_fleet_jobs_waiting{class="any",priority="normal",release="demo"} 0.0' in figures
        assert "comfypin_fleet_dead_jobs 0.0" in figures
        people = fleet_command(nats, tmp_path, "status").stdout
        assert "1 workers" not in people
        assert "1 worker" in people
        assert "nothing waits" in people


def test_a_command_without_a_login_hears_that_it_needs_one(nats: NatsServer, tmp_path: Path) -> None:
    for login, reason in (
        ({}, "none is set"),
        ({**SERVE, "COMFYPIN_NATS_PASSWORD": "wrong"}, "does not know this one"),
    ):
        refused = fleet_command(nats, tmp_path, "status", login=login)
        assert refused.returncode == 71
        assert reason in refused.stderr
        assert "COMFYPIN_NATS_USER" in refused.stderr


async def test_a_worker_before_the_first_server_hears_what_to_start(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "_READY_WITHIN_S", 0.0)
    login = FleetSettings(user="worker", password=WORKER["COMFYPIN_NATS_PASSWORD"])
    with pytest.raises(QueueUnfit, match="start comfypin serve --queue first"):
        async with open_fleet(parse_queue_address(nats.address), login, client_name="test"):
            pass


def test_what_waits_is_shown_without_a_worker(nats: NatsServer, tmp_path: Path) -> None:
    with serving_fleet(tmp_path / "serve", nats.address, environ=SERVE) as server:
        for number in range(3):
            server.post("/run", {"input": {"workflow": picture(number)}})
        fleet = json.loads(fleet_command(nats, tmp_path, "status", "--json").stdout)
        assert fleet["workers"] == []
        assert sum(lane["waiting"] for lane in fleet["backlog"]) == 3


@pytest.mark.parametrize(
    "subject",
    [
        "comfypin.jobs.any.normal.abababababababab.forged.0",
        "$KV.comfypin_keys.forged",
        "$JS.API.STREAM.DELETE.COMFYPIN_JOBS",
        "$JS.API.STREAM.PURGE.COMFYPIN_JOBS",
    ],
)
def test_a_worker_cannot_make_jobs_nor_delete_them(nats: NatsServer, tmp_path: Path, subject: str) -> None:
    nats_client = pytest.importorskip("nats")

    async def refusals() -> list[str]:
        told: list[str] = []

        async def note(error: Exception) -> None:
            told.append(str(error))

        client = await nats_client.connect(
            nats.address, user="worker", password=WORKER["COMFYPIN_NATS_PASSWORD"], error_cb=note
        )
        await client.publish(subject, b"")
        await client.flush()
        for _ in range(100):
            if told:
                break
            await asyncio.sleep(0.05)
        await client.close()
        return told

    (refusal,) = asyncio.run(refusals())
    assert "permissions violation" in refusal.lower()


def test_status_without_an_address_says_what_to_type(tmp_path: Path) -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "comfypin.cli.main", "fleet", "status"],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 64
    assert "COMFYPIN_QUEUE" in asked.stderr


def test_jobs_that_did_not_die_are_not_run_again(nats: NatsServer, tmp_path: Path) -> None:
    with serving_fleet(tmp_path / "serve", nats.address, environ=SERVE):
        assert fleet_command(nats, tmp_path, "retry-dead").stdout.strip() == "no job was given up"
        refused = fleet_command(nats, tmp_path, "retry-dead", "nosuch")
        assert refused.returncode == 64
        assert "nosuch" in refused.stderr

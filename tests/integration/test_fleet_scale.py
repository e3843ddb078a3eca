"""`comfypin fleet scale` and a Runpod in a box: pods are real workers, made by what waits, gone by themselves."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, shared_path
from tests.support.fleets import serving_fleet
from tests.support.nats_servers import NatsServer, nats_server
from tests.support.runpod_box import DEMO, IMAGE, RunpodBox, client_environ
from tests.support.workflows import picture

OPENAPI = shared_path("openapi") / "runpod-rest-v2.openapi.json"
PASSWORD = "swordfish-of-the-fleet"
LOGIN = f'authorization {{ user: fleet, password: "{PASSWORD}" }}'
ACCESS = {"COMFYPIN_NATS_USER": "fleet", "COMFYPIN_NATS_PASSWORD": PASSWORD}


@pytest.fixture
def box(tmp_path: Path) -> Iterator[RunpodBox]:
    with RunpodBox(OPENAPI, tmp_path / "box") as running:
        yield running
    assert running.violations == []


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_server(tmp_path, more=LOGIN) as server:
        yield server


class Scaler:
    """`comfypin fleet` for one fleet, as a person calls it."""

    def __init__(self, box: RunpodBox, nats: NatsServer, folder: Path) -> None:
        self.box, self.nats, self.folder = box, nats, folder

    def command(self, *words: str, code: int = 0, **environ: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "comfypin.cli.main", "fleet", *words, "--queue", self.nats.address],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            stdin=subprocess.DEVNULL,
            env=client_environ(self.box, self.folder, **ACCESS, **environ),
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def scale(self, *words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        flags = ("--release", DEMO, "--image", IMAGE, "--pod-queue", self.nats.address, "--idle-exit", "3")
        return self.command("scale", *flags, *words, code=code)

    def pass_json(self, *words: str) -> Any:
        return json.loads(self.scale("--once", "--yes", "--json", *words).stdout)


@pytest.fixture
def scaler(box: RunpodBox, nats: NatsServer, tmp_path: Path) -> Scaler:
    return Scaler(box, nats, tmp_path)


def until(condition: Callable[[], bool], within_s: float = 180) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_pods_are_made_for_what_waits_do_it_and_are_gone(box: RunpodBox, scaler: Scaler, tmp_path: Path) -> None:
    with serving_fleet(tmp_path / "serve", scaler.nats.address, environ=ACCESS) as server:
        jobs = [server.post("/run", {"input": {"workflow": picture(number)}})["id"] for number in range(4)]
        shown = scaler.scale("--dry-run", "--max", "2", code=2).stdout
        assert "4 wait" in shown
        assert "+ 2 pods on NVIDIA GeForce RTX 4090, $0.69 an hour each" in shown
        assert "cost: $0.00 an hour now, $1.38 then, at most $1.38" in shown
        assert box.writes == []
        made = scaler.pass_json("--max", "2")
        assert [pod["id"] for pod in made["made"]] == list(box.state["pods"])
        # They start, so they count: nothing more is made for the same jobs.
        again = scaler.pass_json("--max", "2")
        assert again["made"] == []
        assert again["releases"][0]["starting"] + again["releases"][0]["workers"] == 2
        assert again["cost_per_hour"] == pytest.approx(1.38)
        for job_id in jobs:
            until(lambda job_id=job_id: server.get(f"/status/{job_id}")["status"] == "COMPLETED")  # type: ignore[misc]
        until(lambda: not box.state["pods"])
        assert scaler.pass_json()["releases"][0]["job_s"] < 30
        assert scaler.pass_json()["cost_per_hour"] == 0


def test_nobody_sees_the_login_of_the_queue(box: RunpodBox, scaler: Scaler, tmp_path: Path) -> None:
    with serving_fleet(tmp_path / "serve", scaler.nats.address, environ=ACCESS) as server:
        server.post("/run", {"input": {"workflow": picture(1)}})
        printed = scaler.scale("--once", "--yes", "--verbose")
        (pod,) = box.state["pods"].values()
        assert PASSWORD in [secret["value"] for secret in box.secrets.values()]
        assert PASSWORD not in printed.stdout + printed.stderr + json.dumps(pod)
        assert scaler.nats.address not in json.dumps(pod)
        process = box.pod_containers[pod["id"]].process
        assert process is not None
        title = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
        assert "--remove-pod" in title
        assert PASSWORD not in title
        box.wait_for_line(pod["id"], "worker ready", within_s=180)
        assert PASSWORD not in "\n".join(box.logs_of(pod["id"]))
        until(lambda: not box.state["pods"])


@pytest.mark.soak
def test_the_least_workers_stay_and_leave_when_it_is_lowered(box: RunpodBox, scaler: Scaler, tmp_path: Path) -> None:
    with serving_fleet(tmp_path / "serve", scaler.nats.address, environ=ACCESS):
        made = scaler.pass_json("--min", "1")
        (pod,) = made["made"]
        box.wait_for_line(pod["id"], "worker ready", within_s=180)
        # Longer than it may idle.
        time.sleep(6)
        assert list(box.state["pods"]) == [pod["id"]]
        status = json.loads(scaler.command("status", "--json").stdout)
        assert status["pods"]["cost_per_hour"] == pytest.approx(0.69)
        assert "1 pod on Runpod, $0.69 an hour" in scaler.command("status").stdout
        assert scaler.pass_json("--min", "0")["made"] == []
        until(lambda: not box.state["pods"])


def test_ended_and_silent_pods_are_removed_and_others_are_left_alone(box: RunpodBox, scaler: Scaler) -> None:
    box.starts_pods = False
    made = scaler.pass_json("--min", "2", "--max", "2")["made"]
    ended, silent = (pod["id"] for pod in made)
    foreign = {**box.state["pods"][ended], "id": "foreign", "name": "mine", "env": {}}
    box.state["pods"]["foreign"] = foreign
    box.state["pods"][ended]["status"] = "EXITED"
    box.state["pods"][silent]["createdAt"] = "2026-01-01T00:00:00Z"
    shown = scaler.scale("--once", "--yes", "--max", "0").stderr
    assert f"({ended}): it is exited" in shown
    assert f"({silent}): no worker was heard of" in shown
    assert list(box.state["pods"]) == ["foreign"]


def test_pods_of_another_queue_or_class_are_not_judged(box: RunpodBox, scaler: Scaler) -> None:
    """Their workers are unknown here, or may take longer to start; both would be removed while they are needed."""
    box.starts_pods = False
    (made,) = scaler.pass_json("--min", "1")["made"]
    pod = box.state["pods"][made["id"]]
    pod["createdAt"] = "2026-01-01T00:00:00Z"
    assert scaler.pass_json("--class", "h100", "--max", "0")["removed"] == []
    pod["env"] = {**pod["env"], "COMFYPIN_FLEET_QUEUE": "another"}
    refused = scaler.scale("--once", "--yes", "--max", "0", code=64)
    assert made["id"] in refused.stderr
    assert "--name" in refused.stderr
    assert list(box.state["pods"]) == [made["id"]]
    assert scaler.pass_json("--name", "mine", "--max", "0")["removed"] == []


def test_two_scalers_of_a_fleet_do_not_make_twice_as_many(box: RunpodBox, scaler: Scaler) -> None:
    box.starts_pods = False
    words = [sys.executable, "-m", "comfypin.cli.main", "fleet", "scale", "--release", DEMO, "--image", IMAGE, "--yes"]
    loop = subprocess.Popen(
        [*words, "--queue", scaler.nats.address, "--pod-queue", scaler.nats.address, "--min", "1", "--every", "1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=client_environ(box, scaler.folder, **ACCESS),
    )
    try:
        assert loop.stdout is not None
        assert loop.stdout.readline().startswith("made pod")
        refused = scaler.scale("--once", "--yes", "--min", "2", code=1)
        assert "Another process does this" in refused.stderr
    finally:
        loop.terminate()
        assert loop.wait(30) == 0
    assert len(box.state["pods"]) == 1


def test_a_queue_that_pods_cannot_reach_is_refused(box: RunpodBox, scaler: Scaler) -> None:
    refused = scaler.command("scale", "--release", DEMO, "--image", IMAGE, "--once", "--yes", code=64)
    assert "--pod-queue" in refused.stderr
    assert box.writes == []


def test_without_consent_nothing_is_made(box: RunpodBox, scaler: Scaler) -> None:
    refused = scaler.scale("--once", "--min", "1", code=64)
    assert "--yes" in refused.stderr
    assert box.writes == []


def test_spot_pods_are_made_at_the_lowest_bid_and_never_above_ones_own(box: RunpodBox, scaler: Scaler) -> None:
    box.starts_pods = False
    too_dear = scaler.scale("--once", "--yes", "--min", "1", "--spot", "--bid", "0.1", code=70)
    assert "no place for a pod" in too_dear.stderr
    made = scaler.pass_json("--min", "1", "--spot")
    assert made["releases"][0]["price_per_hour"] == 0.2
    (pod,) = box.state["pods"].values()
    assert (pod["cost"], pod["gpu"]["id"]) == (0.2, "NVIDIA GeForce RTX 4090")
    # Somebody paid more: Runpod takes it away, and the next pass makes another one.
    pod["status"] = "EXITED"
    again = scaler.pass_json("--min", "1", "--spot")
    assert again["removed"] == [pod["id"]]
    assert len(again["made"]) == 1


@pytest.mark.soak
def test_a_roll_makes_pods_of_the_new_release_and_the_old_ones_leave(
    box: RunpodBox, scaler: Scaler, tmp_path: Path
) -> None:
    with serving_fleet(tmp_path / "serve", scaler.nats.address, environ=ACCESS) as server:
        (old,) = scaler.pass_json("--min", "1")["made"]
        box.wait_for_line(old["id"], "worker ready", within_s=180)
        lock = {"schema_version": 3, "version_name": "demo-2", "engine": {"kind": "embedded"}}
        (tmp_path / "new.lock.json").write_text(json.dumps(lock))
        scaler.command("roll", str(tmp_path / "new.lock.json"))
        # The scaler was told of the old release only: it has the new one's lock from the fleet.
        (new,) = scaler.pass_json("--min", "1")["made"]
        assert new["release_key"] != old["release_key"]
        until(lambda: list(box.state["pods"]) == [new["id"]])
        answer = server.post("/runsync", {"input": {"workflow": picture(1)}})
        assert answer["status"] == "COMPLETED", answer
        assert answer["output"]["release"] == "demo-2"

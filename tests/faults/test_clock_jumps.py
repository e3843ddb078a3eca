"""The wall clock jumps, an hour forward or a day back: no job, file or lease takes it for time that went by."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from comfypin.lease import Holder, lease_holder, try_acquire_lease
from comfypin.queue.webhook import TIMESTAMP_HEADER
from tests.conftest import ROOT
from tests.support.background import QuietHandler
from tests.support.jumping_clock import JumpingClock
from tests.support.server import Server, serving
from tests.support.workflows import picture, slow

pytestmark = [pytest.mark.needs("faketime"), pytest.mark.xdist_group("clock")]
HOUR, DAY = 3600, 86_400
# Back is what breaks more; forward is tried with the long tests.
JUMPS = [
    pytest.param(HOUR, id="an hour forward", marks=pytest.mark.soak),
    pytest.param(-DAY, id="a day back"),
]


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> JumpingClock:
    return JumpingClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, clock: JumpingClock) -> Iterator[Server]:
    """One for all tests: what one of them did to its clock must not matter to the next."""
    flags = ("--concurrency", "1", "--allow-private-inputs")
    with serving(tmp_path_factory.mktemp("serve"), *flags, environ=clock.variables) as running:
        yield running


@pytest.fixture(autouse=True)
def _the_right_time_at_first(clock: JumpingClock) -> None:
    clock.jump(0)


def job(workflow: object, **more: object) -> dict[str, object]:
    return {"input": {"workflow": workflow}, **more}


def begun(server: Server) -> str:
    """A job that runs for long enough, and has begun."""
    job_id = str(server.post("/run", job(slow(2_000)))["id"])
    while server.get(f"/status/{job_id}")["status"] == "IN_QUEUE":
        time.sleep(0.05)
    return job_id


@pytest.mark.parametrize("jump_s", JUMPS)
def test_a_jump_is_no_time_that_a_job_waited_or_ran(server: Server, clock: JumpingClock, jump_s: int) -> None:
    limits = {"ttl": 600_000, "executionTimeout": 600_000}
    running = str(server.post("/run", job(slow(250), policy=limits))["id"])
    waiting = str(server.post("/run", job(picture(1), policy=limits))["id"])
    while server.get(f"/status/{running}")["status"] == "IN_QUEUE":
        time.sleep(0.05)
    began_s = time.monotonic()
    clock.jump(jump_s)
    answers = [server.ended(job_id) for job_id in (running, waiting)]
    took_ms = (time.monotonic() - began_s + 10) * 1000
    assert [answer["status"] for answer in answers] == ["COMPLETED", "COMPLETED"]
    for answer in answers:
        assert 0 <= answer["delayTime"] <= took_ms
        assert 0 <= answer["executionTime"] <= took_ms
    assert answers[0]["executionTime"] > 0
    assert answers[1]["delayTime"] > 0


@pytest.mark.parametrize("jump_s", JUMPS)
def test_a_job_that_waits_longer_than_its_ttl_ends_whatever_the_clock_does(
    server: Server, clock: JumpingClock, jump_s: int
) -> None:
    running = begun(server)
    waiting = str(server.post("/run", job(picture(1), policy={"ttl": 6_000}))["id"])
    clock.jump(jump_s)
    assert server.get(f"/status/{waiting}")["status"] == "IN_QUEUE"
    assert server.ended(waiting, within_s=20)["status"] == "TIMED_OUT"
    server.post(f"/cancel/{running}")


@pytest.mark.parametrize("jump_s", JUMPS)
def test_jobs_of_before_a_jump_are_finished_once_by_the_next_server(
    server: Server, clock: JumpingClock, jump_s: int
) -> None:
    # Nobody knows how long the server was away: an hour's ttl is over after an hour's jump.
    limits = {"ttl": 7_200_000}
    jobs = [str(server.post("/run", job(slow(60), policy=limits))["id"]) for _ in range(3)]
    server.kill()
    clock.jump(jump_s)
    server.start()
    assert [server.ended(job_id)["status"] for job_id in jobs] == ["COMPLETED"] * 3


@pytest.mark.parametrize("jump_s", JUMPS)
def test_a_webhook_is_told_again_in_its_time_and_says_the_clocks(
    server: Server, clock: JumpingClock, jump_s: int
) -> None:
    heard: list[tuple[int, Any]] = []
    done = threading.Event()

    class Receiver(QuietHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append((int(self.headers[TIMESTAMP_HEADER]), body))
            if len(heard) == 1:
                clock.jump(jump_s)
            self.send_response(500 if len(heard) == 1 else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            if len(heard) == 2:
                done.set()

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, args=(0.05,), daemon=True).start()
        server.post("/run", job({}, webhook=f"http://127.0.0.1:{receiver.server_port}/"))
        assert done.wait(40)
        receiver.shutdown()
    assert abs(heard[1][0] - heard[0][0] - jump_s) < 60
    assert heard[0][1] == heard[1][1]
    assert heard[1][1]["status"] == "COMPLETED"


@pytest.mark.parametrize("jump_s", JUMPS)
def test_files_are_delivered_and_owed_for_no_time_that_did_not_go_by(
    tmp_path: Path, clock: JumpingClock, jump_s: int
) -> None:
    folder, bucket = tmp_path / "outputs", tmp_path / "bucket"
    folder.mkdir()
    words = [sys.executable, "-m", "comfypin.cli.main", "sync"]
    outbox = ["--outbox", str(tmp_path / "outbox")]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **clock.variables}
    syncing = subprocess.Popen(
        [*words, str(folder), f"file://{bucket}", *outbox], cwd=ROOT, env=environ, stderr=subprocess.PIPE
    )
    try:
        for number, ahead_s in enumerate([0, jump_s, 0, jump_s]):
            clock.jump(ahead_s)
            (folder / f"{number}.png").write_bytes(b"picture %d" % number)
            _wait_for(bucket, f"{number}.png")
        asked = subprocess.run(
            [*words, "status", str(folder), f"file://{bucket}", *outbox, "--json"],
            cwd=ROOT, env=environ, capture_output=True, check=False,
        )  # fmt: skip
        facts = json.loads(asked.stdout)
        assert (facts["done"], facts["pending"], facts["oldest_debt_s"]) == (4, 0, None)
    finally:
        clock.jump(0)
        syncing.terminate()
        _, said = syncing.communicate(timeout=30)
    assert syncing.returncode == 0, said.decode()
    assert b"Traceback" not in said


def _wait_for(bucket: Path, name: str) -> None:
    give_up_s = time.monotonic() + 30
    while not any(path.name == name for path in bucket.rglob("*.png")):
        assert time.monotonic() < give_up_s, f"{name} was not delivered"
        time.sleep(0.05)


HOLD = """
import sys, time
from pathlib import Path
from comfypin.lease import acquire_lease
with acquire_lease(Path(sys.argv[1]), purpose="hold it", ttl_s=2) as lease:
    print("held", flush=True)
    for line in sys.stdin:
        lease.check()
        print("still", flush=True)
"""


@pytest.mark.parametrize("jump_s", JUMPS)
def test_a_lease_is_kept_while_its_holders_clock_jumps(tmp_path: Path, clock: JumpingClock, jump_s: int) -> None:
    lease = tmp_path / "a.lease"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lease)],
        cwd=ROOT, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), **clock.variables},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        for ahead_s in (jump_s, 0, jump_s):
            clock.jump(ahead_s)
            for _ in range(4):
                time.sleep(0.2)
                assert isinstance(try_acquire_lease(lease, ttl_s=2), Holder)
            print("check", file=holder.stdin, flush=True)
            assert holder.stdout.readline() == "still\n"
    finally:
        holder.stdin.close()
        holder.wait(10)
    assert lease_holder(lease) is None

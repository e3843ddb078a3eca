"""A day of a server, a hundred times as fast, under faults at random: every accepted job ends once, nothing grows.

SOAK_SEED repeats a run, SOAK_S says how many seconds the long one takes (864), SOAK_JOBS how many jobs it sends
(10000).
The short one is the same code with each fault once.
"""

import contextlib
import json
import os
import random
import sqlite3
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.object_servers import ACCESS_KEY, SECRET_KEY, S3Server
from tests.support.server import Server, serving
from tests.support.server_faults import ServerFaults
from tests.support.server_gauges import Gauges, living_below, look, typical
from tests.support.server_load import Load, recovered_after_s
from tests.support.small_disk import SmallDisk, small_disk

pytestmark = pytest.mark.needs("unshare")

SPEED = 100
DAY_S = 86_400 / SPEED
# What a job may fail of while faults last: each says in a sentence which disk, bucket or engine it was.
_EXPLAINED = {
    "OutputNotWritten",
    "OutputUnreadable",
    "InputNotStaged",
    "NoTempFolder",
    "NodeFailed",
    "EngineCrashed",
    "EngineStartFailed",
    "PermissionMissing",
    "StoreBusy",
    "StoreUnreachable",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long a soak is, how many jobs it sends, how many slow clients come at once, how long faults may last."""

    soak_s: float
    jobs: int
    slow_clients: int
    longest_fault_s: float

    @property
    def warm_jobs(self) -> int:
        """Jobs after which a life of the server has what it will keep."""
        return self.jobs // 20


def a_seed() -> int:
    """Return the seed of this run, printed, so that it can be repeated: SOAK_SEED=N."""
    seed = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SOAK_SEED={seed}")
    return seed


class Soak:
    """A server on small disks with a bucket, its clients, its faults, and what was measured."""

    def __init__(self, plan: Plan, server: Server, disks: dict[str, SmallDisk], bucket: FaultProxy, seed: int) -> None:
        self.plan, self.server, self._disks = plan, server, disks
        self._dice = random.Random(seed)
        self.load = Load(server, random.Random(seed + 1), plan.jobs / plan.soak_s, bucket.url)
        self.faults = ServerFaults(server, disks, bucket, self._dice)
        self.faults.clients, self.faults.longest_s = plan.slow_clients, plan.longest_fault_s
        self.recoveries: defaultdict[str, list[float]] = defaultdict(list)
        self._began_s = time.monotonic()

    def run(self) -> tuple[Gauges, Gauges]:
        """Run the plan; returns the gauges of the server's last, longest life: after its warm-up and at its end."""
        plan, faults = self.plan, self.faults
        self._await_ended(plan.warm_jobs)
        self._meet(faults.restarts())
        self._meet(faults.all(), until_s=plan.soak_s / 3, jobs=plan.jobs // 3, each_once=False)
        faults.server_killed()
        self._await_ended(self.load.ended() + plan.warm_jobs)
        self._meet(faults.without_restarts())
        before = self._look()
        self._meet(faults.without_restarts(), until_s=plan.soak_s, jobs=plan.jobs, each_once=False)
        after = self._look()
        self.load.stop(120)
        return before, after

    def _meet(
        self, kinds: Sequence[Callable[[], float]], *, until_s: float = 0, jobs: int = 0, each_once: bool = True
    ) -> None:
        """Meet every kind once, in a random order; then any, until the time is over and the jobs have ended."""
        waiting = self._dice.sample(kinds, len(kinds)) if each_once else []
        while waiting or time.monotonic() < self._began_s + until_s or self.load.ended() < jobs:
            assert time.monotonic() < self._began_s + 3 * self.plan.soak_s + 120, f"{self.load.ended()} jobs ended"
            fault = waiting.pop() if waiting else self._dice.choice(kinds)
            name = getattr(fault, "__name__", "?")
            recovered_s = recovered_after_s(self.server, self.load, fault())
            self.recoveries[name].append(recovered_s)
            hours = (time.monotonic() - self._began_s) * SPEED / 3600
            print(f"{hours:5.2f} h: {name}, recovered after {recovered_s:.1f} s, {self.load.ended()} ended", flush=True)
            time.sleep(self._dice.random())

    def _look(self) -> Gauges:
        """Look at it a few times while it works."""
        looks = []
        for _ in range(9):
            looks.append(look(self.server, temp=self._disks["temp"].path, state=self._disks["state"].path))
            time.sleep(0.3)
        return typical(looks)

    def _await_ended(self, jobs: int) -> None:
        until = time.monotonic() + 120
        while self.load.ended() < jobs:
            assert time.monotonic() < until, f"{self.load.ended()} of {jobs} jobs ended"
            time.sleep(0.1)


@contextlib.contextmanager
def soaked(plan: Plan, tmp_path: Path, rclone: S3Server) -> Iterator[Soak]:
    seed = a_seed()
    with contextlib.ExitStack() as stack:
        sizes = {"state": 16, "outputs": 16 + plan.jobs // 100, "temp": 48}
        disks = {name: stack.enter_context(small_disk(tmp_path / name, size_mb=size)) for name, size in sizes.items()}
        for bucket in ("outputs", "own"):
            with contextlib.suppress(rclone.boto.exceptions.ClientError):
                rclone.boto.create_bucket(Bucket=bucket)
        proxy = stack.enter_context(fault_proxy(rclone.url))
        environ = {
            "TMPDIR": str(disks["temp"].path),
            "OUTPUT_MODE": "file",
            "S3_BUCKET": "outputs",
            "S3_ENDPOINT_URL": proxy.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        flags = ["--state-dir", str(disks["state"].path / "state"), "--keep-mb", "3", "--allow-private-inputs"]
        flags += ["--output-dir", str(disks["outputs"].path / "out")]
        server = stack.enter_context(serving(tmp_path, *flags, environ=environ, descriptors=1024))
        yield Soak(plan, server, disks, proxy, seed)


def soak(plan: Plan, tmp_path: Path, rclone: S3Server) -> None:
    """Run a soak, print what it showed, and judge it."""
    with soaked(plan, tmp_path, rclone) as life:
        before, after = life.run()
        server, load = life.server, life.load
        began_s = time.monotonic()
        assert server.stop() == 0
        life.faults.stop_s.append(time.monotonic() - began_s)
        log = server.log.read_text()
        _print(life, before, after, log)
        rows = _rows(tmp_path / "state")
        _require_each_ended_once(load, rows, log)
        _require_outputs_as_told(load, tmp_path / "outputs" / "out", rclone.objects("outputs"))
        _require_no_secret(tmp_path / "state")
        assert {sent.error_type for sent in load.jobs.values()} <= {"", *_EXPLAINED}
        assert "Traceback" not in log
        assert living_below(tmp_path) == []
        assert list((tmp_path / "temp").iterdir()) == []
    _require_flat(before, after)


def _print(life: Soak, before: Gauges, after: Gauges, log: str) -> None:
    print(f"{'fault':20} {'count':>5} {'median s':>9} {'max s':>6}")
    for name, seconds in sorted(life.recoveries.items()):
        print(f"{name:20} {len(seconds):5} {statistics.median(seconds):9.2f} {max(seconds):6.2f}")
    ends = life.faults.stop_s
    print(f"ended after SIGTERM in {statistics.median(ends):.1f} s (median), {max(ends):.1f} s (max)")
    print(f"pings without an answer while there were slow clients: {dict(life.faults.unanswered)}")
    jobs = life.load.jobs.values()
    print(f"jobs by end: {dict(Counter(sent.state for sent in jobs))}, by mode: {dict(Counter(s.mode for s in jobs))}")
    print(f"failures: {dict(Counter(sent.error_type for sent in jobs if sent.error_type))}")
    for kind in {sent.error_type for sent in jobs if sent.error_type}:
        print(f"  {kind}: {next(sent.error for sent in jobs if sent.error_type == kind)[:400]}")
    print(f"other answers by status (0: cut): {dict(life.load.answers)}")
    print(f"before: {before}\nafter:  {after}\nlog: {len(log) // 1024} kB")


def _rows(state: Path) -> dict[str, tuple[str, float | None]]:
    with contextlib.closing(sqlite3.connect(f"file:{state}/state/jobs.sqlite?mode=ro", uri=True)) as base:
        return {job_id: (state, ended) for job_id, state, ended in base.execute("SELECT id, state, ended_at FROM jobs")}


def _require_each_ended_once(load: Load, rows: dict[str, tuple[str, float | None]], log: str) -> None:
    told: Counter[str] = Counter(str(event["job_id"]) for event in _events(log) if event.get("action") == "job_ended")
    assert [job_id for job_id, times in told.items() if times > 1] == []
    assert {sent.state for sent in load.jobs.values()} <= {"COMPLETED", "FAILED"}
    # Also those whose clients were cut off before they heard that they were accepted.
    assert [job_id for job_id, (_, ended) in rows.items() if ended is None] == []
    kept = {job_id: rows[job_id][0] for job_id in load.jobs if job_id in rows}
    assert kept == {job_id: load.jobs[job_id].state for job_id in kept}, "a job's end changed"


def _events(log: str) -> Iterator[dict[str, Any]]:
    for line in log.splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                yield event


def _require_outputs_as_told(load: Load, folder: Path, bucket: dict[str, bytes]) -> None:
    """What was told to be delivered is there, once; nothing half, nothing temporary lies beside it."""
    completed = {job_id: sent.mode for job_id, sent in load.jobs.items() if sent.state == "COMPLETED"}
    files = {path.name: sorted(path.iterdir()) for path in folder.iterdir()}
    for job_id, mode in completed.items():
        if mode == "file":
            assert [path.suffix for path in files[job_id]] == [".png"], job_id
        elif mode == "s3":
            keys = [key for key in bucket if job_id in key]
            assert len(keys) == 2, (job_id, keys)
    lying = [path for paths in files.values() for path in paths]
    assert [path for path in lying if path.name.startswith(".") or path.stat().st_size == 0] == []


def _require_no_secret(state: Path) -> None:
    for path in state.rglob("*"):
        assert not path.is_file() or SECRET_KEY.encode() not in path.read_bytes(), path


def _require_flat(before: Gauges, after: Gauges) -> None:
    """Within one life of the server, from its warm-up to its end."""
    assert after.rss_kb < before.rss_kb * 1.15 + 15_000
    assert after.engine_rss_kb < before.engine_rss_kb * 1.15 + 15_000
    assert after.descriptors <= before.descriptors + 10
    assert after.processes <= before.processes
    assert after.temp_folders <= before.temp_folders + 2  # one of each job that runs
    assert after.temp_kb < before.temp_kb + 4_000
    # With --keep-mb 3: the results, and of each job that they are of its description, its outputs' list and indexes.
    assert after.state_kb < 18_000


@pytest.mark.timeout(400)
def test_a_server_outlives_each_fault_once(tmp_path: Path, rclone: S3Server) -> None:
    soak(Plan(soak_s=30, jobs=150, slow_clients=300, longest_fault_s=1), tmp_path, rclone)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_server_outlives_a_day_of_faults(tmp_path: Path, rclone: S3Server) -> None:
    soak_s, jobs = float(os.environ.get("SOAK_S", DAY_S)), int(os.environ.get("SOAK_JOBS", "10000"))
    soak(Plan(soak_s=soak_s, jobs=jobs, slow_clients=600, longest_fault_s=4), tmp_path, rclone)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_thousand_jobs_leave_the_disk_of_temporary_files_flat(tmp_path: Path) -> None:
    """Previews, outputs that go to another disk, and a cache that may report files again; no faults."""
    jobs = int(os.environ.get("SOAK_JOBS", "1000"))
    temp = tmp_path / "tmp"
    temp.mkdir()
    flags = ("--keep-mb", "3", "--output-dir", str(tmp_path / "out"))
    with serving(tmp_path, *flags, environ={"TMPDIR": str(temp)}) as server:
        load = Load(server, random.Random(a_seed()), 1000.0, bucket_url="", clients=8, bucket_share=0.0)
        looks = []
        for share in range(1, 11):
            while load.ended() < jobs * share // 10:
                time.sleep(0.05)
            looks.append(look(server, temp=temp, state=tmp_path / "state"))
            print(f"{load.ended():6} jobs: {looks[-1]}", flush=True)
        load.stop(120)
        assert {sent.state for sent in load.jobs.values()} == {"COMPLETED"}
        first, last = typical(looks[:3]), typical(looks[-3:])
        assert last.temp_kb < first.temp_kb + 1_000
        assert last.temp_folders <= first.temp_folders + 2
        assert last.engine_rss_kb < first.engine_rss_kb + 3_000, "its history, or its cache, grows"
        server.stop()
        assert list(temp.iterdir()) == []

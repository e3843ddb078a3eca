"""A long life of a server under faults at random: every accepted job ends once, and nothing grows.

SOAK_S says how many seconds the faults go on (300), FAULT_SEED repeats a run.
"""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import sqlite3
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.test_serve_clients import HALF_BODY, HALF_HEAD, many_clients
from tests.faults.test_serve_full_disk import a_seed
from tests.support.server import Server, serving
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.workflows import picture

pytestmark = [pytest.mark.soak, pytest.mark.needs("unshare"), pytest.mark.timeout(7200)]
_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
_CLIENTS = 6


class Clients:
    """Clients that each send a job, follow it to its end, and send the next, whatever happens to the server."""

    def __init__(self, server: Server) -> None:
        self.ends: dict[str, str] = {}
        self.open: set[str] = set()
        self.refusals: Counter[int] = Counter()
        self._server = server
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(number,), daemon=True) for number in range(_CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self, within_s: float) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(within_s)
        assert self.open == set(), "these never ended"

    def _live(self, number: int) -> None:
        while not self._stop.is_set():
            number = (number * 7919 + 1) % 4096
            status, answer = self._ask("POST", "/run", {"input": {"workflow": picture(number, size=16)}})
            if status != 200:
                time.sleep(0.2)
                continue
            job_id = str(answer["id"])
            self.open.add(job_id)
            while (state := self._ask("GET", f"/status/{job_id}")[1].get("status")) not in _ENDED:
                time.sleep(0.1)
            self.ends[job_id] = state
            self.open.discard(job_id)

    def _ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
        try:
            status, answer, _ = self._server.ask(method, path, body)
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
            return 0, {}
        self.refusals[status] += status != 200
        return status, answer if isinstance(answer, dict) else {}


class Faults:
    """What can happen to a server; each ends by itself."""

    def __init__(self, server: Server, disk: SmallDisk, dice: random.Random) -> None:
        self.server, self.disk, self.dice = server, disk, dice

    def disk_full(self) -> None:
        self.disk.fill()
        until = time.monotonic() + self.dice.uniform(0.5, 4)
        while time.monotonic() < until:
            self.disk.fill()
            time.sleep(0.1)
        self.disk.free()

    def server_killed(self) -> None:
        self.server.kill()
        self.server.start(ready=False)

    def engine_killed(self) -> None:
        assert self.server.process is not None
        for child in _children(self.server.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def slow_clients(self) -> None:
        with many_clients(self.server, self.dice.choice([b"", HALF_HEAD, HALF_BODY]), clients=600):
            for _ in range(5):
                assert self.server.ping() == 200, "slow clients made it deaf"
                time.sleep(0.2)

    def cut_sockets(self) -> None:
        for _ in range(50):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.server.port), 5) as cut:
                cut.sendall(self.dice.choice([HALF_HEAD, HALF_BODY, b"GET /health HTTP/1.1\r\n\r\n", b"\x00" * 100]))
                cut.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def large_json(self) -> None:
        body = b'{"input": [' + b"[]," * 15_000_000 + b"[]]}"
        with contextlib.suppress(OSError, http.client.HTTPException):
            assert self.server.ask("POST", "/run", body)[0] in (413, 503)


def _children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def _measured(server: Server, disk: SmallDisk) -> dict[str, int]:
    """What must stay flat. In kB, descriptors, folders, kB."""
    assert server.process is not None
    proc = Path(f"/proc/{server.process.pid}")
    lines = (proc / "status").read_text().splitlines()
    return {
        "rss_kb": next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")),
        "descriptors": len(list((proc / "fd").iterdir())),
        "temp_folders": len(list((server.home / "tmp").iterdir())),
        "state_kb": sum(path.stat().st_size for path in disk.files()) // 1024,
    }


def _recovered_s(server: Server) -> float:
    """How long it takes from now until the server is ready and a new job has ended well."""
    began_s = time.monotonic()
    while time.monotonic() < began_s + 120:
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, answer, _ = server.ask("POST", "/runsync", {"input": {"workflow": {}}})
            if status == 200 and answer.get("status") == "COMPLETED" and server.ping() == 200:
                return time.monotonic() - began_s
        time.sleep(0.1)
    pytest.fail(f"not recovered after 120 s:\n{server.log.read_text()[-3000:]}")


def test_a_server_outlives_faults_at_random(tmp_path: Path) -> None:
    dice = random.Random(a_seed())
    soak_s = float(os.environ.get("SOAK_S", "300"))
    (tmp_path / "tmp").mkdir()
    recoveries: defaultdict[str, list[float]] = defaultdict(list)
    with (
        small_disk(tmp_path / "disk", size_mb=16) as disk,
        serving(
            tmp_path,
            *("--state-dir", str(disk.path / "state"), "--keep-mb", "2"),
            environ={"TMPDIR": str(tmp_path / "tmp")},
            descriptors=1024,
        ) as server,
    ):
        clients = Clients(server)
        time.sleep(5)
        before = _measured(server, disk)
        faults = Faults(server, disk, dice)
        kinds: list[Callable[[], None]] = [
            faults.disk_full,
            faults.server_killed,
            faults.engine_killed,
            faults.slow_clients,
            faults.cut_sockets,
            faults.large_json,
        ]
        until = time.monotonic() + soak_s
        while time.monotonic() < until:
            fault = dice.choice(kinds)
            fault()
            recoveries[fault.__name__].append(_recovered_s(server))
            time.sleep(dice.random())
        clients.stop(120)
        time.sleep(3)
        after = _measured(server, disk)
        log = server.log.read_text()
        for name, seconds in sorted(recoveries.items()):
            median = statistics.median(seconds)
            print(f"{name}: {len(seconds)} times, recovered after {median:.1f} s (median), {max(seconds):.1f} s (most)")
        print(f"jobs by end: {dict(Counter(clients.ends.values()))}; refusals by status: {dict(clients.refusals)}")
        print(f"before: {before}\nafter: {after}; log {len(log) // 1024} kB")
        _require_each_ended_once(log, clients)
        with sqlite3.connect(f"file:{disk.path}/state/jobs.sqlite?mode=ro", uri=True) as base:
            assert base.execute("SELECT COUNT(*) FROM jobs WHERE ended_at IS NULL").fetchone() == (0,)
    assert after["rss_kb"] < before["rss_kb"] * 1.5 + 50_000
    assert after["descriptors"] <= before["descriptors"] + 10
    assert after["state_kb"] < 8_000
    assert "Traceback" not in log


def _require_each_ended_once(log: str, clients: Clients) -> None:
    told: Counter[str] = Counter()
    for line in log.splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and event.get("action") == "job_ended":
                told[str(event["job_id"])] += 1
    assert [job_id for job_id in clients.ends if told[job_id] > 1] == []
    assert set(clients.ends.values()) <= {"COMPLETED", "FAILED"}

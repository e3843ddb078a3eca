"""Kills in a fleet: of workers, of servers, of NATS. What was accepted ends, once."""

import collections
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.fleets import Worker, serving_fleet
from tests.support.nats_servers import nats_cluster
from tests.support.server import Server

JOB_S = 0.2
JOBS = 36


def test_every_accepted_job_ends_once_whatever_is_killed(tmp_path: Path) -> None:
    with nats_cluster(tmp_path) as nodes, contextlib.ExitStack() as stack:
        queue = ",".join(node.address for node in nodes)
        servers = [stack.enter_context(serving_fleet(tmp_path / f"serve{number}", queue)) for number in range(2)]
        workers = _Workers(tmp_path, queue)
        stack.callback(workers.kill_all)
        for _ in range(3):
            workers.start()
        workers.all_ready()
        accepted = [_send(servers, number) for number in range(JOBS // 3)]
        workers.kill_one()
        workers.start()
        accepted += [_send(servers, number) for number in range(JOBS // 3)]
        servers[0].kill()
        accepted += [_send(servers, number) for number in range(JOBS // 6)]
        nodes[0].kill()
        accepted += [_send(servers, number) for number in range(JOBS // 6)]
        nodes[0].start()
        servers[0].start()
        ends = _wait_for_ends(servers, accepted, within_s=240)
        assert collections.Counter(end["status"] for end in ends.values()) == {"COMPLETED": len(accepted)}
        assert len(set(accepted)) == len(accepted)
        assert _ended_twice(workers) == []


class _Workers:
    """Workers without an engine, by number."""

    def __init__(self, folder: Path, queue: str) -> None:
        self._folder = folder
        self._queue = queue
        self.all: list[Worker] = []

    def start(self) -> None:
        home = self._folder / f"worker{len(self.all)}"
        self.all.append(Worker(home, self._queue, job_s=JOB_S))

    def all_ready(self) -> None:
        for worker in self.all:
            worker.wait_for("worker_ready", within_s=120)

    def kill_one(self) -> None:
        next(worker for worker in self.all if worker.process.poll() is None).kill()

    def kill_all(self) -> None:
        for worker in self.all:
            worker.kill()

    def lines(self) -> Iterator[dict[str, Any]]:
        """What they logged."""
        for worker in self.all:
            for line in worker.log.read_text().splitlines():
                with contextlib.suppress(ValueError):
                    yield json.loads(line)


def _send(servers: list[Server], number: int) -> str:
    """Send a job to whichever server takes it; its id."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for server in (servers[number % 2], servers[1 - number % 2]):
            with contextlib.suppress(OSError):
                status, answer, _ = server.ask("POST", "/run", {"input": {"number": number}})
                if status == 200:
                    return str(answer["id"])
        time.sleep(0.2)
    raise AssertionError("no server took the job")


def _wait_for_ends(servers: list[Server], accepted: list[str], *, within_s: float) -> dict[str, Any]:
    ends: dict[str, Any] = {}
    deadline = time.monotonic() + within_s
    while len(ends) < len(accepted):
        assert time.monotonic() < deadline, f"{len(accepted) - len(ends)} of {len(accepted)} have not ended"
        for job_id in accepted:
            if job_id in ends:
                continue
            status, answer, _ = servers[1].ask("GET", f"/status/{job_id}")
            if status == 200 and answer["status"] not in ("IN_QUEUE", "IN_PROGRESS"):
                ends[job_id] = answer
        time.sleep(0.5)
    return ends


def _ended_twice(workers: _Workers) -> list[str]:
    ended = collections.Counter(
        line["job_id"]
        for line in workers.lines()
        if line.get("action") == "job_ended" and line.get("message") == "job ended"
    )
    return [job_id for job_id, count in ended.items() if count > 1]

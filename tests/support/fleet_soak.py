"""A fleet under load and faults, and the judge of what became of its jobs.

Servers and workers are processes, NATS is a cluster of three; with `networks` each node, and half of the workers, have
a cable that can be pulled.
"""

import asyncio
import collections
import contextlib
import http.client
import http.server
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfypin.queue.nats import names
from comfypin.queue.nats.connection import parse_queue_address
from comfypin.queue.nats.fleet import open_fleet
from comfypin.queue.nats.fleet_job import FleetJob
from comfypin.settings.fleet import FleetSettings
from tests.support.fleets import Worker, serving_fleet
from tests.support.nats_servers import NatsServer, nats_cluster
from tests.support.networks import Cable, network
from tests.support.server import Server
from tests.support.workflows import picture


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a soak sends and how. Without `job_s` the workers have the embedded engine; with it jobs only take that.

    `cut_s` is for how long a cable stays pulled, `urgent_within_s` how long an urgent job may wait while others begin.
    """

    jobs: int
    first_jobs: int
    workers: int
    jobs_per_s: float
    cut_s: float
    urgent_within_s: float
    job_s: float | None = None


@dataclass
class Sent:
    """What clients sent and what they were told: the ids of accepted jobs by number."""

    accepted: dict[int, str] = field(default_factory=dict)
    refusals: collections.Counter[str] = field(default_factory=collections.Counter)
    told: collections.Counter[str] = field(default_factory=collections.Counter)
    """How often the webhook of a job was told of its end."""


class FleetSoak:
    """A fleet of two servers and some workers."""

    def __init__(
        self, folder: Path, plan: Plan, nodes: list[NatsServer], servers: list[Server], cables: list[Cable]
    ) -> None:
        self.plan = plan
        self.nodes = nodes
        self.servers = servers
        self.sent = Sent()
        self.workers: list[Worker] = []
        self.faults: list[tuple[str, float]] = []
        self._folder = folder
        self._queue = ",".join(node.address for node in nodes)
        self._node_cables = cables[: len(nodes)]
        self._far = cables[len(nodes) :]
        self._dice = random.Random(24)
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._senders: list[threading.Thread] = []
        self._hook = _receiver(self.sent)

    # -- load ---------------------------------------------------------------------------------------------------------

    def send(self, count: int) -> None:
        """Send some jobs at once."""
        for _ in range(count):
            self._send(next(self._numbers))

    def begin_load(self) -> None:
        """Send the other jobs at the plan's pace."""
        for _ in range(4):
            sender = threading.Thread(target=self._send_paced, daemon=True)
            sender.start()
            self._senders.append(sender)

    def finish_load(self, within_s: float) -> None:
        """Wait until all jobs were accepted."""
        deadline = time.monotonic() + within_s
        for sender in self._senders:
            sender.join(max(0.1, deadline - time.monotonic()))
        assert len(self.sent.accepted) == self.plan.jobs, f"{len(self.sent.accepted)} jobs were accepted"

    def _send_paced(self) -> None:
        while not self._stop.is_set() and (number := next(self._numbers)) < self.plan.jobs:
            began_s = time.monotonic()
            self._send(number)
            self._stop.wait(max(0.0, 4 / self.plan.jobs_per_s - (time.monotonic() - began_s)))

    def _send(self, number: int) -> None:
        body: dict[str, Any] = {"input": {"workflow": picture(number)}}
        if number % 4 == 0:
            body["policy"] = {"priority": "high"}
        if number % 20 == 0:
            body["webhook"] = f"http://127.0.0.1:{self._hook.server_port}/"
        for attempt in itertools.count():
            if self._stop.is_set():
                return
            server = self.servers[(number + attempt) % len(self.servers)]
            try:
                status, answer, _ = server.ask("POST", "/run", body)
            except (OSError, http.client.HTTPException) as exc:
                reason = type(exc).__name__
            else:
                if status == 200:
                    with self._lock:
                        self.sent.accepted[number] = str(answer["id"])
                    return
                reason = f"{status} {answer}"
            self.sent.refusals[reason[:150]] += 1
            self._stop.wait(0.3)

    # -- members ------------------------------------------------------------------------------------------------------

    def start_worker(self) -> Worker:
        """Start a worker; every second one at the end of a cable, if there is one."""
        number = len(self.workers)
        prefix = self._far[0].prefix if self._far and number % 2 else ()
        home = self._folder / f"worker{number}"
        flags = () if self.plan.job_s is not None else ("--grace", "5")
        worker = Worker(home, self._queue, *flags, job_s=self.plan.job_s, prefix=prefix)
        self.workers.append(worker)
        return worker

    def start_workers(self) -> None:
        """Start all workers of the plan."""
        for worker in [self.start_worker() for _ in range(self.plan.workers)]:
            worker.wait_for("worker_ready", within_s=180)

    def worker_killed(self) -> None:
        """Kill a worker that runs a job, and start another one."""
        for _ in range(1000):
            busy = [worker for worker in self.workers if worker.process.poll() is None and _is_busy(worker)]
            if busy:
                break
            time.sleep(0.01)
        self._dice.choice(busy).kill()
        self.start_worker()

    def server_killed(self, number: int) -> None:
        """Kill a server, and start it again later."""
        self.servers[number].kill()
        time.sleep(2)
        self.servers[number].start()

    def node_killed(self, number: int) -> None:
        """Kill a node of NATS, and start it again later."""
        self.nodes[number].kill()
        time.sleep(3)
        self.nodes[number].start()
        self.nodes[number].wait_until_ready(60)

    def leader(self) -> int:
        """The number of the node that leads the tickets."""
        for _ in range(300):
            for number, node in enumerate(self.nodes):
                with contextlib.suppress(OSError, KeyError):
                    if node.leads(names.JOBS_STREAM):
                        return number
            time.sleep(0.1)
        raise AssertionError("the tickets have no leader")

    def cut(self, cables: Sequence[Cable]) -> None:
        """Pull cables for a while."""
        for cable in cables:
            cable.pull()
        time.sleep(self.plan.cut_s)
        for cable in cables:
            cable.plug()

    def meet(self, name: str, fault: Callable[[], None]) -> None:
        """Meet a fault, and wait until jobs end again."""
        accepted = len(self.sent.accepted)
        fault()
        began_s, ended = time.monotonic(), self.ended_count()
        while self.ended_count() < min(ended + 5, self.plan.jobs):
            assert time.monotonic() < began_s + 120, f"no job ends after: {name}"
            time.sleep(0.2)
        took_s = time.monotonic() - began_s
        self.faults.append((name, took_s))
        print(
            f"{name}: jobs end again after {took_s:.1f} s; {accepted} accepted before it, {len(self.sent.accepted)} "
            f"after, {self.ended_count()} ended; refused so far {dict(self.sent.refusals)}",
            flush=True,
        )

    def meet_all(self, *, workers: int) -> None:
        """Meet each kind of fault: so many workers die, each server, each node, the leader, and cables are pulled."""
        for _ in range(workers):
            self.meet("worker killed", self.worker_killed)
        for number in range(len(self.servers)):
            self.meet(f"server {number} killed", lambda number=number: self.server_killed(number))  # type: ignore[misc]
        for number in range(len(self.nodes)):
            self.meet(f"node {number} killed", lambda number=number: self.node_killed(number))  # type: ignore[misc]
        self.meet("leader killed", lambda: self.node_killed(self.leader()))
        self.meet_cuts()

    def meet_cuts(self) -> None:
        """Meet all cuts that this machine can make."""
        if not self._node_cables:
            return
        follower = (self.leader() + 1) % len(self.nodes)
        self.meet("a follower cut off", lambda: self.cut([self._node_cables[follower]]))
        self.meet("the leader cut off", lambda: self.cut([self._node_cables[self.leader()]]))
        self.meet("half of the workers cut off", lambda: self.cut(self._far))
        self.meet("every node cut off", lambda: self.cut(self._node_cables))

    def stop(self) -> None:
        """End all that this has started."""
        self._stop.set()
        for worker in self.workers:
            worker.kill()
        self._hook.shutdown()

    # -- what became of it --------------------------------------------------------------------------------------------

    def lines(self) -> Iterator[dict[str, Any]]:
        """What the workers logged."""
        for worker in self.workers:
            for line in worker.log.read_text().splitlines():
                with contextlib.suppress(ValueError):
                    yield json.loads(line)

    def ended_count(self) -> int:
        """How many jobs have ended, by the workers' logs."""
        return sum(worker.log.read_text().count('"job ended"') for worker in self.workers)

    def wait_for_ends(self, within_s: float) -> dict[str, FleetJob]:
        """The records of all jobs once those that were accepted have ended."""
        deadline = time.monotonic() + within_s
        while True:
            records = asyncio.run(self._read_records())
            left = [one for one in self.sent.accepted.values() if one not in records or not records[one].has_ended]
            if not left:
                return records
            assert time.monotonic() < deadline, f"{len(left)} of {len(self.sent.accepted)} have not ended: {left[:5]}"
            time.sleep(1)

    async def _read_records(self) -> dict[str, FleetJob]:
        async with open_fleet(parse_queue_address(self._queue), FleetSettings(), client_name="test") as fleet:
            keys = await fleet.states.bucket.keys()
            kept = await asyncio.gather(*map(fleet.states.read, keys))
        return {one.job.row.id: one.job for one in kept if one is not None}

    async def read_leavings(self) -> tuple[set[str], set[str]]:
        """The tickets and the bodies that there are."""
        async with open_fleet(parse_queue_address(self._queue), FleetSettings(), client_name="test") as fleet:
            return await fleet.tickets.subjects(), set(await fleet.bodies.keys())


def _is_busy(worker: Worker) -> bool:
    text = worker.log.read_text()
    return text.count('"job started"') > text.count('"job ended"')


class _Receiver(http.server.ThreadingHTTPServer):
    request_queue_size = 256


def _receiver(sent: Sent) -> _Receiver:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sent.told[told["id"]] += 1
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = _Receiver(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@contextlib.contextmanager
def fleet_soak(folder: Path, plan: Plan, *, networks: bool, module: str = "comfypin.cli.main") -> Iterator[FleetSoak]:
    """A fleet whose servers are ready; workers are started by the test."""
    with contextlib.ExitStack() as stack:
        cables: list[Cable] = []
        if networks:
            _, cables = stack.enter_context(network(4))
        nodes = stack.enter_context(nats_cluster(folder, cables=cables[:3]))
        queue = ",".join(node.address for node in nodes)
        servers = [
            stack.enter_context(
                serving_fleet(folder / f"serve{number}", queue, "--allow-private-inputs", module=module)
            )
            for number in range(2)
        ]
        soak = FleetSoak(folder, plan, nodes, servers, cables)
        stack.callback(soak.stop)
        yield soak


@dataclass(frozen=True, kw_only=True)
class Start:
    """The first start of a job. Times in seconds since 1970."""

    created_at: float
    started_at: float
    number: int


def first_starts(lines: Iterator[dict[str, Any]], records: dict[str, FleetJob]) -> dict[str, Start]:
    """When each job began for the first time, by job."""
    return {
        job_id: Start(
            created_at=records[job_id].row.created_at,
            started_at=records[job_id].row.created_at + line["waited_s"],
            number=records[job_id].number,
        )
        for line in lines
        if line.get("action") == "job_started" and line["attempt"] == 1 and (job_id := line["job_id"]) in records
    }


def longest_passed_by_s(starts: dict[str, Start], records: dict[str, FleetJob]) -> float:
    """For how long an urgent job waited, at most, and saw a job begin that was not urgent."""
    urgent = [start for job_id, start in starts.items() if records[job_id].row.priority == "high"]
    longest_s = 0.0
    for job_id, start in starts.items():
        if records[job_id].row.priority == "high":
            continue
        passed = [one.created_at for one in urgent if one.created_at < start.started_at < one.started_at]
        longest_s = max(longest_s, start.started_at - min(passed, default=start.started_at))
    return longest_s


def furthest_out_of_order(starts: Sequence[Start]) -> int:
    """How many places a job began, at most, before or after its place in the order of arrival."""
    arrived = sorted(starts, key=lambda start: start.number)
    begun = {id(start): place for place, start in enumerate(sorted(starts, key=lambda start: start.started_at))}
    return max((abs(place - begun[id(start)]) for place, start in enumerate(arrived)), default=0)

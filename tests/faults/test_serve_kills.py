"""kill -9 of a server under load: every accepted job ends exactly once, none is lost."""

import contextlib
import http.client
import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.server import Server, serving
from tests.support.workflows import picture


class Clients:
    """Threads that send jobs until all were accepted; what was accepted is noted after the answer alone."""

    def __init__(self, server: Server, *, clients: int, jobs: int) -> None:
        self.accepted: list[str] = []
        self._server = server
        self._left = iter(range(jobs))
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(clients)]
        self.unexpected: list[object] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))
            assert not thread.is_alive(), "clients were not served"

    def _next(self) -> int | None:
        with self._lock:
            return next(self._left, None)

    def _send(self) -> None:
        while (number := self._next()) is not None:
            body = {"input": {"workflow": picture(number % 4096, size=16)}}
            while True:
                try:
                    status, answer, _ = self._server.ask("POST", "/run", body)
                except (OSError, http.client.HTTPException):
                    time.sleep(0.1)  # the server was killed: whether this one was accepted, nobody knows
                    continue
                if status == 200:
                    self.accepted.append(answer["id"])
                    break
                if status != 429:
                    self.unexpected.append((status, answer))
                    return
                time.sleep(2)  # a full queue; asking again at once would only keep the server busy


def load_and_kill(tmp_path: Path, *, clients: int, jobs: int, kills: int, within_s: float) -> None:
    with serving(tmp_path, "--max-waiting", "1000") as server:
        load = Clients(server, clients=clients, jobs=jobs)
        load.start()
        for kill in range(1, kills + 1):
            _wait_until(lambda share=kill: len(load.accepted) >= jobs * share // (kills + 1), within_s)  # type: ignore[misc]
            server.kill()
            server.start(ready=False)
        load.join(within_s)
        assert load.unexpected == []
        _wait_until(lambda: _open_jobs(server) == 0, within_s)
        base = sqlite3.connect(f"file:{tmp_path}/state/jobs.sqlite?mode=ro", uri=True)
        states = dict(base.execute("SELECT id, state FROM jobs").fetchall())
        assert len(set(load.accepted)) == len(load.accepted) == jobs
        assert Counter(states[job_id] for job_id in load.accepted) == {"COMPLETED": jobs}
        delivered = {path.name for path in server.outputs.iterdir()}
        assert set(load.accepted) <= delivered
        assert all(len(list((server.outputs / job_id).iterdir())) == 1 for job_id in load.accepted)


def _open_jobs(server: Server) -> int:
    jobs = server.get("/health")["jobs"]
    return int(jobs["inQueue"] + jobs["inProgress"])


def _wait_until(reached: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_jobs_survive_a_kill(tmp_path: Path) -> None:
    load_and_kill(tmp_path, clients=8, jobs=60, kills=1, within_s=100)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_two_thousand_jobs_of_two_hundred_clients_survive_three_kills(tmp_path: Path) -> None:
    load_and_kill(tmp_path, clients=200, jobs=2000, kills=3, within_s=900)


def test_a_webhook_is_told_of_a_job_in_order_though_the_server_is_killed(tmp_path: Path) -> None:
    with receiving() as receiver, serving(tmp_path, "--allow-private-inputs") as server:
        receiver.is_deaf = True
        taken = server.post("/run", {"input": {"workflow": picture(1)}, "webhook": receiver.url, **EVENTS})
        assert server.ended(taken["id"])["status"] == "COMPLETED"
        _wait_until(lambda: receiver.asked > 0, 30)
        server.kill()
        receiver.is_deaf = False
        server.start(ready=False)
        _wait_until(lambda: "COMPLETED" in receiver.names, 30)
        assert [name for name in receiver.names if name != "progress"] == ["started", "output", "COMPLETED"]
        assert receiver.sequence == sorted(set(receiver.sequence))
        assert server.get("/webhooks") == {"failed": [], "next": None, "waiting": []}
        assert server.ask("POST", "/webhooks/7/retry")[0] == 409


EVENTS = {"webhook_events": ["completed", "output", "progress", "started"]}


class Receiver:
    """What a webhook was told; a deaf one answers 500."""

    def __init__(self) -> None:
        self.url = ""
        self.is_deaf = False
        self.asked = 0
        self.names: list[str] = []
        self.sequence: list[int] = []

    def take(self, body: bytes) -> int:
        self.asked += 1
        if self.is_deaf:
            return 500
        document = json.loads(body)
        events = document.get("events", [])
        self.names += [event["event"] for event in events] or [document["status"]]
        self.sequence += [event["sequence"] for event in events]
        return 200


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            pass

        def do_POST(self) -> None:
            self.send_response(receiver.take(self.rfile.read(int(self.headers["Content-Length"]))))
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        receiver.url = f"http://127.0.0.1:{listening.server_port}/hook"
        threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True).start()
        yield receiver
        listening.shutdown()

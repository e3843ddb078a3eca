"""Clients of a server that send jobs at a given pace and follow each to its end, whatever happens to the server."""

import contextlib
import http.client
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.support.object_servers import ACCESS_KEY, SECRET_KEY
from tests.support.server import Server
from tests.support.workflows import picture, slow

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
_LOOK_AGAIN_S = 0.3


@dataclass(slots=True)
class Sent:
    """What a client knows of a job: where its outputs should go, how it ended, and why, if it failed."""

    mode: str
    state: str = ""
    error_type: str = ""
    error: str = ""


@dataclass
class Load:
    """Jobs at `jobs_per_s`, of `clients` at once; those that wait for the server are sent as soon as it takes them."""

    server: Server
    dice: random.Random
    jobs_per_s: float
    bucket_url: str
    clients: int = 16
    bucket_share: float = 0.12
    jobs: dict[str, Sent] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._turn = threading.Lock()
        self._next_s = time.monotonic()
        self._threads = [threading.Thread(target=self._live, daemon=True) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()

    @property
    def open(self) -> list[str]:
        return [job_id for job_id, sent in list(self.jobs.items()) if not sent.state]

    def ended(self) -> int:
        return sum(bool(sent.state) for sent in list(self.jobs.values()))

    def stop(self, within_s: float) -> None:
        """Send no more, and wait until all that was accepted has ended."""
        self._stopping.set()
        until = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0, until - time.monotonic()))
        assert self.open == [], "these never ended"

    def note(self, answer: Any, mode: str = "file") -> str:
        """Take note of a job that the server has accepted."""
        job_id = str(answer["id"])
        self.jobs[job_id] = Sent(mode)
        return job_id

    def note_end(self, job_id: str, answer: Any) -> None:
        """Take note of the end that a client was told."""
        sent = self.jobs[job_id]
        output = answer.get("output") if isinstance(answer.get("output"), dict) else {}
        sent.error_type, sent.error = str(output.get("error_type", "")), str(output.get("error", ""))
        sent.state = str(answer["status"])

    def _live(self) -> None:
        while self._await_turn():
            mode, body = self._a_job()
            status, answer = self._ask("POST", "/run", body)
            while status != 200 and not self._stopping.is_set():
                time.sleep(0.3)
                status, answer = self._ask("POST", "/run", body)
            if status == 200:
                self._follow(self.note(answer, mode))

    def _follow(self, job_id: str) -> None:
        while True:
            status, answer = self._ask("GET", f"/status/{job_id}")
            if status == 404:
                answer = {"status": "UNKNOWN"}
            if status == 404 or answer.get("status") in ENDED:
                return self.note_end(job_id, answer)
            time.sleep(_LOOK_AGAIN_S)

    def _await_turn(self) -> bool:
        with self._turn:
            pause_s = max(0.0, self._next_s - time.monotonic())
            stopping = self._stopping.wait(pause_s)
            # What could not be sent in time is caught up with, but not without end.
            self._next_s = max(self._next_s + self.dice.expovariate(self.jobs_per_s), time.monotonic() - 30)
            return not stopping

    def _a_job(self) -> tuple[str, dict[str, Any]]:
        with self._turn:
            number, kind = self.dice.randrange(4096), self.dice.random()
        workflow = slow(3) if kind > 0.97 else picture(number, size=16)
        workflow["9"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
        if kind < self.bucket_share / 6:  # brings its own bucket and its secrets
            config = {
                "accessId": ACCESS_KEY,
                "accessSecret": SECRET_KEY,
                "bucketName": "own",
                "endpointUrl": self.bucket_url,
            }
            return "own", {"input": {"workflow": workflow}, "s3Config": config}
        mode = "s3" if kind < self.bucket_share else "file"
        return mode, {"input": {"workflow": workflow, "output": {"mode": mode}}}

    def _ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        try:
            status, answer, _ = self.server.ask(method, path, body)
        except (OSError, http.client.HTTPException):
            status, answer = 0, {}
        if status != 200:
            self.answers[status] += 1
            time.sleep(0.1)
        return status, answer if isinstance(answer, dict) else {}


def recovered_after_s(server: Server, load: Load, since_s: float, *, within_s: float = 120) -> float:
    """Return how long after `since_s` the server was ready and a new job had ended well."""
    while time.monotonic() < since_s + within_s:
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, answer, _ = server.ask("POST", "/runsync", {"input": {"workflow": {}, "output": {"mode": "file"}}})
            if status == 200:
                job_id = load.note(answer)
                while answer.get("status") not in ENDED and time.monotonic() < since_s + within_s:
                    time.sleep(0.1)
                    with contextlib.suppress(OSError, http.client.HTTPException):
                        status, answer, _ = server.ask("GET", f"/status/{job_id}")
                load.note_end(job_id, answer)
                if answer.get("status") == "COMPLETED" and server.ping() == 200:
                    return time.monotonic() - since_s
        time.sleep(0.1)
    raise AssertionError(f"not recovered after {within_s} s:\n{server.log.read_text()[-3000:]}")

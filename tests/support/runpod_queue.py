"""A queue as Runpod's SDK asks it: take, stop, ping, done, stream; with a worker in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

from tests.conftest import ROOT

RESULT_LIMIT = 10_000_000


class RunpodQueue:
    """Jobs go in by `put`; `wait` gives a job's final answer; `posts` has every answer in order, progress too."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._stops: SimpleQueue[str] = SimpleQueue()
        self.posts: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.takes: list[str] = []
        self.finished_at: dict[str, float] = {}
        self._lock = Lock()
        queue = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_args: object) -> None:
                pass

            def do_GET(self) -> None:
                parts = urllib.parse.urlsplit(self.path)
                if "/job-stop/" in parts.path:
                    self._send({"jobsToStop": queue.stops()})
                elif "/job-take" in parts.path:
                    queue.takes.append(self.path)
                    size = int(urllib.parse.parse_qs(parts.query).get("batch_size", ["1"])[0])
                    jobs = queue.take(size)
                    body: object = jobs if "job-take-batch" in parts.path else (jobs[0] if jobs else None)
                    self._send(body if jobs else None)
                else:
                    self._send({})

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                job_id = urllib.parse.urlsplit(self.path).path.rpartition("/")[2].partition("&")[0]
                queue.answer(job_id, json.loads(raw))
                self._send({})

            def _send(self, body: object) -> None:
                data = b"" if body is None else json.dumps(body).encode()
                self.send_response(204 if body is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @contextmanager
    def running(self) -> Iterator["RunpodQueue"]:
        thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def put(self, job_id: str, job_input: object, **more: Any) -> None:
        self._jobs.put({"id": job_id, "input": job_input, **more})

    def cancel(self, job_id: str) -> None:
        self._stops.put(job_id)

    def take(self, count: int) -> list[dict[str, Any]]:
        jobs = []
        try:
            jobs.append(self._jobs.get(timeout=0.5))
            while len(jobs) < count:
                jobs.append(self._jobs.get_nowait())
        except Empty:
            pass
        return jobs

    def stops(self) -> list[str]:
        try:
            return [self._stops.get(timeout=0.5)]
        except Empty:
            return []

    def answer(self, job_id: str, answer: dict[str, Any]) -> None:
        with self._lock:
            self.posts[job_id].append(answer)
            if answer.get("status") != "IN_PROGRESS":
                self.finished_at[job_id] = time.monotonic()

    def final(self, job_id: str) -> dict[str, Any] | None:
        return next((post for post in self.posts[job_id] if post.get("status") != "IN_PROGRESS"), None)

    def wait(self, job_id: str, *, within_s: float = 60) -> dict[str, Any]:
        deadline = time.monotonic() + within_s
        while (final := self.final(job_id)) is None:
            assert time.monotonic() < deadline, f"{job_id} has no answer"
            time.sleep(0.02)
        return final


@contextmanager
def worker(
    queue: RunpodQueue, *flags: str, environ: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator["subprocess.Popen[bytes]"]:
    """`comfypin worker` on the demo release, fed by the queue; its whole process group is ended."""
    with tempfile.TemporaryDirectory() as home, Path(home, "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "comfypin.cli.main", "worker", "--lock", "demo", *flags],
            cwd=cwd,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD", "OUTPUT"))},
                "HOME": home,
                "RUNPOD_WEBHOOK_GET_JOB": f"{queue.url}/v2/ep/job-take/$ID?gpu=none",
                "RUNPOD_WEBHOOK_POST_OUTPUT": f"{queue.url}/v2/ep/job-done/$RUNPOD_POD_ID/$ID",
                "RUNPOD_WEBHOOK_POST_STREAM": f"{queue.url}/v2/ep/job-stream/$RUNPOD_POD_ID/$ID",
                "RUNPOD_WEBHOOK_PING": f"{queue.url}/v2/ep/ping/$RUNPOD_POD_ID",
                "RUNPOD_AI_API_KEY": "test",
                "RUNPOD_POD_ID": "pod1",
                "RUNPOD_ENDPOINT_ID": "ep",
                "RUNPOD_PING_INTERVAL": "60000",
                "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
                "RUNPOD_SKIP_GPU_CHECK": "true",
                **(environ or {}),
            },
        )
        process.log = Path(home, "log")  # type: ignore[attr-defined]
        try:
            yield process
        finally:
            try:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()

"""`comfypin serve` on the demo release, in a process of its own, and a small client for it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

TOKEN = "test-token"


class Server:
    """A running server; `start` may be called again after `kill`, on the same state and port."""

    def __init__(
        self,
        home: Path,
        flags: tuple[str, ...],
        environ: Mapping[str, str],
        *,
        descriptors: int | None = None,
        module: str = "comfypin.cli.main",
        lock: str | None = "demo",
    ) -> None:
        self.home = home
        self._lock_flags = () if lock is None else ("--lock", lock)
        self._module = module
        self._limit = [] if descriptors is None else ["prlimit", f"--nofile={descriptors}"]
        self.log = home / "log"
        self.outputs = home / "outputs"
        self._flags = flags
        self._environ = dict(environ)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def add_flags(self, *flags: str) -> None:
        """Add flags that name the server's own address, before its start."""
        self._flags = (*self._flags, *flags)

    def start(self, *, ready: bool = True) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD", "OUTPUT", "GCS"))}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self._limit,
                    *(sys.executable, "-m", self._module, "serve", *self._lock_flags, "--port", str(self.port)),
                    *("--output-dir", str(self.outputs), "--state-dir", str(self.home / "state"), *self._flags),
                ],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**kept, "HOME": str(self.home), "COMFYPIN_TOKEN": TOKEN, **self._environ},
            )
        deadline = time.monotonic() + 180  # the machine may be at work on much else
        while self.ping() != 200 if ready else self.ping() is None:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def ping(self) -> int | None:
        try:
            with urllib.request.urlopen(f"{self.url}/ping", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def kill(self) -> None:
        """SIGKILL to the server alone, as the kernel does; its engine notices by itself."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)

    def ask(
        self, method: str, path: str, body: object = None, *, token: str | None = TOKEN, **headers: str
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, body (as JSON where it is) and headers of an answer."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, _parsed(answer.read()), dict(answer.headers.items())
        except urllib.error.HTTPError as error:
            return error.code, _parsed(error.read()), dict(error.headers.items())

    def get(self, path: str) -> Any:
        status, body, _ = self.ask("GET", path)
        assert status == 200, (path, status, body)
        return body

    def get_bytes(self, path: str) -> bytes:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())

    def post(self, path: str, body: object = None) -> Any:
        status, answer, _ = self.ask("POST", path, body if body is not None else {})
        assert status == 200, (path, status, answer)
        return answer

    def ended(self, job_id: str, *, within_s: float = 60) -> Any:
        deadline = time.monotonic() + within_s
        while (answer := self.get(f"/status/{job_id}"))["status"] in ("IN_QUEUE", "IN_PROGRESS"):
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)
        return answer


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body


@contextlib.contextmanager
def serving(
    home: Path,
    *flags: str,
    environ: Mapping[str, str] | None = None,
    ready: bool = True,
    descriptors: int | None = None,
    lock: str | None = "demo",
) -> Iterator[Server]:
    """A server that is ended, with its process group, when the block ends. `descriptors`: as by `ulimit -n`."""
    server = Server(home, flags, environ or {}, descriptors=descriptors, lock=lock)
    groups = []
    try:
        server.start(ready=ready)
        assert server.process is not None
        groups.append(server.process.pid)
        yield server
    finally:
        if server.process is not None:
            groups.append(server.process.pid)
            server.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.wait(30)
        for group in set(groups):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

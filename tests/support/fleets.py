"""A fleet on this machine: servers with `--queue`, and workers of the demo release on the embedded engine."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.conftest import ROOT
from tests.support.server import Server


class Worker:
    """`comfypin worker --queue` in a process of its own."""

    def __init__(
        self,
        home: Path,
        queue: str,
        *flags: str,
        environ: Mapping[str, str] | None = None,
        job_s: float | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """Start it; with `job_s` without an engine, on jobs that take so long."""
        home.mkdir(parents=True, exist_ok=True)
        command = ["comfypin.cli.main", "worker", "--release", "demo", "--queue", queue, "--json", *flags]
        if job_s is not None:
            command = ["tests.support.fleet_worker_process", queue, str(job_s)]
        self.log = home / "log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD", "OUTPUT", "GCS"))}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", *command],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**kept, "HOME": str(home), **(environ or {})},
            )

    def wait_for(self, action: str, within_s: float = 60) -> None:
        """Wait until its log tells of an action."""
        deadline = time.monotonic() + within_s
        while f'"{action}"' not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL to the worker alone, as the kernel does; its engine notices by itself."""
        self.process.kill()
        self.process.wait()

    def stop(self, within_s: float = 40) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)


@contextlib.contextmanager
def working(
    home: Path, queue: str, *flags: str, environ: Mapping[str, str] | None = None, ready: bool = True
) -> Iterator[Worker]:
    """A worker, which is killed when the block ends."""
    worker = Worker(home, queue, *flags, environ=environ)
    try:
        if ready:
            worker.wait_for("worker_ready")
        yield worker
    finally:
        worker.kill()


@contextlib.contextmanager
def serving_fleet(
    home: Path,
    queue: str,
    *flags: str,
    environ: Mapping[str, str] | None = None,
    module: str = "comfypin.cli.main",
    keeps_bodies: bool = False,
) -> Iterator[Server]:
    """A server of a fleet, ready."""
    home.mkdir(parents=True, exist_ok=True)
    server = Server(home, ("--queue", queue, "--json", *flags), environ or {}, module=module)
    if keeps_bodies:
        server.add_flags("--body-url", server.url)
    try:
        server.start()
        yield server
    finally:
        server.kill()

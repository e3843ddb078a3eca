"""What syncing a folder costs and how late it is, beside the shell loop and rclone, on one S3 server, turn by turn.

    python bench/sync.py [--files 200] [--rounds 3] [--burst 1000] [--idle-s 20]

Measured: seconds from a file's close to its confirmed upload (median, 99th percentile); files a second for 1,000 files
of 200 KiB against the store's own `put` in as many threads; requests a file, as the server's log counts them; CPU and
memory while idle. The shell loop is `inotifywait` and one upload process a file; rclone is a sync every second.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from comfypin.digest import Digest
from comfypin.storage.interface import Payload
from comfypin.storage.s3 import S3Store
from comfypin.storage.s3_settings import S3Settings

KEY, SECRET = "AKBENCHKEYID00000000", "benchSecretAccessKey0123456789abcdefghij"
RCLONE = Path(sys.executable).with_name("rclone")
SMALL_BYTES = 200 << 10


class Server:
    """`rclone serve s3` over a folder, with a log of its requests."""

    def __init__(self, base: Path) -> None:
        self.folder = base / "buckets"
        self.folder.mkdir()
        self._log = base / "requests.log"
        self.url = ""

    @contextmanager
    def running(self) -> Iterator["Server"]:
        command = [RCLONE, "serve", "s3", "-vv", "--addr", "127.0.0.1:0", "--auth-key", f"{KEY},{SECRET}", self.folder]
        with self._log.open("wb") as log:
            process = subprocess.Popen(command, stderr=log)
        try:
            deadline = time.monotonic() + 20
            while not (found := re.search(r"http://127\.0\.0\.1:\d+", self._log.read_text())):
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.05)
            self.url = found[0]
            yield self
        finally:
            process.terminate()
            process.wait()

    def environment(self) -> dict[str, str]:
        ours = {"S3_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        rclone = {
            "RCLONE_CONFIG_B_TYPE": "s3",
            "RCLONE_CONFIG_B_PROVIDER": "Rclone",
            "RCLONE_CONFIG_B_ENDPOINT": self.url,
            "RCLONE_CONFIG_B_ACCESS_KEY_ID": KEY,
            "RCLONE_CONFIG_B_SECRET_ACCESS_KEY": SECRET,
        }
        return {**os.environ, **ours, **rclone}

    def bucket(self, name: str) -> None:
        subprocess.run([RCLONE, "mkdir", f"b:{name}"], env=self.environment(), check=True)

    def requests(self, since: int) -> dict[str, int]:
        lines = self._log.read_text().splitlines()[since:]
        kinds = ("PUT OBJECT", "HEAD OBJECT", "LIST BUCKET", "GET OBJECT")
        return {
            kind: sum(kind in line.upper().replace("CREATE OBJECT", "PUT OBJECT") for line in lines) for kind in kinds
        }

    def log_length(self) -> int:
        return len(self._log.read_text().splitlines())


@contextmanager
def comfypin(server: Server, folder: Path, bucket: str, base: Path) -> Iterator["Run"]:
    command = [sys.executable, "-m", "comfypin.cli.main", "sync", str(folder), f"s3://{bucket}", "--json"]
    env = {**server.environment(), "COMFYPIN_STATE_DIR": str(base / "state" / bucket)}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    run = Run(process.pid)
    assert process.stdout is not None
    lines = process.stdout

    def hear() -> None:
        for line in lines:
            event = json.loads(line)
            if event["event"] == "watching":
                run.watching.set()
            if event["event"] == "delivered":
                run.confirmed[event["path"]] = time.monotonic()

    thread = threading.Thread(target=hear)
    thread.start()
    run.watching.wait(60)
    try:
        yield run
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        thread.join()


@contextmanager
def rclone_every_second(server: Server, folder: Path, bucket: str, base: Path) -> Iterator["Run"]:
    stop = threading.Event()
    run = Run(None)

    def loop() -> None:
        while not stop.is_set():
            command = [RCLONE, "copy", folder, f"b:{bucket}"]
            subprocess.run(command, env=server.environment(), capture_output=True, check=False)
            run.see(server.folder / bucket)
            stop.wait(1)

    yield from _threaded(loop, stop, run)


@contextmanager
def shell_loop(server: Server, folder: Path, bucket: str, base: Path) -> Iterator["Run"]:
    stop = threading.Event()
    run = Run(None)
    script = (
        f"inotifywait -m -q -e close_write --format %f {folder} | while read -r f; do "
        f'{RCLONE} copyto "{folder}/$f" "b:{bucket}/$f" >/dev/null 2>&1 & done'
    )
    process = subprocess.Popen(["sh", "-c", script], env=server.environment(), start_new_session=True)

    def look() -> None:
        while not stop.is_set():
            run.see(server.folder / bucket)
            stop.wait(0.02)

    try:
        yield from _threaded(look, stop, run)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _threaded(work: Callable[[], None], stop: threading.Event, run: "Run") -> Iterator["Run"]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield run
    finally:
        stop.set()
        thread.join()


class Run:
    """When each file was seen to be confirmed (monotonic seconds)."""

    def __init__(self, pid: int | None) -> None:
        self.pid = pid
        self.confirmed: dict[str, float] = {}
        self.watching = threading.Event()

    def see(self, bucket: Path) -> None:
        now = time.monotonic()
        for entry in os.scandir(bucket):
            self.confirmed.setdefault(entry.name, now)


def latencies(tool: Callable[..., object], server: Server, base: Path, name: str, files: int) -> list[float]:
    """Seconds from close to confirmed, for files of 200 KiB written every 30 ms; a file that never came is infinite."""
    folder = base / name
    folder.mkdir()
    server.bucket(name)
    closed: dict[str, float] = {}
    data = os.urandom(SMALL_BYTES)
    with tool(server, folder, name, base) as run:  # type: ignore[attr-defined]
        time.sleep(2)
        for index in range(files):
            (folder / f"{index}.bin").write_bytes(data)
            closed[f"{index}.bin"] = time.monotonic()
            time.sleep(0.03)
        deadline = time.monotonic() + 15
        while len(run.confirmed) < files and time.monotonic() < deadline:
            time.sleep(0.02)
    return [run.confirmed.get(path, float("inf")) - at for path, at in closed.items()]


def burst(server: Server, base: Path, name: str, files: int) -> tuple[float, float, dict[str, int]]:
    """Files a second: `comfypin sync` from the first event on, and the store's put in eight threads."""
    folder = base / name
    folder.mkdir()
    staged = base / f"{name}-staged"
    staged.mkdir()
    for index in range(files):
        (staged / f"{index}.bin").write_bytes(os.urandom(SMALL_BYTES))
    server.bucket(name)
    since = server.log_length()
    with comfypin(server, folder, name, base) as run:
        begin = time.monotonic()
        for index in range(files):
            (staged / f"{index}.bin").rename(folder / f"{index}.bin")
        while len(run.confirmed) < files:
            time.sleep(0.005)
        ours = files / (max(run.confirmed.values()) - begin)
    requests = server.requests(since)
    server.bucket(f"{name}-plain")
    variables = {
        "S3_BUCKET": f"{name}-plain",
        **{k: v for k, v in server.environment().items() if k[:3] in ("S3_", "AWS")},
    }
    store = S3Store(S3Settings.from_variables(variables))

    def put(path: Path) -> None:
        store.put(path.name, Payload(path=path, size_bytes=SMALL_BYTES, sha256=Digest.of_file(path)))

    begin = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, sorted(folder.iterdir())))
    return ours, files / (time.monotonic() - begin), requests


def idle(server: Server, base: Path, idle_s: float) -> tuple[float, float]:
    """Share of one core, and MiB of memory, while nothing happens in a folder of 1,000 files."""
    folder = base / "idle"
    folder.mkdir()
    for index in range(1000):
        (folder / f"{index}.bin").write_bytes(b"x")
    server.bucket("idle")
    with comfypin(server, folder, "idle", base) as run:
        while len(run.confirmed) < 1000:
            time.sleep(0.1)
        time.sleep(1)
        ticks = cpu_ticks(run.pid)
        time.sleep(idle_s)
        share = (cpu_ticks(run.pid) - ticks) / os.sysconf("SC_CLK_TCK") / idle_s
        status = Path(f"/proc/{run.pid}/status").read_text()
    rss = re.search(r"VmHWM:\s+(\d+)", status)
    assert rss is not None
    return share, int(rss[1]) / 1024


def cpu_ticks(pid: int | None) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--burst", type=int, default=1000, help="files that appear at once")
    parser.add_argument("--idle-s", type=float, default=20.0, help="seconds without work that are watched")
    arguments = parser.parse_args()
    tools: dict[str, Callable[..., object]] = {"comfypin sync": comfypin, "rclone every second": rclone_every_second}
    if shutil.which("inotifywait"):
        tools["shell loop"] = shell_loop
    with tempfile.TemporaryDirectory() as name, Server(Path(name)).running() as server:
        base = Path(name)
        seen: dict[str, list[float]] = {tool: [] for tool in tools}
        for number in range(arguments.rounds):
            for index, (tool, start) in enumerate(tools.items()):
                seen[tool] += latencies(start, server, base, f"late-{number}-{index}", arguments.files)
        for tool, values in seen.items():
            ordered = sorted(values)
            lost = sum(value == float("inf") for value in values)
            print(
                f"{tool:<20} close to confirmed: median {statistics.median(ordered) * 1e3:8.1f} ms, "
                f"p99 {ordered[int(len(ordered) * 0.99)] * 1e3:8.1f} ms, {lost} of {len(values)} not there after 15 s"
            )
        ratios = []
        for number in range(arguments.rounds):
            ours, plain, requests = burst(server, base, f"burst{number}", arguments.burst)
            ratios.append(ours / plain)
            rates = f"sync {ours:.0f}/s, put in threads {plain:.0f}/s, ratio {ours / plain:.2f}"
            print(f"{arguments.burst} x 200 KiB: {rates}")
        print(f"ratio, median {statistics.median(ratios):.2f} (goal 0.9 or more); requests of the last: {requests}")
        share, rss = idle(server, base, arguments.idle_s)
        print(f"idle: {share:.2%} of a core (goal under 0.5 %), {rss:.0f} MiB at most (goal under 100)")


if __name__ == "__main__":
    main()

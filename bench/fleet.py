"""What a fleet costs: CPU a job, waits, swaps of releases, throughput, and a hundred thousand jobs that wait.

    python -m bench.fleet [--jobs 400] [--workers 1,4,16] [--long-s 10] [--waiting 100000] [--parts jobs,long,...]

One NATS as we ship it (`sync_interval: always`), one `comfypin serve`, and workers in processes of their own that do
everything but the engine's work: a job sleeps 50 ms, or `--long-s`. Three releases are served once as our workers do,
and once in one line for all, with the same swaps of `--swap-s`. What waits is put there by the queue itself, without
HTTP and with NATS's own `sync_interval`, since neither matters for memory and lists.
"""

# ruff: noqa: E402 - the path comes first, so that the file runs from a checkout
import argparse
import asyncio
import contextlib
import os
import platform
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "src")]

import aiohttp
import psutil

from comfypin.cli import console
from comfypin.cli.common import read_release
from comfypin.jobs.interface import Handle, JobOutcome, ProgressCallback, ignore_progress
from comfypin.lock.codec import lock_digest
from comfypin.queue.interface import JobRoute
from comfypin.queue.job_runner import QueueLimits
from comfypin.queue.nats import names
from comfypin.queue.nats.connection import parse_queue_address
from comfypin.queue.nats.fleet import Fleet, open_fleet
from comfypin.queue.nats.fleet_job import FleetJob
from comfypin.queue.nats.nats_queue import NatsJobQueue
from comfypin.queue.nats.progress import ProgressPublisher
from comfypin.queue.nats.releases import ReleaseRecord, announce_release
from comfypin.queue.nats.worker import FleetWorker, WorkerOptions
from comfypin.queue.sqlite import JobStore
from comfypin.queue.steady_clock import steady_clock
from comfypin.queue.webhook import Webhooks
from comfypin.retry import RetryPolicy
from comfypin.settings.environment import Settings
from comfypin.settings.fleet import FleetSettings
from comfypin.wiring import release_key
from tests.support.fleets import serving_fleet
from tests.support.nats_servers import NatsServer, nats_server
from tests.support.server import TOKEN, Server

ROOT = Path(__file__).parent.parent
SHORT_S = 0.05
PARTS = ("jobs", "long", "idle", "releases", "waiting")
# Fewer are not worth processes of their own, nor a long look: a short run only shows that it works.
MANY = 1000
# As many requests at once as a busy client makes.
AT_ONCE = 16


def own_release() -> str:
    return release_key(lock_digest(read_release("demo", Settings({}))))


# -- a worker in a process of its own ----------------------------------------------------------------------------------


async def work(queue: str, releases: Sequence[str], swap_s: float) -> None:
    """Serve some releases until SIGTERM, without an engine: a job says itself how long it takes.

    If a job names the release that it wants, the swap is the job's: so one line for all releases works.
    """
    swaps, warm = 0, ""

    async def handle(job_id: str, document: Any, *, progress: ProgressCallback = ignore_progress) -> JobOutcome:
        nonlocal swaps, warm
        wanted = document.get("swap", warm)
        if wanted != warm:
            swaps, warm = swaps + 1, wanted
            await asyncio.sleep(swap_s)
        progress({"progress": 0.5})
        await asyncio.sleep(document["sleep_s"])
        return JobOutcome(output={"done": True})

    @contextlib.asynccontextmanager
    async def open_release(release: str) -> AsyncIterator[Handle]:
        nonlocal swaps
        swaps += 1
        await asyncio.sleep(swap_s)
        yield handle

    async with open_fleet(parse_queue_address(queue), FleetSettings(), client_name="bench worker") as fleet:
        for release in releases:
            record = ReleaseRecord(name=release, digest=release, catalogue={})
            await announce_release(fleet.releases, release, record, "")
        worker = FleetWorker(
            fleet,
            WorkerOptions(own=releases[0], releases=dict(zip(releases, releases, strict=True))),
            open_release,
            worker_id=f"worker-{secrets.token_hex(4)}",
            clock=steady_clock(),
            publisher=ProgressPublisher(fleet.client),
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.serve()
    print(f"swaps {swaps - 1}", flush=True)  # its first release is no swap


@contextlib.contextmanager
def workers(queue: str, releases: Sequence[Sequence[str]], *, swap_s: float = 0.0) -> Iterator[list[psutil.Popen]]:
    """A worker for each list of releases, ready."""
    command = [sys.executable, "-m", "bench.fleet", "--work", queue, "--swap-s", str(swap_s), "--releases"]
    with tempfile.TemporaryDirectory(prefix="comfypin-bench-") as folder:
        # Files, since a pipe that nobody reads stops a worker once its log has filled it.
        logs = [Path(folder) / str(number) for number in range(len(releases))]
        started = []
        for own, log in zip(releases, logs, strict=True):
            with log.open("wb") as output:
                started.append(
                    psutil.Popen([*command, ",".join(own)], cwd=ROOT, stdout=subprocess.PIPE, stderr=output, text=True)
                )
        try:
            for process, log in zip(started, logs, strict=True):
                while "release_warm" not in log.read_text():
                    assert process.poll() is None, f"a worker ended: {log.read_text()}"
                    time.sleep(0.02)
            yield started
        finally:
            for process in started:
                if process.poll() is None:
                    process.terminate()


def count_swaps(started: Sequence[psutil.Popen]) -> int:
    told = [process.communicate(timeout=60)[0] for process in started if process.terminate() is None]
    return sum(int(text.split()[-1]) for text in told)


# -- measuring ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Used:
    """CPU seconds of processes."""

    nats: float
    serve: float
    workers: float


def used(nats: NatsServer, server: Server | None, started: Sequence[psutil.Popen]) -> Used:
    return Used(
        nats=cpu_s(process_of(nats)),
        serve=0.0 if server is None else cpu_s(process_of(server)),
        workers=sum(map(cpu_s, started)),
    )


def process_of(member: NatsServer | Server) -> psutil.Process:
    assert member.process is not None
    return psutil.Process(member.process.pid)


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def mib(process: psutil.Process) -> float:
    return float(process.memory_full_info().pss) / 2**20


def percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


async def send_all(server: Server, bodies: Sequence[dict[str, Any]]) -> list[str]:
    """Send jobs over HTTP, some at once; their ids."""
    left, ids = iter(bodies), []
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(server.url, headers=headers) as session:

        async def send() -> None:
            for body in left:
                async with session.post("/run", json=body) as answer:
                    told = await answer.json()
                    assert answer.status == 200, told
                    ids.append(told["id"])

        await asyncio.gather(*(send() for _ in range(AT_ONCE)))
    return ids


async def records_when_ended(queue: str, ids: Sequence[str], *, every_s: float = 0.1) -> list[FleetJob]:
    """The records of jobs, once no ticket is left."""
    async with open_fleet(parse_queue_address(queue), FleetSettings(), client_name="bench") as fleet:
        while (await fleet.stream.stream_info(names.JOBS_STREAM)).state.messages:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(every_s)
        kept = await asyncio.gather(*map(fleet.states.read, ids))
    return [one.job for one in kept if one is not None]


def waits_of(records: Sequence[FleetJob]) -> list[float]:
    return [(record.row.started_at or 0.0) - record.row.created_at for record in records]


# -- the parts ---------------------------------------------------------------------------------------------------------


def measure_jobs(folder: Path, jobs: int, counts: Sequence[int], sleep_s: float, *, idle_s: float = 0.0) -> None:
    """A burst of jobs for 1, 4, 16 workers: jobs a second, waits, CPU a job by process.

    With `idle_s` also what the last of these fleets costs so long while nobody asks for anything.
    """
    for count in counts:
        with (
            nats_server(folder / f"{sleep_s}-{count}") as nats,
            serving_fleet(folder / f"{sleep_s}-{count}-serve", nats.address, "--max-waiting", "100000") as server,
            workers(nats.address, [[own_release()]] * count) as started,
        ):
            before, began_s = used(nats, server, started), time.monotonic()
            body = {"input": {"sleep_s": sleep_s, "workflow": {"1": {"class_type": "A", "inputs": {}}}}}
            ids = asyncio.run(send_all(server, [body] * jobs))
            sent_s = time.monotonic() - began_s
            records = asyncio.run(records_when_ended(nats.address, ids))
            span_s = max(r.row.ended_at or 0.0 for r in records) - min(r.row.created_at for r in records)
            after = used(nats, server, started)
            cpu = [(getattr(after, who) - getattr(before, who)) / jobs * 1e3 for who in ("nats", "serve", "workers")]
            ideal = jobs * sleep_s / count
            waits = waits_of(records)
            print(
                f"jobs of {sleep_s:g} s, {count:>2} workers: {jobs} jobs, accepted {jobs / sent_s:.0f}/s, done "
                f"{jobs / span_s:.1f}/s ({ideal / span_s:.0%} of their time is work); waits p50 "
                f"{percentile(waits, 0.5):.2f} s, p99 {percentile(waits, 0.99):.2f} s; CPU a job: NATS {cpu[0]:.2f}, "
                f"serve {cpu[1]:.2f}, workers {cpu[2]:.2f} ms",
                flush=True,
            )
            if idle_s and count == counts[-1]:
                measure_idle(nats, server, started, idle_s)


def measure_idle(nats: NatsServer, server: Server, started: Sequence[psutil.Popen], seconds: float) -> None:
    """What workers cost that have nothing to do, and one job at a time: how soon it begins."""
    count = len(started)
    time.sleep(min(2.0, seconds))
    before, began = used(nats, server, started), nats.monitor("varz")["in_msgs"]
    time.sleep(seconds)
    after, ended = used(nats, server, started), nats.monitor("varz")["in_msgs"]
    cpu = [(getattr(after, who) - getattr(before, who)) / seconds for who in ("nats", "serve", "workers")]
    print(
        f"{count} idle workers: cores NATS {cpu[0]:.4f}, serve {cpu[1]:.4f}, each worker {cpu[2] / count:.4f}; "
        f"messages to NATS {(ended - began) / seconds / count:.2f}/s a worker; memory NATS "
        f"{mib(process_of(nats)):.0f}, serve {mib(process_of(server)):.0f}, "
        f"a worker {statistics.median(map(mib, started)):.0f} MiB",
        flush=True,
    )
    before = used(nats, server, started)
    rounds = max(3, int(seconds))
    waits = []
    for _ in range(rounds):
        body = {"input": {"sleep_s": 0.0, "workflow": {"1": {"class_type": "A", "inputs": {}}}}}
        ids = asyncio.run(send_all(server, [body]))
        waits += waits_of(asyncio.run(records_when_ended(nats.address, ids, every_s=0.01)))
    after = used(nats, server, started)
    cpu = [(getattr(after, who) - getattr(before, who)) / rounds * 1e3 for who in ("workers", "nats")]
    print(
        f"one job at a time for {count} idle workers: it begins after p50 {percentile(waits, 0.5) * 1e3:.1f} ms, "
        f"p99 {percentile(waits, 0.99) * 1e3:.1f} ms; CPU a job: all workers {cpu[0]:.1f}, NATS {cpu[1]:.1f} ms",
        flush=True,
    )


def measure_releases(folder: Path, jobs: int, count: int, swap_s: float) -> None:
    """Three releases whose share changes half way: warm first, and one line for all."""
    releases = ["a" * 16, "b" * 16, "c" * 16]
    shares = [(6, 1, 1), (1, 1, 6)]
    wanted = [releases[_pick(half, number)] for half in shares for number in range(jobs // 2)]
    for rule in ("warm first", "one line for all"):
        owns = [
            [releases[number % 3], *(one for one in releases if one != releases[number % 3])]
            if rule == "warm first"
            else [own_release()]
            for number in range(count)
        ]
        with (
            nats_server(folder / rule.replace(" ", "-")) as nats,
            serving_fleet(
                folder / f"serve-{rule.replace(' ', '-')}", nats.address, "--max-waiting", "100000"
            ) as server,
            workers(nats.address, owns, swap_s=swap_s) as started,
        ):
            bodies: list[dict[str, Any]] = []
            for release in wanted:
                job = {"sleep_s": SHORT_S, "workflow": {"1": {"class_type": "A", "inputs": {}}}}
                if rule == "warm first":
                    bodies.append({"input": job, "policy": {"release": release}})
                else:
                    bodies.append({"input": {**job, "swap": release}})
            ids = asyncio.run(send_all(server, bodies))
            records = asyncio.run(records_when_ended(nats.address, ids))
            span_s = max(r.row.ended_at or 0.0 for r in records) - min(r.row.created_at for r in records)
            waits = waits_of(records)
            print(
                f"three releases, {count} workers, swap {swap_s:g} s, {rule}: {count_swaps(started)} swaps, "
                f"{jobs} jobs in {span_s:.1f} s, waits p50 {percentile(waits, 0.5):.2f} s, "
                f"p99 {percentile(waits, 0.99):.2f} s",
                flush=True,
            )


def _pick(shares: Sequence[int], number: int) -> int:
    """The release of a job in a mix, spread evenly."""
    place = number * 5 % sum(shares)
    return next(index for index in range(len(shares)) if place < sum(shares[: index + 1]))


async def fill(queue: str, folder: Path, count: int, start: int) -> None:
    """Put jobs into the queue as a server does, without HTTP."""
    async with open_fleet(parse_queue_address(queue), FleetSettings(), client_name="bench fill") as fleet:
        at_once = min(32, count)
        ranges = [range(start + one, start + count, at_once) for one in range(at_once)]
        await asyncio.gather(*(_fill_some(fleet, folder, numbers) for numbers in ranges))


async def _fill_some(fleet: Fleet, folder: Path, numbers: range) -> None:
    store = JobStore(folder / f"fill{numbers.start}.sqlite")
    queue = NatsJobQueue(
        fleet,
        store,
        QueueLimits(max_waiting=1 << 30),
        release=own_release(),
        release_name="demo",
        clock=steady_clock(),
        webhooks=Webhooks(secret=None, allow_private=True, retry_policy=RetryPolicy(retries=0)),
    )
    for number in numbers:
        graph = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": f"a red fox, number {number}, in the snow"}}}
        route = JobRoute(priority="high" if number % 10 == 0 else "normal")
        await queue.accept_job({"workflow": graph}, webhook=None, timeout_s=None, ttl_s=None, route=route)
    store.close()


def measure_waiting(folder: Path, count: int) -> None:
    """Memory and times with very many jobs that wait."""
    folder.mkdir()
    nats = NatsServer(folder / "nats")
    configuration = nats.folder / "nats.conf"
    configuration.write_text(configuration.read_text().replace("sync_interval: always", "sync_interval: 2m"))
    nats.start()
    try:
        nats.wait_until_ready()
        empty_mib = mib(process_of(nats))
        began_s, share = time.monotonic(), -(-count // 2)
        if count > MANY:
            command = [sys.executable, "-m", "bench.fleet", "--fill", nats.address, "--jobs", str(share), "--start"]
            fillers = [subprocess.Popen([*command, str(start)], cwd=ROOT) for start in (0, share)]
            assert [filler.wait() for filler in fillers] == [0, 0]
        else:
            asyncio.run(fill(nats.address, folder, 2 * share, 0))
        print(f"{2 * share} jobs put in: {2 * share / (time.monotonic() - began_s):.0f}/s")
        began_s = time.monotonic()
        with serving_fleet(folder / "serve", nats.address, "--max-waiting", str(2 * count)) as server:
            ready_s = time.monotonic() - began_s
            size_mib = sum(path.stat().st_size for path in nats.folder.rglob("*") if path.is_file()) / 2**20
            print(
                f"with {2 * share} waiting: NATS {mib(process_of(nats)):.0f} MiB (empty {empty_mib:.0f}), on disk "
                f"{size_mib:.0f} MiB; serve ready after {ready_s:.1f} s, {mib(process_of(server)):.0f} MiB"
            )
            # The first chores come within five seconds.
            time.sleep(5.0 if count > MANY else 0.0)
            before, seconds = used(nats, server, ()), 40.0 if count > MANY else 0.2
            time.sleep(seconds)
            after = used(nats, server, ())
            cores = [(getattr(after, who) - getattr(before, who)) / seconds for who in ("serve", "nats")]
            print(f"nobody asks: cores serve {cores[0]:.3f}, NATS {cores[1]:.3f}")
            for what in ("/jobs?limit=50", "/jobs?limit=50&text=number+77+", "/health", "/metrics"):
                print(f"GET {what}: {timed(server, 'GET', what) * 1e3:.1f} ms")
            some = [job["id"] for job in server.get("/jobs?limit=20")["jobs"]]
            for what, method, path in (("status", "GET", "status"), ("cancel", "POST", "cancel")):
                took_s = statistics.median(timed(server, method, f"/{path}/{one}") for one in some)
                print(f"{what} of one: {took_s * 1e3:.1f} ms")
            began_s = time.monotonic()
            command = [sys.executable, "-m", "comfypin.cli.main", "fleet", "status", "--json"]
            subprocess.run([*command, "--queue", nats.address], capture_output=True, cwd=ROOT, check=True)
            print(f"comfypin fleet status: {time.monotonic() - began_s:.1f} s", flush=True)
            began_s = time.monotonic()
            cancelled = asyncio.run(purge(server))
            took_s = time.monotonic() - began_s
            print(
                f"cancel of all {cancelled} (purge-queue): {took_s:.1f} s, {cancelled / took_s:.0f}/s; "
                f"serve {mib(process_of(server)):.0f} MiB",
                flush=True,
            )
    finally:
        nats.kill()


def timed(server: Server, method: str, path: str) -> float:
    times = []
    for _ in range(1 if method == "POST" else 5):
        began_s = time.monotonic()
        status, answer, _ = server.ask(method, path)
        assert status == 200, answer
        times.append(time.monotonic() - began_s)
    return statistics.median(times)


async def purge(server: Server) -> int:
    timeout = aiohttp.ClientTimeout(total=1800)
    async with (
        aiohttp.ClientSession(server.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=timeout) as session,
        session.post("/purge-queue") as answer,
    ):
        told = await answer.json()
        assert answer.status == 200, told
        return int(told["removed"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=400, help="jobs of 50 ms")
    parser.add_argument("--workers", default="1,4,16")
    parser.add_argument("--long-s", type=float, default=10.0)
    parser.add_argument("--swap-s", type=float, default=1.0)
    parser.add_argument("--idle-s", type=float, default=20.0)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--parts", default=",".join(PARTS), help="idle is measured at the end of jobs")
    parser.add_argument("--work", metavar="QUEUE", help=argparse.SUPPRESS)
    parser.add_argument("--fill", metavar="QUEUE", help=argparse.SUPPRESS)
    parser.add_argument("--start", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--releases", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        console.configure_service_logging(as_json=True, verbose=False)
        asyncio.run(work(arguments.work, arguments.releases.split(","), arguments.swap_s))
        return 0
    with tempfile.TemporaryDirectory(prefix="comfypin-bench-") as name:
        folder = Path(name)
        if arguments.fill:
            asyncio.run(fill(arguments.fill, folder, arguments.jobs, arguments.start))
            return 0
        nats_version = subprocess.run(
            [Path(sys.executable).with_name("nats-server"), "--version"], capture_output=True, text=True, check=True
        ).stdout.split()[-1]
        load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
        print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, load {load}")
        print(f"comfypin {version('comfypin')}, nats-py {version('nats-py')}, nats-server {nats_version}", flush=True)
        counts = [int(one) for one in arguments.workers.split(",")]
        parts = arguments.parts.split(",")
        if "jobs" in parts:
            idle_s = arguments.idle_s if "idle" in parts else 0.0
            measure_jobs(folder, arguments.jobs, counts, SHORT_S, idle_s=idle_s)
        if "long" in parts:
            measure_jobs(folder, 2 * max(counts), [max(counts)], arguments.long_s)
        if "releases" in parts:
            measure_releases(folder, arguments.jobs, min(8, max(counts)), arguments.swap_s)
        if "waiting" in parts:
            measure_waiting(folder / "waiting", arguments.waiting)
    return 0


if __name__ == "__main__":
    sys.exit(main())

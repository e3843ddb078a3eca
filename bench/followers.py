"""What followers of `/events` cost a real `comfypin serve` on the embedded engine.

    python bench/followers.py [--followers 200] [--jobs 40] [--rounds 3]
    python bench/followers.py --deaf [--followers 300] [--waiting 5000] [--seconds 20]

Rounds with no follower and with all of them take turns. Exits with 1 if a promise is broken. The followers read in a
process of their own, of the lowest priority: what they cost is not the server's, but on a machine with two cores
it is still in a job's time. Memory and cores are of the server's process alone, without the engine's.

With `--deaf` the followers connect and never read a byte, jobs run while thousands wait, and `/ping` is asked all the
time: a load balancer takes a server for dead that does not answer it.
"""

import argparse
import asyncio
import os
import platform
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import aiohttp
import psutil

ROOT = Path(__file__).parents[1]
MOST_MIB, MOST_CORES, MOST_SLOWER = 150, 1.0, 1.1
# A load balancer waits a second or more.
MOST_PING_MS = 250
# The kernel keeps little of what is not read, so the server has to.
SMALL_BUFFER_BYTES = 4096


def workflow(color: int) -> dict[str, object]:
    empty = {"width": 256, "height": 256, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench"}},
    }


async def follow_all(url: str, count: int) -> None:
    """Be `count` clients that read all of `/events`; says so when each has its snapshot, and ends with its input."""
    ready = asyncio.Semaphore(0)

    async def follow(session: aiohttp.ClientSession) -> None:
        async with session.get("/events", timeout=aiohttp.ClientTimeout(total=None)) as answer:
            answer.raise_for_status()
            await answer.content.readany()
            ready.release()
            async for _ in answer.content.iter_any():
                pass

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, headers={"Authorization": "Bearer bench"}, connector=connector) as session:
        tasks = [asyncio.create_task(follow(session)) for _ in range(count)]
        for _ in range(count):
            await ready.acquire()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def be_deaf(url: str, count: int) -> None:
    """Be `count` clients that ask for `/events` and never read; says how many are still connected at the end."""
    port = int(url.rpartition(":")[2])
    head = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer bench\r\n\r\n".encode()
    deaf = []
    for _ in range(count):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        client.connect(("127.0.0.1", port))
        client.sendall(head)
        deaf.append(client)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(sum(_is_connected(client) for client in deaf), flush=True)


def _is_connected(client: socket.socket) -> bool:
    """Return whether the other side has not closed: state 1 of the kernel's own record is ESTABLISHED."""
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 1


@dataclass(frozen=True)
class DeafRound:
    """Seconds of each `/ping`; what the server used; jobs that ended and that waited; who was not cut off."""

    ping_s: list[float]
    cores: float
    mib: float
    ended: int
    waiting: int
    connected: int

    def to_text(self, count: int) -> str:
        ms = sorted(second * 1e3 for second in self.ping_s)
        p95 = ms[int(len(ms) * 0.95)]
        return (
            f"{count} deaf followers ({self.connected} still connected at the end), {self.waiting} jobs waiting: /ping "
            f"median {statistics.median(ms):.1f} ms, p95 {p95:.1f}, most {ms[-1]:.1f} of {len(ms)}; "
            f"{self.ended} jobs ended; server's cores {self.cores:.2f}; MiB {self.mib:.0f}"
        )


async def deaf_round(
    session: aiohttp.ClientSession, process: psutil.Process, count: int, arguments: argparse.Namespace
) -> DeafRound:
    await fill_queue(session, arguments.waiting)
    followers = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--follow", str(session._base_url), "--followers", str(count), "--deaf"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert followers.stdin is not None
    assert followers.stdout is not None
    assert await followers.stdout.readline() == b"ready\n"
    before, used, began = await counted_jobs(session), sum(process.cpu_times()[:2]), time.perf_counter()
    ping_s: list[float] = []
    while time.perf_counter() - began < arguments.seconds:
        asked = time.perf_counter()
        async with session.get("/ping") as answer:
            assert answer.status == 200, answer.status
        ping_s.append(time.perf_counter() - asked)
        await asyncio.sleep(0.01)
    cores = (sum(process.cpu_times()[:2]) - used) / (time.perf_counter() - began)
    after, mib = await counted_jobs(session), process.memory_info().rss / 2**20
    followers.stdin.close()
    connected = int(await followers.stdout.readline())
    await followers.wait()
    ended = after["completed"] - before["completed"]
    return DeafRound(ping_s, cores, mib, ended, after["inQueue"], connected)


async def counted_jobs(session: aiohttp.ClientSession) -> dict[str, int]:
    async with session.get("/health") as answer:
        return dict((await answer.json())["jobs"])


async def fill_queue(session: aiohttp.ClientSession, waiting: int) -> None:
    """Send jobs, a few at a time, until so many wait."""
    while (missing := waiting - (await counted_jobs(session))["inQueue"]) > 0:
        colors = iter(range(time.monotonic_ns() % (1 << 23), 1 << 24))

        async def send(share: int, colors: Iterator[int] = colors) -> None:
            for _ in range(share):
                async with session.post("/run", json={"input": {"workflow": workflow(next(colors))}}) as answer:
                    assert answer.status == 200, await answer.text()

        await asyncio.gather(*(send(-(-missing // 16)) for _ in range(16)))


async def measure_deaf(
    session: aiohttp.ClientSession, server: asyncio.subprocess.Process, arguments: argparse.Namespace
) -> int:
    await wait_until_ready(session, server)
    process, worst_ms, worst_mib = psutil.Process(server.pid), 0.0, 0.0
    for count in (0, arguments.followers):
        found = await deaf_round(session, process, count, arguments)
        print(found.to_text(count), flush=True)
        worst_ms, worst_mib = max(found.ping_s) * 1e3, found.mib
    kept = [
        say("the slowest /ping", worst_ms, "ms", MOST_PING_MS),
        say("server's memory", worst_mib, "MiB", MOST_MIB),
    ]
    return 0 if all(kept) else 1


@dataclass(frozen=True)
class Round:
    """The jobs' seconds; what the server used: CPU seconds a job, cores, MiB at the end."""

    seconds: list[float]
    cpu_s: float
    cores: float
    mib: float


async def run_jobs(session: aiohttp.ClientSession, colors: range) -> list[float]:
    seconds = []
    for color in colors:
        began = time.perf_counter()
        async with session.post("/runsync", json={"input": {"workflow": workflow(color)}}) as answer:
            said = await answer.json()
        assert said["status"] == "COMPLETED", said
        seconds.append(time.perf_counter() - began)
    return seconds


async def one_round(session: aiohttp.ClientSession, process: psutil.Process, colors: range, count: int) -> Round:
    followers = await asyncio.create_subprocess_exec(
        *("nice", "-n", "19", sys.executable, __file__, "--follow", str(session._base_url), "--followers", str(count)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert followers.stdin is not None
    assert followers.stdout is not None
    try:
        assert await followers.stdout.readline() == b"ready\n", "a follower was refused"
        used, began = sum(process.cpu_times()[:2]), time.perf_counter()
        seconds = await run_jobs(session, colors)
        used_s = sum(process.cpu_times()[:2]) - used
        cores = used_s / (time.perf_counter() - began)
        return Round(seconds, used_s / len(seconds), cores, process.memory_info().rss / 2**20)
    finally:
        followers.stdin.close()
        await followers.wait()


def say(what: str, value: float, unit: str, most: float) -> bool:
    kept = value <= most
    print(f"{what}: {value:.3g} {unit} (promised: at most {most:g}) {'ok' if kept else 'BROKEN'}", flush=True)
    return kept


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--followers", type=int, help="how many (200; deaf ones 300)")
    parser.add_argument("--jobs", type=int, default=40, help="jobs a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--deaf", action="store_true", help="followers that never read, and /ping meanwhile")
    parser.add_argument("--waiting", type=int, default=5000, help="jobs that wait, with --deaf")
    parser.add_argument("--seconds", type=float, default=20, help="of each round, with --deaf")
    parser.add_argument("--follow", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.followers is None:
        arguments.followers = 300 if arguments.deaf else 200
    if arguments.follow:
        await (be_deaf if arguments.deaf else follow_all)(arguments.follow, arguments.followers)
        return 0
    cores, load = os.cpu_count(), os.getloadavg()[0]
    print(f"{platform.platform()}, Python {platform.python_version()}, {cores} cores, load {load:.1f}")
    print(f"comfypin {version('comfypin')}, aiohttp {aiohttp.__version__}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfypin-bench-")))
        log = stack.enter_context((work / "log").open("wb"))
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "comfypin.cli.main", "serve", "--lock", "demo", "--port", str(port)),
            *("--output-dir", str(work / "outputs"), "--state-dir", str(work / "state")),
            *("--max-waiting", str(arguments.waiting + 1000)),
            cwd=ROOT,
            env={
                **{k: v for k, v in os.environ.items() if k in ("PATH", "LANG")},
                **{"HOME": str(work), "COMFYPIN_TOKEN": "bench"},
            },
            stdout=log,
            stderr=log,
        )
        try:
            session = await stack.enter_async_context(
                aiohttp.ClientSession(
                    f"http://127.0.0.1:{port}",
                    headers={"Authorization": "Bearer bench"},
                    # Less than the server waits: it would close a connection while a request is on its way.
                    connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=1),
                )
            )
            return await (measure_deaf if arguments.deaf else measure)(session, server, arguments)
        finally:
            if server.returncode is None:
                server.terminate()
            await server.wait()


async def wait_until_ready(session: aiohttp.ClientSession, server: asyncio.subprocess.Process) -> None:
    for _ in range(300):
        assert server.returncode is None, "the server ended"
        try:
            async with session.get("/ping") as answer:
                if answer.status == 200:
                    break
        except aiohttp.ClientConnectionError:
            pass
        await asyncio.sleep(0.1)


async def measure(
    session: aiohttp.ClientSession, server: asyncio.subprocess.Process, arguments: argparse.Namespace
) -> int:
    await wait_until_ready(session, server)
    process, color = psutil.Process(server.pid), 1
    await run_jobs(session, range(color, color + 5))
    found: dict[int, list[Round]] = {0: [], arguments.followers: []}
    for _ in range(arguments.rounds):
        for count, rounds in found.items():
            color += 1000
            rounds.append(await one_round(session, process, range(color, color + arguments.jobs), count))
    medians = {c: statistics.median([s for r in rounds for s in r.seconds]) for c, rounds in found.items()}
    for count, rounds in found.items():
        quickest = min(s for r in rounds for s in r.seconds)
        cpu = ", ".join(f"{r.cpu_s * 1e3:.1f}" for r in rounds)
        cores = ", ".join(f"{r.cores:.2f}" for r in rounds)
        print(f"{count} followers: a job {medians[count] * 1e3:.1f} ms, at best {quickest * 1e3:.1f};", end=" ")
        print(f"server's CPU {cpu} ms a job; cores {cores}; MiB {rounds[-1].mib:.0f}")
    with_all = found[arguments.followers]
    kept = [
        say("server's memory", max(r.mib for r in with_all), "MiB", MOST_MIB),
        say("server's cores", max(r.cores for r in with_all), "cores", MOST_CORES),
        say("a job's time, of that with no follower", medians[arguments.followers] / medians[0], "x", MOST_SLOWER),
    ]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

"""What followers of `/events` cost a real `comfypin serve` on the embedded engine.

    python bench/followers.py [--followers 200] [--jobs 40] [--rounds 3]

Rounds with no follower and with all of them take turns. Exits with 1 if a promise is broken. The followers read in a
process of their own, of the lowest priority: what they cost is not the server's, but on a machine with two cores
it is still in a job's time. Memory and cores are of the server's process alone, without the engine's.
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
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import aiohttp
import psutil

ROOT = Path(__file__).parents[1]
MOST_MIB, MOST_CORES, MOST_SLOWER = 150, 1.0, 1.1


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
    parser.add_argument("--followers", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=40, help="jobs a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--follow", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.follow:
        await follow_all(arguments.follow, arguments.followers)
        return 0
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()}")
    print(f"comfypin {version('comfypin')}, aiohttp {aiohttp.__version__}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfypin-bench-")))
        log = stack.enter_context((work / "log").open("wb"))
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "comfypin.cli.main", "serve", "--lock", "demo", "--port", str(port)),
            *("--output-dir", str(work / "outputs"), "--state-dir", str(work / "state")),
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
            return await measure(session, server, arguments)
        finally:
            if server.returncode is None:
                server.terminate()
            await server.wait()


async def measure(
    session: aiohttp.ClientSession, server: asyncio.subprocess.Process, arguments: argparse.Namespace
) -> int:
    for _ in range(300):
        assert server.returncode is None, "the server ended"
        try:
            async with session.get("/ping") as answer:
                if answer.status == 200:
                    break
        except aiohttp.ClientConnectionError:
            pass
        await asyncio.sleep(0.1)
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

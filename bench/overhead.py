"""What comfypin costs a job: its seconds over the barest client's, on one engine, turn by turn.

    python bench/overhead.py [--jobs 60] [--rounds 7] [--queued 50] [--comfyui DIR]

The barest client is what somebody would write by hand: POST /prompt, wait on the websocket for the file's name, GET
/view. comfypin checks the workflow against the catalogue, gives the job's files a name of their own, follows the
prompt, reads its history, hashes the outputs and hands them over as base64. Exits with 1 where a promise is broken.
"""

import argparse
import asyncio
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from comfypin.engine.client import HttpEngine
from comfypin.engine.command import comfyui_child, embedded_child, has_gpu
from comfypin.engine.remote import open_remote
from comfypin.engine.standby import open_child
from comfypin.jobs.prepare import RunRequest, prepare_job
from comfypin.jobs.run import run_job
from comfypin.lock.model import EngineSpec, Lock
from comfypin.outputs.inline import InlineSink
from comfypin.workflow.document import read_document

MOST_OVERHEAD_S = 0.005
LEAST_THROUGHPUT = 0.95
MOST_HELP_S = 0.100
SDKS = ("google", "boto3", "runpod", "fastapi", "aiohttp", "pydantic", "numpy", "PIL", "rich", "torch")
LOCK = Lock(version_name="bench")


class Colors:
    """A colour that no prompt has had, so that nothing is cached."""

    def __init__(self) -> None:
        self.last = 0

    def workflow(self) -> dict[str, object]:
        self.last += 1
        empty = {"width": 512, "height": 512, "batch_size": 1, "color": self.last}
        return {
            "1": {"class_type": "EmptyImage", "inputs": empty},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench"}},
        }


class Bare:
    """The barest client: one session, one websocket."""

    def __init__(
        self, url: str, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse, me: str
    ) -> None:
        self.url, self.session, self.socket, self.me = url, session, socket, me

    async def one(self, workflow: dict[str, object]) -> None:
        await self.post(workflow)
        await self.collect(1)

    async def many(self, workflows: list[dict[str, object]]) -> None:
        posting = asyncio.gather(*(self.post(workflow) for workflow in workflows))
        await self.collect(len(workflows))
        await posting

    async def post(self, workflow: dict[str, object]) -> None:
        async with self.session.post(f"{self.url}/prompt", json={"prompt": workflow, "client_id": self.me}) as answer:
            await answer.json()

    async def collect(self, count: int) -> None:
        viewing = []
        async for message in self.socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            said = json.loads(message.data)
            if said["type"] == "executed":
                viewing.append(asyncio.create_task(self.view(said["data"]["output"]["images"][0])))
                if len(viewing) == count:
                    break
        await asyncio.gather(*viewing)

    async def view(self, file: dict[str, str]) -> None:
        query = {"filename": file["filename"], "subfolder": file["subfolder"], "type": file["type"]}
        async with self.session.get(f"{self.url}/view", params=query) as answer:
            base64.b64encode(await answer.read())


@asynccontextmanager
async def bare_client(url: str) -> AsyncIterator[Bare]:
    me = uuid.uuid4().hex
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(f"{url}/ws", params={"clientId": me}) as socket,
    ):
        yield Bare(url, session, socket, me)


async def by_comfypin(engine: HttpEngine, workflow: dict[str, object]) -> None:
    submission = str(uuid.uuid4())
    document = read_document(json.dumps(workflow).encode(), source="bench")
    request = RunRequest(document=document, job_id=submission, submission_id=submission)
    job = prepare_job(request, lock=LOCK, catalogue=await engine.catalogue(), now=datetime.now(UTC))
    result = await run_job(job, engine=engine, sink=InlineSink())
    assert result.deliveries[0].data_base64, result


async def many_by_comfypin(engine: HttpEngine, workflows: list[dict[str, object]]) -> None:
    await asyncio.gather(*(by_comfypin(engine, workflow) for workflow in workflows))


async def timed(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


@dataclass(frozen=True)
class Counts:
    """How many jobs one after the other, and how many rounds of how many at once."""

    jobs: int
    rounds: int
    queued: int


async def measure(engine: HttpEngine, url: str, counts: Counts, *, name: str) -> list[bool]:
    queued = counts.queued
    colors = Colors()
    async with bare_client(url) as bare:
        for _ in range(5):
            await bare.one(colors.workflow())
            await by_comfypin(engine, colors.workflow())
        ours, theirs = [], []
        for number in range(counts.jobs):
            turns: list[tuple[list[float], Callable[[], Awaitable[None]]]] = [
                (theirs, lambda: bare.one(colors.workflow())),
                (ours, lambda: by_comfypin(engine, colors.workflow())),
            ]
            for seconds, work in turns if number % 2 else reversed(turns):
                seconds.append(await timed(work()))
        ours_queued, theirs_queued = [], []
        for number in range(counts.rounds):
            turns = [
                (theirs_queued, lambda: bare.many([colors.workflow() for _ in range(queued)])),
                (ours_queued, lambda: many_by_comfypin(engine, [colors.workflow() for _ in range(queued)])),
            ]
            for seconds, work in turns if number % 2 else reversed(turns):
                seconds.append(await timed(work()))
    one_ours_s, one_theirs_s = statistics.median(ours), statistics.median(theirs)
    all_ours_s, all_theirs_s = statistics.median(ours_queued), statistics.median(theirs_queued)
    print(f"{name}: one job: bare {one_theirs_s * 1e3:.2f} ms, comfypin {one_ours_s * 1e3:.2f} ms")
    print(f"{name}: {queued} queued: bare {queued / all_theirs_s:.0f}/s, comfypin {queued / all_ours_s:.0f}/s")
    return [
        say(f"{name}: overhead a job", (one_ours_s - one_theirs_s) * 1e3, "ms", most=MOST_OVERHEAD_S * 1e3),
        say(f"{name}: {queued} queued, of bare throughput", all_theirs_s / all_ours_s, "x", least=LEAST_THROUGHPUT),
    ]


def say(what: str, value: float, unit: str, *, most: float | None = None, least: float | None = None) -> bool:
    kept = (most is None or value < most) and (least is None or value >= least)
    promise = f"under {most:g}" if most is not None else f"at least {least:g}"
    print(f"{what}: {value:.3g} {unit} (promised: {promise} {unit}) {'ok' if kept else 'BROKEN'}", flush=True)
    return kept


def start_up() -> list[bool]:
    command = Path(sys.executable).with_name("comfypin")
    seconds = {"help": [], "python": []}  # type: dict[str, list[float]]
    for _ in range(15):
        for name, words in (("help", [str(command), "--help"]), ("python", [sys.executable, "-c", "pass"])):
            began = time.perf_counter()
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - began)
    print(f"python -c pass: {statistics.median(seconds['python']) * 1e3:.0f} ms")
    loaded = subprocess.run(
        [sys.executable, "-c", f"import comfypin, sys; print(*[m for m in {SDKS!r} if m in sys.modules])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    print(f"import comfypin loads of {', '.join(SDKS)}: {', '.join(loaded) or 'nothing'}")
    return [
        say("comfypin --help", statistics.median(seconds["help"]) * 1e3, "ms", most=MOST_HELP_S * 1e3),
        not loaded,
    ]


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=60, help="jobs of each client")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of queued prompts of each client")
    parser.add_argument("--queued", type=int, default=50, help="prompts that are queued at once")
    parser.add_argument(
        "--comfyui", type=Path, metavar="DIR", help="a ComfyUI with its venv, instead of the embedded engine"
    )
    arguments = parser.parse_args()
    counts = Counts(jobs=arguments.jobs, rounds=arguments.rounds, queued=arguments.queued)
    kept = start_up()
    if arguments.comfyui:
        engine = EngineSpec(args=("--disable-api-nodes",))
        spec = comfyui_child(arguments.comfyui, engine, os.environ, gpu=has_gpu(os.environ))
    else:
        spec = embedded_child(EngineSpec(kind="embedded"), os.environ)
    with tempfile.TemporaryDirectory(prefix="comfypin-bench-") as work:
        async with open_child(spec, Path(work)) as engine:
            url = str((await engine.address()).url).rstrip("/")
            kept += await measure(engine, url, counts, name="child process")
            async with open_remote(url) as remote:
                kept += await measure(remote, url, counts, name="by URL")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

"""What a worker's pipelining gains, how long its engine idles, and what a job costs over the engine alone.

    python bench/worker.py [--jobs 20] [--gpu-s 1.0] [--size-mb 20] [--rate-mb-s 40] [--small-jobs 100]

The first part runs jobs through the worker's handler on an engine that takes `--gpu-s` a prompt, and delivers to a
bucket that takes `--rate-mb-s`: one job after the other, then with concurrency 2, in the same run. The engine's idle
share counts from its first prompt's start to its last one's end. The second part runs a small picture on the embedded
engine, by turns through the handler and through the engine alone; the median difference is the overhead.
"""

# ruff: noqa: E402 - the path comes first, so that the file runs from a checkout
import argparse
import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "src")]

from comfypin import wiring
from comfypin.engine.interface import Engine, EngineEvent, Prompt, PromptOutputs
from comfypin.jobs.handler import Handler
from comfypin.lock.codec import read_lock
from comfypin.outputs.inline import InlineSink
from comfypin.outputs.interface import Delivery, JobFacts, Output
from comfypin.settings.environment import Settings
from comfypin.testing import FakeEngine, fake_output
from comfypin.workflow.document import to_document
from comfypin.workflow.parse import parse_document
from tests.support.services import a_service
from tests.support.workflows import picture

ROOT = Path(__file__).parent.parent


class SlowEngine(FakeEngine):
    """One prompt at a time, `gpu_s` each, with one large output; it notes when it worked."""

    def __init__(self, *, gpu_s: float, output: bytes) -> None:
        super().__init__()
        self.spans: list[tuple[float, float]] = []
        self._gpu_s = gpu_s
        self._output = output
        self._gpu = asyncio.Lock()

    async def events(self, prompt_id: str) -> AsyncGenerator[EngineEvent, None]:
        async with self._gpu:
            began_s = time.monotonic()
            await asyncio.sleep(self._gpu_s)
            self.spans.append((began_s, time.monotonic()))
        async for event in super().events(prompt_id):
            yield event

    async def outputs(self, prompt_id: str) -> PromptOutputs:
        return PromptOutputs(files=(fake_output(self._output),))

    @property
    def idle_share(self) -> float:
        spans = sorted(self.spans)
        whole_s = spans[-1][1] - spans[0][0]
        return 1 - sum(end - start for start, end in spans) / whole_s


class PacedSink:
    """A bucket at a rate, shared by all uploads."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._line = asyncio.Lock()

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        async with self._line:
            await asyncio.sleep(sum(output.size_bytes for output in outputs) / self._bytes_per_s)
        return tuple(Delivery(output=output, uri=f"s3://bench/{job.job_id}") for output in outputs)


async def pipelined(arguments: argparse.Namespace, concurrency: int) -> tuple[float, float]:
    """Jobs a minute, and the engine's idle share."""
    engine = SlowEngine(gpu_s=arguments.gpu_s, output=os.urandom(arguments.size_mb * 1_000_000))
    handler = Handler(a_service(engine, sink=PacedSink(arguments.rate_mb_s * 1e6)))
    numbers = iter(range(arguments.jobs))

    async def work() -> None:
        for number in numbers:
            outcome = await handler(f"job-{number}", {"workflow": picture(number)})
            assert outcome.failure is None, outcome.output

    began_s = time.monotonic()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    return arguments.jobs / (time.monotonic() - began_s) * 60, engine.idle_share


async def alone(engine: Engine, number: int) -> None:
    """What the engine itself takes for a picture."""
    graph = parse_document(to_document(picture(number), source="bench"))
    prompt_id = str(uuid.uuid4())
    await engine.submit(Prompt(prompt_id=prompt_id, graph=graph))
    async for _ in engine.events(prompt_id):
        pass
    await engine.outputs(prompt_id)


async def overhead(jobs: int) -> tuple[float, float]:
    """Median seconds of a job through the handler, and of the engine alone, by turns."""
    lock = read_lock(ROOT / "lockfiles" / "comfy-demo.lock.json").lock
    settings = Settings(os.environ)
    async with wiring.open_engine(wiring.choose_engine(lock.engine, settings)) as engine:
        handler = Handler(wiring.open_service(lock, engine, lambda *_: InlineSink(), settings=settings))
        whole: list[float] = []
        bare: list[float] = []
        colors = itertools.count()
        for _ in range(jobs):
            began_s = time.monotonic()
            outcome = await handler("bench", {"workflow": picture(next(colors)), "output": {"mode": "base64"}})
            whole.append(time.monotonic() - began_s)
            assert outcome.failure is None, outcome.output
            began_s = time.monotonic()
            await alone(engine, next(colors))
            bare.append(time.monotonic() - began_s)
    return statistics.median(whole), statistics.median(bare)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--gpu-s", type=float, default=1.0)
    parser.add_argument("--size-mb", type=int, default=20)
    parser.add_argument("--rate-mb-s", type=float, default=40)
    parser.add_argument("--small-jobs", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        rates = {}
        for concurrency in (1, 2):
            rates[concurrency], idle = asyncio.run(pipelined(arguments, concurrency))
            print(f"concurrency {concurrency}: {rates[concurrency]:.1f} jobs a minute, engine idle {idle:.1%}")
        print(f"pipelined / sequential: {rates[2] / rates[1]:.2f}x")
        whole_s, bare_s = asyncio.run(overhead(arguments.small_jobs))
    over_s = whole_s - bare_s
    print(f"a job {whole_s * 1e3:.1f} ms, the engine alone {bare_s * 1e3:.1f} ms: {over_s * 1e3:.1f} ms over it")


if __name__ == "__main__":
    main()

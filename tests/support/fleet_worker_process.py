"""A worker of the demo release in a process of its own without an engine: `python -m ... QUEUE SECONDS`.

Everything but the engine is real, so that many of them start and die within a test. Each job takes the seconds. Its
waits are those of `quick_fleet`, and so must be those of the servers.
"""

import asyncio
import contextlib
import secrets
import signal
import sys
from collections.abc import AsyncIterator

from comfypin.cli import console
from comfypin.cli.common import read_release
from comfypin.jobs.interface import Handle, JobOutcome, ProgressCallback, ignore_progress
from comfypin.lock.codec import lock_digest
from comfypin.queue.nats.connection import parse_queue_address
from comfypin.queue.nats.fleet import open_fleet
from comfypin.queue.nats.progress import ProgressPublisher
from comfypin.queue.nats.worker import FleetWorker, WorkerOptions
from comfypin.queue.steady_clock import steady_clock
from comfypin.settings.environment import Settings
from comfypin.settings.fleet import FleetSettings
from comfypin.wiring import release_key
from tests.support.quick_fleet import make_quick


async def work(queue: str, job_s: float) -> None:
    """Work until SIGTERM."""

    async def handle(job_id: str, document: object, *, progress: ProgressCallback = ignore_progress) -> JobOutcome:
        progress({"progress": 0.5})
        await asyncio.sleep(job_s)
        return JobOutcome(output={"job": job_id, "document": document})  # type: ignore[dict-item]

    @contextlib.asynccontextmanager
    async def open_release(_release: str) -> AsyncIterator[Handle]:
        yield handle

    release = release_key(lock_digest(read_release("demo", Settings({}))))
    async with open_fleet(parse_queue_address(queue), FleetSettings(), client_name="test worker") as fleet:
        worker = FleetWorker(
            fleet,
            WorkerOptions(own=release, releases={release: "demo"}),
            open_release,
            worker_id=f"worker-{secrets.token_hex(4)}",
            clock=steady_clock(),
            publisher=ProgressPublisher(fleet.client),
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.serve()


if __name__ == "__main__":
    make_quick()
    console.configure_service_logging(as_json=True, verbose=False)
    asyncio.run(work(sys.argv[1], float(sys.argv[2])))

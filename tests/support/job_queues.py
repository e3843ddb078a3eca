"""Both queues as a server has them, with a handler that does what its job says, for the suite that both must pass."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfypin.engine.errors import PromptLost
from comfypin.engine.interface import PreviewMade
from comfypin.jobs.interface import Handle, JobOutcome, ProgressCallback, ignore_progress
from comfypin.jobs.previews import PreviewSink
from comfypin.queue.interface import RunnableQueue, SharedKeys
from comfypin.queue.job_runner import QueueLimits
from comfypin.queue.local_queue import LocalJobQueue
from comfypin.queue.nats.connection import parse_queue_address
from comfypin.queue.nats.fleet import open_fleet
from comfypin.queue.nats.nats_queue import NatsJobQueue
from comfypin.queue.nats.progress import ProgressPublisher
from comfypin.queue.nats.shared_keys import FleetKeys
from comfypin.queue.nats.worker import FleetWorker, WorkerOptions
from comfypin.queue.sqlite import JobStore
from comfypin.queue.steady_clock import steady_clock
from comfypin.queue.webhook import Webhooks
from comfypin.retry import RetryPolicy
from comfypin.settings.fleet import FleetSettings

RELEASE = "ab" * 8
NAME = "demo"
PREVIEW = PreviewMade(node_id="7", data=b"\xff\xd8 half done", content_type="image/jpeg")
FLEET_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
SEALED = FleetSettings(seal=FLEET_KEY)


async def until(condition: Callable[[], bool], within_s: float = 60) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is looked at tells nobody
            await asyncio.sleep(0.01)


class Work:
    """Does what a job's input says: `hold` until released, `show` a preview until then, `fail`, or nothing.

    It notes what ran, and what was cut off. Whoever runs it sets `previews`.
    """

    previews: PreviewSink

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.cut_off: list[Any] = []
        self.release = asyncio.Event()

    async def __call__(
        self, job_id: str, document: object, *, progress: ProgressCallback = ignore_progress
    ) -> JobOutcome:
        self.ran.append(document)
        asked = document.get("do") if isinstance(document, Mapping) else None
        progress({"progress": 0.5, "nodes_total": 2, "nodes_done": 1})
        if asked == "hold":
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cut_off.append(document)
                raise
        if asked == "show":
            while not self.release.is_set():
                if self.previews.is_wanted(job_id):
                    self.previews.show(job_id, PREVIEW)
                await asyncio.sleep(0.02)
        if asked == "fail":
            return JobOutcome(output={"error": "it failed"}, failure=PromptLost(prompt_id=job_id))
        return JobOutcome(output={"done": True, "images": [{"filename": "a.png", "url": "http://a.test/a.png"}]})


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A queue of a server that runs, and the file beside it."""

    queue: RunnableQueue
    store: JobStore
    work: Work
    keys: SharedKeys | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, job_input: object = None, **more: Any) -> str:
        policy: Mapping[str, Any] = {"webhook": None, "timeout_s": None, "ttl_s": None, **more}
        return await self.queue.accept_job(job_input or {"do": "nothing"}, **policy)

    async def end(self, job_id: str) -> Any:
        """The job's record once it has ended."""
        record = await self.queue.read_record(job_id, wait_s=30)
        assert record.row.ended_at is not None, record
        return record

    async def running(self, count: int = 1) -> None:
        """Wait until so many jobs have begun, and the server knows of one that runs."""
        await until(lambda: self.queue.running_count >= 1 and len(self.work.ran) >= count)


def webhooks() -> Webhooks:
    return Webhooks(secret=None, allow_private=True, retry_policy=RetryPolicy(retries=1, base_s=0.01))


@contextlib.asynccontextmanager
async def local_queue(folder: Path, work: Work, *, runs: bool = True, **limits: Any) -> AsyncIterator[Opened]:
    """The queue in a file."""
    store = JobStore(folder / "jobs.sqlite")
    limits = {"max_running": 1, **limits}
    queue = LocalJobQueue(store, webhooks(), QueueLimits(**limits), worker_id="test", release=NAME)
    work.previews = queue.previews
    await queue.recover_jobs()
    running = asyncio.create_task(queue.run_jobs(work)) if runs else None
    try:
        yield Opened(queue=queue, store=store, work=work)
    finally:
        await queue.stop_jobs(0)
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        store.close()


@contextlib.asynccontextmanager
async def fleet_queue(
    folder: Path,
    work: Work,
    address: str,
    *,
    runs: bool = True,
    settings: FleetSettings = SEALED,
    worker_settings: FleetSettings | None = None,
    **limits: Any,
) -> AsyncIterator[Opened]:
    """The queue of a fleet, as a server sees it, and one worker beside."""
    limits.pop("max_running", None)
    store = JobStore(folder / "fleet.sqlite")
    async with open_fleet(parse_queue_address(address), settings, client_name="test serve") as fleet:
        queue = NatsJobQueue(
            fleet,
            store,
            QueueLimits(**limits),
            release=RELEASE,
            release_name=NAME,
            clock=steady_clock(),
            webhooks=webhooks(),
        )
        await queue.recover_jobs()
        following = asyncio.create_task(queue.run_jobs(work))
        try:
            async with contextlib.AsyncExitStack() as stack:
                if runs:
                    await stack.enter_async_context(fleet_worker(work, address, settings=worker_settings or settings))
                yield Opened(queue=queue, store=store, work=work, keys=FleetKeys(fleet.keys))
        finally:
            await queue.stop_jobs(0)
            await asyncio.wait([following], timeout=5)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            store.close()


@contextlib.asynccontextmanager
async def fleet_worker(
    handle: Handle,
    address: str,
    *,
    settings: FleetSettings = SEALED,
    releases: Mapping[str, str] | None = None,
    grace_s: float = 0.0,
    swap_s: float = 0.0,
    **options: Any,
) -> AsyncIterator[FleetWorker]:
    """A worker in this process, whose releases all run on one handler, and take `swap_s` to open."""

    @contextlib.asynccontextmanager
    async def open_release(_release: str) -> AsyncIterator[Handle]:
        await asyncio.sleep(swap_s)
        yield handle

    known = releases or {RELEASE: NAME}
    async with open_fleet(parse_queue_address(address), settings, client_name="test worker") as fleet:
        publisher = ProgressPublisher(fleet.client)
        if isinstance(handle, Work):
            handle.previews = publisher
        worker = FleetWorker(
            fleet,
            WorkerOptions(own=next(iter(known)), releases=known, grace_s=grace_s, **options),
            open_release,
            worker_id=f"worker-{id(handle)}",
            clock=steady_clock(),
            publisher=publisher,
        )
        serving = asyncio.create_task(worker.serve())
        try:
            yield worker
        finally:
            worker.stop()
            await asyncio.wait_for(serving, 30)

"""The figures of a fleet among a server's metrics, asked of the queue when Prometheus asks for them."""

import asyncio
import concurrent.futures
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from nats.errors import Error

from comfypin.jobs.metrics import FleetFigures
from comfypin.queue.nats.overview import FleetOverview, read_overview
from comfypin.queue.nats.worker_records import WorkerRecord

if TYPE_CHECKING:
    from comfypin.queue.nats.fleet import Fleet

# Several Prometheus servers, and people, ask at about the same time.
_GOOD_FOR_S = 5.0
# Prometheus itself gives up after ten seconds.
_READ_WITHIN_S = 5.0


class FiguresReader:
    """Reads the figures for the threads in which metrics are rendered."""

    def __init__(self, fleet: "Fleet", count_dead: Callable[[], int | None]) -> None:
        self._fleet = fleet
        self._count_dead = count_dead
        self._loop = asyncio.get_running_loop()
        self._known: FleetFigures | None = None
        self._read_at_s = float("-inf")

    def read(self) -> FleetFigures | None:
        """Return the figures as they were at most five seconds ago, None if the queue does not answer. Blocks."""
        if time.monotonic() - self._read_at_s > _GOOD_FOR_S:
            # Metrics are rendered in threads, and the connection belongs to the loop.
            asking = asyncio.run_coroutine_threadsafe(self._ask(), self._loop)
            try:
                self._known = asking.result(_READ_WITHIN_S)
            except (Error, TimeoutError, OSError, concurrent.futures.CancelledError):
                asking.cancel()
                self._known = None
            # After a failure, too: a queue that is away must not hold up each page for five seconds.
            self._read_at_s = time.monotonic()
        return self._known

    async def _ask(self) -> FleetFigures | None:
        dead = self._count_dead()
        # A server that still reads its history tells nothing, rather than too little.
        if dead is None:
            return None
        return summarize(await read_overview(self._fleet, now=time.time(), with_dead=False), dead=dead)


def summarize(overview: FleetOverview, *, dead: int) -> FleetFigures:
    """Return the figures of an overview (pure)."""
    workers: Counter[tuple[str, str, str]] = Counter()
    for worker in overview.workers:
        names = dict(worker.releases)
        workers[names[worker.warm or worker.own], worker.gpu_class, _state_of(worker)] += 1
    return FleetFigures(
        workers=workers,
        lines={
            (backlog.release_name, backlog.lane.gpu_class, backlog.lane.priority): (
                backlog.waiting,
                backlog.running,
                backlog.oldest_wait_s,
            )
            for backlog in overview.lanes
        },
        dead=dead,
    )


def _state_of(worker: WorkerRecord) -> str:
    if worker.is_stopping:
        return "stopping"
    if worker.warm is None:
        return "starting"
    return "busy" if worker.jobs else "idle"

"""What waits for a release, who works for it, and how many workers that takes for a wait that was asked for."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats.js.api import ConsumerConfig, DeliverPolicy

from comfypin.queue.nats.fleet_job import FleetJob
from comfypin.queue.nats.names import ANY_CLASS, lanes_of_worker
from comfypin.queue.nats.overview import LaneBacklog
from comfypin.queue.nats.pulling import read_at_once
from comfypin.queue.nats.worker_records import WorkerRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from comfypin.queue.nats.fleet import Fleet

# Enough for the pace of each release; reading all would take seconds of each pass while many jobs wait.
_NEWEST_RECORDS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a release asks of its workers of one class. `job_s` is what its last jobs took, None if none is known."""

    release: str
    gpu_class: str
    waiting: int = 0
    running: int = 0
    oldest_wait_s: float = 0.0
    job_s: float | None = None
    workers: tuple[WorkerRecord, ...] = ()

    def backlog_s(self, job_s: float) -> float:
        """Return the seconds that one worker would need for all of it; jobs that run are half done."""
        return (self.waiting + self.running / 2) * job_s

    def workers_needed(self, *, target_wait_s: float, job_s: float) -> int:
        """Return how many workers empty the backlog within the wait that was asked for; no more than there are jobs."""
        # Jobs that run have their workers already.
        if not self.waiting:
            return 0
        return min(math.ceil(self.backlog_s(job_s) / target_wait_s), self.waiting + self.running)


def measure_demand(
    release: str,
    gpu_class: str,
    *,
    lanes: "Sequence[LaneBacklog]",
    workers: "Iterable[WorkerRecord]",
    job_s: float | None,
) -> Demand:
    """Return the demand for workers of this class. Pure. Workers of other classes help with jobs of any class only."""
    served = set(lanes_of_worker(release, gpu_class))
    ours = [lane for lane in lanes if lane.lane in served]
    return Demand(
        release=release,
        gpu_class=gpu_class,
        waiting=sum(lane.waiting for lane in ours),
        running=sum(lane.running for lane in ours),
        oldest_wait_s=max((lane.oldest_wait_s for lane in ours), default=0.0),
        job_s=job_s,
        workers=tuple(
            worker
            for worker in workers
            # Workers that only help out with a release leave it when their own has jobs.
            if worker.own == release and not worker.is_stopping and gpu_class in (ANY_CLASS, worker.gpu_class)
        ),
    )


async def read_newest_jobs(fleet: "Fleet") -> list[FleetJob]:
    """Return the jobs whose records were changed last. Raises what nats-py raises."""
    bucket = fleet.states.bucket
    info = await fleet.stream.stream_info(bucket.stream_name)
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        # The stream counts from 1.
        opt_start_seq=max(1, info.state.last_seq - _NEWEST_RECORDS),
    )
    messages = await read_at_once(fleet.client, fleet.stream, bucket.stream_name, config)
    return [FleetJob.load(message.data) for message in messages]


def mean_run_s(jobs: "Iterable[FleetJob]") -> dict[str, float]:
    """Return what completed jobs took on average, by release. Pure."""
    spans: dict[str, list[float]] = {}
    for job in jobs:
        row = job.row
        if row.state == "COMPLETED" and row.started_at is not None and row.ended_at is not None:
            spans.setdefault(job.lane.release, []).append(max(0.0, row.ended_at - row.started_at))
    return {release: sum(known) / len(known) for release, known in spans.items()}

"""What people ask of a fleet: who works, what waits and for how long, which jobs were given up and why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats.js.api import ConsumerConfig, DeliverPolicy

from comfypin.digest import JsonValue
from comfypin.queue.nats import names
from comfypin.queue.nats.backlogs import read_lane
from comfypin.queue.nats.buckets import Bucket
from comfypin.queue.nats.dead_jobs import DeadJob, ask_for_dead_jobs, dead_job
from comfypin.queue.nats.fleet_job import NOT_DEAD, FleetJob
from comfypin.queue.nats.names import Lane
from comfypin.queue.nats.pulling import read_at_once
from comfypin.queue.nats.releases import release_names
from comfypin.queue.nats.worker_records import WorkerRecord

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.js.api import ConsumerInfo

    from comfypin.queue.nats.fleet import Fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneBacklog:
    """One line of jobs: how many wait, for how long the oldest has, and how many run."""

    lane: Lane
    release_name: str
    waiting: int
    running: int
    oldest_wait_s: float

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON form."""
        return {
            "release": self.release_name,
            "release_key": self.lane.release,
            "class": self.lane.gpu_class,
            "priority": self.lane.priority,
            "waiting": self.waiting,
            "running": self.running,
            "oldest_wait_s": round(self.oldest_wait_s, 1),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOverview:
    """A fleet as it is now. `dead` is None if nobody asked for the jobs that were given up."""

    workers: tuple[WorkerRecord, ...]
    lanes: tuple[LaneBacklog, ...]
    dead: tuple[DeadJob, ...] | None
    known: Mapping[str, str]
    read_at: float

    def release_name(self, release: str) -> str:
        """Return the name of a release, or its key if nobody has said its name."""
        return self.known.get(release, release)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON form."""
        return {
            "workers": [_worker_to_json(worker, self.read_at) for worker in self.workers],
            "backlog": [lane.to_json() for lane in self.lanes],
            **({} if self.dead is None else {"dead": [self._dead_to_json(job) for job in self.dead]}),
        }

    def _dead_to_json(self, job: DeadJob) -> dict[str, JsonValue]:
        release_name = self.release_name(job.release)
        return {"id": job.id, "release_name": release_name, "reason": job.reason, "ended_at": job.ended_at}


def _worker_to_json(worker: WorkerRecord, now: float) -> dict[str, JsonValue]:
    known = dict(worker.releases)
    return {
        "id": worker.id,
        "warm": known.get(worker.warm or "", worker.warm),
        "releases": list(known.values()),
        "class": worker.gpu_class,
        "gpu": worker.gpu,
        "jobs": list(worker.jobs),
        "age_s": round(now - worker.started_at, 1),
        "seen_s_ago": round(max(0.0, now - worker.seen_at), 1),
        "stopping": worker.is_stopping,
    }


async def read_overview(fleet: "Fleet", *, now: float, with_dead: bool = True) -> FleetOverview:
    """Return the fleet as it is now, with the jobs that were given up if `with_dead`. Raises what nats-py raises."""
    workers = await read_workers(fleet)
    known = await release_names(fleet.releases) | {
        release: release_name for worker in workers for release, release_name in worker.releases
    }
    return FleetOverview(
        workers=tuple(workers),
        lanes=await read_lanes(fleet, known, now=now),
        dead=tuple(await list_dead_jobs(fleet)) if with_dead else None,
        known=known,
        read_at=now,
    )


async def read_workers(fleet: "Fleet") -> list[WorkerRecord]:
    """Return the workers that live, oldest first. Raises what nats-py raises."""
    worker_records = [WorkerRecord.load(message.data) for message in await _read_newest(fleet, fleet.workers)]
    return sorted(worker_records, key=lambda worker: worker.started_at)


async def read_lanes(fleet: "Fleet", known: Mapping[str, str], *, now: float) -> tuple[LaneBacklog, ...]:
    """Return all lines of jobs. `known` are names by release. Raises what nats-py raises."""
    lanes = [
        await _read_lane_backlog(fleet, info, known, now=now)
        for info in await fleet.stream.consumers_info(names.JOBS_STREAM)
    ]
    return tuple(sorted(lanes, key=lambda lane: (lane.release_name, lane.lane.gpu_class, lane.lane.priority)))


async def list_busy_workers(fleet: "Fleet") -> set[str]:
    """Return the workers that run a job, as far as records tell. Reads every record once."""
    jobs = await _read_jobs(fleet, lambda record_bytes: b'"IN_PROGRESS"' in record_bytes)
    return {job.worker_id for job in jobs if job.row.state == "IN_PROGRESS"}


async def _read_lane_backlog(
    fleet: "Fleet", info: "ConsumerInfo", known: Mapping[str, str], *, now: float
) -> LaneBacklog:
    # The subject says what the consumer's name says, in parts.
    _, _, gpu_class, priority, release, *_ = str(info.config.filter_subject).split(".")
    lane = Lane(release=release, gpu_class=gpu_class, priority="high" if priority == "high" else "normal")
    waiting, oldest_wait_s = await read_lane(fleet.stream, lane, now=now)
    return LaneBacklog(
        lane=lane,
        release_name=known.get(release, release),
        waiting=waiting,
        running=info.num_ack_pending or 0,
        oldest_wait_s=oldest_wait_s,
    )


async def list_dead_jobs(fleet: "Fleet") -> list[DeadJob]:
    """Return the jobs that were given up, newest first. Raises what nats-py raises."""
    dead = await ask_for_dead_jobs(fleet.client)
    if dead is None:
        # No server runs, or those that do are behind.
        jobs = await _read_jobs(fleet, lambda record_bytes: NOT_DEAD not in record_bytes)
        dead = [job for job in map(dead_job, jobs) if job is not None]
    return sorted(dead, key=lambda job: job.ended_at, reverse=True)


async def _read_jobs(fleet: "Fleet", is_wanted: Callable[[bytes], bool]) -> Sequence[FleetJob]:
    """Return the newest records of the jobs that may be wanted, judging by their bytes: to parse all takes seconds."""
    messages = await _read_newest(fleet, fleet.states.bucket)
    return [FleetJob.load(message.data) for message in messages if is_wanted(message.data)]


async def _read_newest(fleet: "Fleet", bucket: Bucket) -> "list[Msg]":
    """Return the newest value of each key."""
    config = ConsumerConfig(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT, filter_subject=bucket.subject(">"))
    return await read_at_once(fleet.client, fleet.stream, bucket.stream_name, config)

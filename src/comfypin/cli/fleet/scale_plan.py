"""Plans one pass of `comfypin fleet scale`: how many pods each release lacks, and which pods are of no use any more.

Pure. A pod whose worker may run a job is never among those that go: workers leave by themselves when they idle.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comfypin.digest import JsonValue

if TYPE_CHECKING:
    from comfypin.queue.nats.demand import Demand
    from comfypin.queue.nats.rolls import Rolls
    from comfypin.queue.nats.worker_records import WorkerRecord
    from comfypin.runpod.fleet_pods import FleetPod


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleLimits:
    """How many pods a release may have, and for how long its jobs should wait at most.

    `job_s` is taken for what a job takes until some have ended; `start_timeout_s` is how long a pod may take to work.
    """

    least: int = 0
    most: int = 3
    target_wait_s: float = 60.0
    job_s: float = 30.0
    start_timeout_s: float = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleTarget:
    """A release that gets pods. `least` counts workers that should be there although nothing waits."""

    release: str
    name: str
    least: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePlan:
    """What one release has, needs and gets. `price` is dollars an hour of a new pod, None if nobody knows."""

    target: ScaleTarget
    demand: "Demand"
    job_s: float
    starting: int
    needed: int
    make: int
    price: float | None = None
    gpu: str | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON form."""
        return {
            "release": self.target.name,
            "release_key": self.target.release,
            "class": self.demand.gpu_class,
            "waiting": self.demand.waiting,
            "running": self.demand.running,
            "oldest_wait_s": round(self.demand.oldest_wait_s, 1),
            "job_s": round(self.job_s, 2),
            "workers": len(self.demand.workers),
            "starting": self.starting,
            "needed": self.needed,
            "make": self.make,
            "gpu": self.gpu,
            "price_per_hour": self.price,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class UselessPod:
    """A pod that is removed, and why."""

    pod: "FleetPod"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePlan:
    """One pass. Costs are dollars an hour: of all pods now, and once the plan is carried out."""

    releases: tuple[ReleasePlan, ...]
    useless: tuple[UselessPod, ...]
    cost_now: float

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to do."""
        return not self.useless and not any(release_plan.make for release_plan in self.releases)

    @property
    def cost_then(self) -> float | None:
        """Return what all pods cost once the new ones run, None if a price is unknown."""
        cost = self.cost_now - sum(useless_pod.pod.cost for useless_pod in self.useless)
        for release_plan in self.releases:
            # A sum with an unknown part would look like a price.
            if release_plan.make and release_plan.price is None:
                return None
            cost += release_plan.make * (release_plan.price or 0.0)
        return cost

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON form."""
        then = self.cost_then
        return {
            "releases": [release_plan.to_json() for release_plan in self.releases],
            "remove": [
                {"id": useless_pod.pod.id, "name": useless_pod.pod.name, "reason": useless_pod.reason}
                for useless_pod in self.useless
            ],
            "cost_per_hour": round(self.cost_now, 4),
            "cost_per_hour_then": None if then is None else round(then, 4),
        }


def choose_targets(
    base: Sequence[tuple[str, str]], rolls: "Rolls", workers: "Sequence[WorkerRecord]", limits: ScaleLimits
) -> tuple[ScaleTarget, ...]:
    """Return the releases that get pods: the newest of each line with the least that was asked for, older ones too.

    A release that takes the place of another starts as many workers as that has, before it gets its jobs.
    """
    names = dict(base) | rolls.names()
    targets: dict[str, ScaleTarget] = {}
    for release, _name in base:
        newest = rolls.wanted(release)
        # Older releases of the line keep no workers ready, but get pods while jobs wait for them.
        while release != newest:
            targets.setdefault(release, ScaleTarget(release=release, name=names[release]))
            roll = rolls.current[release]
            release = roll.new
            if release == newest and not roll.is_held:
                # As many as the old release has, so that nobody waits longer when its jobs move over.
                before = sum(worker.own == roll.old and not worker.is_stopping for worker in workers)
                least = min(limits.most, max(1, limits.least, before))
                targets[newest] = ScaleTarget(release=newest, name=names[newest], least=least)
        targets.setdefault(newest, ScaleTarget(release=newest, name=names[newest], least=limits.least))
    return tuple(targets.values())


def plan_scale(
    targets: Sequence[ScaleTarget],
    demands: "Mapping[str, Demand]",
    pods: "Sequence[FleetPod]",
    *,
    limits: ScaleLimits,
    worker_ids: Collection[str],
    useless: Sequence[UselessPod],
) -> ScalePlan:
    """Return the plan for what was read. `worker_ids` are all workers that live."""
    gone = {useless_pod.pod.id for useless_pod in useless}
    # Pods that end count for nothing, though Runpod may still bill their disks: `cost_now` has them.
    alive = [pod for pod in pods if pod.id not in gone and not pod.has_ended]
    return ScalePlan(
        releases=tuple(_plan_release(target, demands[target.release], alive, limits, worker_ids) for target in targets),
        useless=tuple(useless),
        cost_now=sum(pod.cost for pod in pods),
    )


def find_silent_pods(
    pods: "Sequence[FleetPod]", worker_ids: Collection[str], *, seen: Mapping[str, float], now: float, limit_s: float
) -> "list[FleetPod]":
    """Return the pods whose worker has not been heard of for too long. `seen` is when this process last heard of it."""
    return [
        pod
        for pod in pods
        if not pod.has_ended
        and not works(pod, worker_ids)
        and now - max(pod.created_at, seen.get(pod.id, 0.0)) > limit_s
    ]


def find_useless_pods(
    pods: "Sequence[FleetPod]", silent: "Sequence[FleetPod]", busy_workers: Collection[str], *, limit_s: float
) -> tuple[UselessPod, ...]:
    """Return the pods to remove: those that have ended, and silent ones that run no job as far as records tell."""
    ended = [UselessPod(pod=pod, reason=f"it is {pod.status.lower()}") for pod in pods if pod.has_ended]
    reason = f"no worker was heard of for {limit_s:.0f} s"
    return (*ended, *(UselessPod(pod=pod, reason=reason) for pod in silent if not works(pod, busy_workers)))


def works(pod: "FleetPod", worker_ids: Collection[str]) -> bool:
    """Return whether a worker of this pod is among these: workers on pods are named after them."""
    # The dash: one pod's id may begin with another's.
    return any(worker_id.startswith(f"{pod.id}-") for worker_id in worker_ids)


def _plan_release(
    target: ScaleTarget,
    demand: "Demand",
    alive: "Sequence[FleetPod]",
    limits: ScaleLimits,
    worker_ids: Collection[str],
) -> ReleasePlan:
    ours = [pod for pod in alive if pod.release == target.release and pod.gpu_class == demand.gpu_class]
    starting = sum(not works(pod, worker_ids) for pod in ours)
    job_s = demand.job_s or limits.job_s
    needed = max(target.least, demand.workers_needed(target_wait_s=limits.target_wait_s, job_s=job_s))
    # Pods that start are on their way: made again in each pass, they would be far too many.
    lacking = needed - len(demand.workers) - starting
    return ReleasePlan(
        target=target,
        demand=demand,
        job_s=job_s,
        starting=starting,
        needed=needed,
        make=max(0, min(lacking, limits.most - len(ours))),
    )

"""How many pods one pass of `fleet scale` makes, and which it removes."""

import dataclasses

import pytest

from comfypin.cli.fleet.scale_plan import (
    ScaleLimits,
    ScalePlan,
    ScaleTarget,
    choose_targets,
    find_silent_pods,
    find_useless_pods,
    plan_scale,
)
from comfypin.queue.nats.demand import Demand, measure_demand
from comfypin.queue.nats.names import Lane
from comfypin.queue.nats.overview import LaneBacklog
from comfypin.queue.nats.rolls import NO_ROLLS, Roll
from comfypin.queue.nats.worker_records import WorkerRecord
from comfypin.runpod.fleet_pods import FleetPod

LIMITS = ScaleLimits(most=4, target_wait_s=60, job_s=30, start_timeout_s=600)


def worker(worker_id: str = "desk-1", release: str = "a", gpu_class: str = "any") -> WorkerRecord:
    return WorkerRecord(
        id=worker_id,
        warm=release,
        releases=((release, "demo"),),
        gpu_class=gpu_class,
        gpu=None,
        concurrency=1,
        jobs=(),
        started_at=0.0,
        seen_at=0.0,
    )


def pod(pod_id: str = "p1", *, release: str = "a", status: str = "RUNNING", created_at: float = 1000.0) -> FleetPod:
    return FleetPod(
        id=pod_id, name=pod_id, release=release, gpu_class="any", status=status, cost=0.5, created_at=created_at
    )


def demand(waiting: int, running: int = 0, *workers: WorkerRecord, job_s: float | None = None) -> Demand:
    return Demand(release="a", gpu_class="any", waiting=waiting, running=running, workers=workers, job_s=job_s)


def plan(wanted: Demand, *pods: FleetPod, least: int = 0, workers: tuple[str, ...] = ()) -> ScalePlan:
    target = ScaleTarget(release="a", name="demo", least=least)
    return plan_scale([target], {"a": wanted}, pods, limits=LIMITS, worker_ids=set(workers), useless=())


@pytest.mark.parametrize(
    ("waiting", "job_s", "made"),
    [(0, 30, 0), (1, 0.1, 1), (2, 30, 1), (3, 30, 2), (4, 600, 4), (1, 600, 1), (100, 600, 4)],
)
def test_pods_are_made_for_the_wait_that_was_asked_for(waiting: int, job_s: float, made: int) -> None:
    assert plan(demand(waiting, job_s=job_s)).releases[0].make == made


def test_without_history_a_job_takes_what_was_said() -> None:
    assert plan(demand(4)).releases[0].make == 2


def test_workers_elsewhere_and_pods_that_start_count() -> None:
    assert plan(demand(8, 0, worker())).releases[0].make == 3
    assert plan(demand(8, 0, worker()), pod("p1"), pod("p2")).releases[0].make == 1


def test_a_pod_that_works_is_counted_once() -> None:
    wanted = demand(8, 0, worker("p1-ab12"))
    one = plan(wanted, pod("p1"), workers=("p1-ab12",)).releases[0]
    assert (one.starting, one.make) == (0, 3)


def test_there_are_never_more_pods_than_allowed() -> None:
    assert plan(demand(100), *(pod(f"p{number}") for number in range(3))).releases[0].make == 1


def test_the_least_is_made_although_nothing_waits() -> None:
    assert plan(demand(0), least=2).releases[0].make == 2
    assert plan(demand(0, 0, worker()), least=2).releases[0].make == 1


def test_the_cost_is_told_before_anything_is_made() -> None:
    priced = plan(demand(4), pod("p1"))
    (one,) = priced.releases
    assert priced.cost_now == 0.5
    assert one.make == 1
    assert dataclasses.replace(priced, releases=(dataclasses.replace(one, price=0.25),)).cost_then == 0.75
    assert priced.cost_then is None


def test_only_jobs_that_a_class_may_run_count_for_it() -> None:
    lanes = [
        LaneBacklog(
            lane=Lane(release=release, gpu_class=gpu_class),
            release_name="demo",
            waiting=count,
            running=0,
            oldest_wait_s=float(count),
        )
        for release, gpu_class, count in (("a", "any", 1), ("a", "rtx4090", 2), ("a", "h100", 4), ("b", "any", 8))
    ]
    workers = [worker("w1"), worker("w2", gpu_class="rtx4090"), worker("w3", release="b")]
    measured = measure_demand("a", "rtx4090", lanes=lanes, workers=workers, job_s=None)
    assert (measured.waiting, measured.oldest_wait_s) == (3, 2.0)
    assert [one.id for one in measured.workers] == ["w2"]


def test_ended_pods_go_and_silent_ones_unless_they_run_a_job() -> None:
    pods = [pod("ended", status="EXITED"), pod("silent"), pod("busy"), pod("works"), pod("young", created_at=1900.0)]
    silent = find_silent_pods(pods, {"works-1"}, seen={}, now=2000.0, limit_s=600)
    assert [one.id for one in silent] == ["silent", "busy"]
    useless = find_useless_pods(pods, silent, {"busy-1"}, limit_s=600)
    assert [one.pod.id for one in useless] == ["ended", "silent"]
    assert find_silent_pods(pods, {"works-1"}, seen={"silent": 1500.0, "busy": 1500.0}, now=2000.0, limit_s=600) == []


def rolled(*, held: bool) -> Roll:
    return Roll(old="a", old_name="demo", new="b", new_name="demo-2", at=0.0, is_held=held)


def test_a_roll_starts_as_many_workers_as_the_old_release_has() -> None:
    workers = [worker("w1"), worker("w2")]
    targets = choose_targets([("a", "demo")], NO_ROLLS.with_roll(rolled(held=False)), workers, LIMITS)
    assert targets == (
        ScaleTarget(release="a", name="demo", least=0),
        ScaleTarget(release="b", name="demo-2", least=2),
    )


def test_after_a_roll_the_old_release_gets_pods_only_for_its_own_jobs() -> None:
    limits = dataclasses.replace(LIMITS, least=1)
    targets = choose_targets([("a", "demo")], NO_ROLLS.with_roll(rolled(held=True)), [worker("w1")], limits)
    assert [(one.release, one.least) for one in targets] == [("a", 0), ("b", 1)]

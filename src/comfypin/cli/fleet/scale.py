"""`comfypin fleet scale`: makes Runpod pods while jobs wait for longer than they should.

Pods leave by themselves: each runs one worker, which removes its pod once it has idled for --idle-exit seconds. This
command removes only pods that have ended, or whose worker never came.
"""

import argparse
import asyncio
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from comfypin.cli.common import print_on_stderr
from comfypin.cli.flag_values import parse_seconds, whole_number
from comfypin.cli.fleet.members import describe_span, with_fleet
from comfypin.cli.fleet.pod_flags import PodMaker, add_pod_flags, open_pod_maker
from comfypin.cli.fleet.scale_plan import (
    ReleasePlan,
    ScaleLimits,
    ScalePlan,
    UselessPod,
    choose_targets,
    find_silent_pods,
    find_useless_pods,
    plan_scale,
    works,
)
from comfypin.cli.runpod.consent import require_consent
from comfypin.errors import ComfypinError, UsageError
from comfypin.plurals import format_count

if TYPE_CHECKING:
    from comfypin.queue.nats.fleet import Fleet
    from comfypin.queue.nats.lease import FleetLease
    from comfypin.runpod.fleet_pods import FleetPod

EXIT_DIFFERENT = 2
# Pods in a row of a release whose workers never came: there is something wrong with it, and each costs.
_MOST_DUDS = 3
_DESCRIPTION = """Make Runpod pods by what waits: so many that the jobs that wait now begin within --target-wait
seconds. Shows its plan with the cost an hour and asks once. Each pod runs one worker, which removes its pod after
--idle-exit seconds without a job, so no running job is stopped. Goes on until Ctrl-C, or does one pass (--once)."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.description = _DESCRIPTION
    bounds = parser.add_argument_group("how many")
    bounds.add_argument("--min", type=whole_number(0, 10_000), default=0, metavar="N", help="workers that stay (0)")
    bounds.add_argument("--max", type=whole_number(0, 10_000), default=3, metavar="N", help="pods of a release (3)")
    bounds.add_argument(
        "--target-wait", type=parse_seconds, default=60, metavar="S", help="the seconds that jobs may wait (60)"
    )
    bounds.add_argument(
        "--job-seconds", type=parse_seconds, default=30, metavar="S", help="what a job takes until some have ended (30)"
    )
    add_pod_flags(parser)
    parser.add_argument("--once", action="store_true", help="do one pass, for a timer")
    parser.add_argument("--every", type=parse_seconds, default=15, metavar="S", help="seconds between passes (15)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan; exit code 2 if there is anything to do")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def execute(arguments: argparse.Namespace, address: str) -> int:
    """Scale, once or for ever."""
    if arguments.min > arguments.max:
        raise UsageError(f"--min {arguments.min} is more than --max {arguments.max}.")
    maker = open_pod_maker(arguments, address)
    limits = ScaleLimits(
        least=arguments.min,
        most=arguments.max,
        target_wait_s=arguments.target_wait,
        job_s=arguments.job_seconds,
        start_timeout_s=arguments.start_timeout or maker.start_timeout_s,
    )
    return with_fleet(arguments, address, lambda fleet: _scale(arguments, _open_scaler(fleet, maker, limits)))


@dataclass(slots=True)
class _Pass:
    """What one pass has done, and what has stopped it."""

    made: "list[FleetPod]" = field(default_factory=list)
    removed: "list[FleetPod]" = field(default_factory=list)
    failure: ComfypinError | None = None


@dataclass(slots=True)
class _Scaler:
    """What all passes share.

    `seen` is when a worker of each pod was last heard of, in seconds since 1970; `paces` are the seconds of a job by
    release; `duds` counts the pods in a row, by release, whose worker never came.
    """

    fleet: "Fleet"
    maker: PodMaker
    limits: ScaleLimits
    lease: "FleetLease"
    seen: dict[str, float] = field(default_factory=dict)
    paces: dict[str, float] = field(default_factory=dict)
    duds: dict[str, int] = field(default_factory=dict)

    async def plan(self) -> ScalePlan:
        """Read what there is, and plan one pass. Raises what nats-py raises, `DeployError`."""
        from comfypin.queue.nats.demand import mean_run_s, measure_demand, read_newest_jobs
        from comfypin.queue.nats.overview import read_lanes, read_workers
        from comfypin.queue.nats.queue_ids import read_queue_id
        from comfypin.queue.nats.rolls import read_rolls

        now = time.time()
        rolls = await read_rolls(self.fleet.control)
        workers = await read_workers(self.fleet)
        lanes = await read_lanes(self.fleet, {}, now=now)
        # Merged, not replaced: a release of which no job ended lately keeps the pace that it had.
        self.paces |= mean_run_s(await read_newest_jobs(self.fleet))
        self.maker.queue_id = await read_queue_id(self.fleet.control)
        pods = await asyncio.to_thread(self.maker.list_pods)
        worker_ids = {worker.id for worker in workers}
        self.seen |= {pod.id: now for pod in pods if works(pod, worker_ids)}
        # One worker that came proves that the release starts.
        self.duds |= {worker.own: 0 for worker in workers}
        useless = await self._find_useless(pods, worker_ids, now)
        targets = [
            target
            for target in choose_targets(self.maker.releases, rolls, workers, self.limits)
            if await self.maker.learn(self.fleet, target.release, rolls)
        ]
        demands = {
            target.release: measure_demand(
                target.release,
                self.maker.gpu_class,
                lanes=lanes,
                workers=workers,
                job_s=self.paces.get(target.release),
            )
            for target in targets
        }
        plan = plan_scale(targets, demands, pods, limits=self.limits, worker_ids=worker_ids, useless=useless)
        priced = [await asyncio.to_thread(self._price, release_plan) for release_plan in plan.releases]
        return replace(plan, releases=tuple(map(self._without_duds, priced)))

    def _without_duds(self, release_plan: ReleasePlan) -> ReleasePlan:
        """Make no more pods of a release that does not start: each would be billed until it is given up."""
        return (
            replace(release_plan, make=0)
            if self.duds.get(release_plan.target.release, 0) >= _MOST_DUDS
            else release_plan
        )

    async def _find_useless(
        self, pods: "tuple[FleetPod, ...]", worker_ids: set[str], now: float
    ) -> tuple[UselessPod, ...]:
        from comfypin.queue.nats.overview import list_busy_workers

        limit_s = self.limits.start_timeout_s
        # How long pods of another class may take to start is for the scaler of that class to know.
        own_pods = [pod for pod in pods if pod.gpu_class == self.maker.gpu_class]
        silent = find_silent_pods(own_pods, worker_ids, seen=self.seen, now=now, limit_s=limit_s)
        # Reading all records costs seconds; it is only needed to spare a silent pod that may still run a job.
        busy = await list_busy_workers(self.fleet) if silent else set()
        return find_useless_pods(pods, silent, busy, limit_s=limit_s)

    def _price(self, release_plan: ReleasePlan) -> ReleasePlan:
        gpus = self.maker.choose_gpus(release_plan.target.release)
        return replace(release_plan, gpu=gpus[0].id if gpus else None, price=gpus[0].price if gpus else None)

    async def carry_out(self, plan: ScalePlan) -> _Pass:
        """Do it, as far as Runpod lets us. Raises what nats-py raises."""
        done = _Pass()
        try:
            await self._remove_and_make(plan, done)
        except ComfypinError as failure:
            # Kept, not raised: what was made before is billed, and must be reported.
            done.failure = failure
        return done

    async def _remove_and_make(self, plan: ScalePlan, done: _Pass) -> None:
        from comfypin.queue.nats.floors import write_floor

        # First what is billed for nothing: whether there is room for others does not matter for that.
        for useless in plan.useless:
            self.lease.require_held()
            await asyncio.to_thread(self.maker.remove_pod, useless.pod)
            done.removed.append(useless.pod)
            if not useless.pod.has_ended and useless.pod.id not in self.seen:
                self.duds[useless.pod.release] = self.duds.get(useless.pod.release, 0) + 1
        for release_plan in plan.releases:
            self.lease.require_held()
            # Before the pods: a worker that comes must not leave at once because it idles.
            await write_floor(
                self.fleet.control, release_plan.target.release, self.maker.gpu_class, release_plan.target.least
            )
            for _ in range(release_plan.make):
                # Each takes up to minutes: whoever has the lease by then makes the pods of this plan.
                self.lease.require_held()
                done.made.append(await asyncio.to_thread(self.maker.make_pod, release_plan.target.release))


def _open_scaler(fleet: "Fleet", maker: PodMaker, limits: ScaleLimits) -> _Scaler:
    from comfypin.queue.nats.lease import FleetLease

    lease = FleetLease(fleet.leases, f"scale.{maker.fleet}.{maker.gpu_class}", maker.holder)
    return _Scaler(fleet, maker, limits, lease)


async def _scale(arguments: argparse.Namespace, scaler: _Scaler) -> int:
    if arguments.dry_run:
        plan = await scaler.plan()
        print(json.dumps(plan.to_json()) if arguments.json else "\n".join(plan_lines(plan, scaler.limits)))
        return 0 if plan.is_empty and not scaler.maker.missing_secrets() else EXIT_DIFFERENT
    # From before the plan: two that plan at the same time would make twice as many.
    async with scaler.lease.keep():
        return await _ask_and_scale(arguments, scaler)


async def _ask_and_scale(arguments: argparse.Namespace, scaler: _Scaler) -> int:
    plan = await scaler.plan()
    print_on_stderr("\n".join(plan_lines(plan, scaler.limits)))
    missing = await asyncio.to_thread(scaler.maker.missing_secrets)
    for secret_name in missing:
        print_on_stderr(f"+ secret {secret_name}")
    # A run that goes on is asked for even if nothing waits now: it will make pods later.
    if not plan.is_empty or missing or not arguments.once:
        most = f"at most {scaler.limits.most} pods of each release"
        question = f"This makes so many, {most}." if arguments.once else f"This goes on so: {most}."
        await asyncio.to_thread(require_consent, question, is_given=arguments.yes)
    await asyncio.to_thread(scaler.maker.make_secrets)
    if not arguments.once:
        return await _scale_forever(arguments, scaler)
    done = await scaler.carry_out(plan)
    _report_pass(arguments, plan, done)
    if done.failure is not None:
        raise done.failure
    return 0


async def _scale_forever(arguments: argparse.Namespace, scaler: _Scaler) -> int:
    """Scale again and again until a signal; a pass that fails is reported, and the next one tries again."""
    from nats.errors import Error

    stopping = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stopping.set)
    while not stopping.is_set():
        try:
            plan = await scaler.plan()
            done = await scaler.carry_out(plan)
            if done.made or done.removed or arguments.json:
                _report_pass(arguments, plan, done)
            if done.failure is not None:
                raise done.failure
            # Told when a pod of it was removed, not in each pass.
            for release in {pod.release for pod in done.removed}:
                count = scaler.duds.get(release, 0)
                if count >= _MOST_DUDS:
                    print_on_stderr(
                        f"comfypin: no more pods of {release}: the last {count} never worked; see their logs."
                    )
        except (ComfypinError, Error, TimeoutError, OSError) as failure:
            print_on_stderr(f"comfypin: this pass failed: {str(failure) or type(failure).__name__}")
        try:
            await asyncio.wait_for(stopping.wait(), arguments.every)
        except TimeoutError:
            continue
    print_on_stderr("Pods that work go on, and leave when they idle.")
    return 0


def _report_pass(arguments: argparse.Namespace, plan: ScalePlan, done: _Pass) -> None:
    if arguments.json:
        made = [{"id": pod.id, "name": pod.name, "release_key": pod.release} for pod in done.made]
        print(json.dumps({**plan.to_json(), "made": made, "removed": [pod.id for pod in done.removed]}), flush=True)
        return
    for pod in done.removed:
        print(f"removed pod {pod.name} ({pod.id})", flush=True)
    for pod in done.made:
        print(f"made pod {pod.name} ({pod.id})", flush=True)
    if not done.made and not done.removed and done.failure is None:
        print("nothing to do", flush=True)


def plan_lines(plan: ScalePlan, limits: ScaleLimits) -> Iterator[str]:
    """Yield the plan for people."""
    for release_plan in plan.releases:
        demand = release_plan.demand
        oldest = f", the oldest for {describe_span(demand.oldest_wait_s)}" if demand.waiting else ""
        yield (
            f"{release_plan.target.name} ({demand.gpu_class}): {demand.waiting} wait{oldest}; {demand.running} run; "
            f"{release_plan.job_s:.1f} s a job; {len(demand.workers)} work, {release_plan.starting} start, "
            f"{release_plan.needed} needed"
        )
        if release_plan.make:
            price = "of unknown price" if release_plan.price is None else f"${release_plan.price:.2f} an hour each"
            yield f"+ {format_count(release_plan.make, 'pod')} on {release_plan.gpu or 'a GPU that fits'}, {price}"
    for useless in plan.useless:
        yield f"- pod {useless.pod.name} ({useless.pod.id}): {useless.reason}"
    then, most = plan.cost_then, _most_cost(plan, limits)
    after = "unknown" if then is None else f"${then:.2f}"
    yield f"cost: ${plan.cost_now:.2f} an hour now, {after} then{most}"


def _most_cost(plan: ScalePlan, limits: ScaleLimits) -> str:
    prices = [release_plan.price for release_plan in plan.releases if release_plan.price is not None]
    return f", at most ${limits.most * max(prices) * len(plan.releases):.2f}" if prices else ""

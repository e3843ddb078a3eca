"""Look after a fleet: who works, what waits, which jobs were given up.

comfypin fleet status --watch                 workers, backlogs and dead letters, again every two seconds
comfypin fleet retry-dead                     run again all jobs whose workers died
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, TypeVar

from comfypin.errors import UsageError

if TYPE_CHECKING:
    from comfypin.queue.nats.fleet import Fleet
    from comfypin.queue.nats.overview import FleetOverview

T = TypeVar("T")

# As `watch` does by default.
_WATCH_EVERY_S = 2.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `fleet`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    status_parser = actions.add_parser("status", help="show workers, backlogs and jobs that were given up")
    status_parser.add_argument("--watch", action="store_true", help="show it again every two seconds, until Ctrl-C")
    retry_parser = actions.add_parser("retry-dead", help="run again the jobs whose workers died")
    retry_parser.add_argument("ids", nargs="*", metavar="ID", help="the jobs (default: all)")
    for verb_parser in (status_parser, retry_parser):
        verb_parser.add_argument(
            "--queue", metavar="ADDRESS", help="the fleet's queue, such as nats://host:4222 (default: COMFYPIN_QUEUE)"
        )
        verb_parser.add_argument("--json", action="store_true", help="print JSON")
        verb_parser.add_argument("--verbose", action="store_true", help="show the cause of failures")


def execute(arguments: argparse.Namespace) -> int:
    """Run the action."""
    from comfypin import wiring

    wiring.require_fleet_extra(f"comfypin fleet {arguments.action}")
    address = arguments.queue or arguments.settings.fleet.queue
    if address is None:
        raise UsageError("Which fleet? Give --queue nats://HOST:4222, or set COMFYPIN_QUEUE.")
    if arguments.action == "retry-dead":
        return asyncio.run(_with_fleet(arguments, address, lambda fleet: _retry_dead(arguments, fleet)))
    return asyncio.run(_with_fleet(arguments, address, lambda fleet: _show_status(arguments, fleet)))


async def _with_fleet(
    arguments: argparse.Namespace, address: str, act: "Callable[[Fleet], Coroutine[None, None, T]]"
) -> T:
    from comfypin.queue.nats.connection import parse_queue_address
    from comfypin.queue.nats.fleet import open_fleet

    settings = arguments.settings.fleet
    async with open_fleet(
        parse_queue_address(address), settings, client_name=f"comfypin fleet {arguments.action}"
    ) as fleet:
        return await act(fleet)


async def _show_status(arguments: argparse.Namespace, fleet: "Fleet") -> int:
    from comfypin.queue.nats.overview import read_overview

    while True:
        overview = await read_overview(fleet, now=time.time())
        if arguments.json:
            print(json.dumps(overview.to_json()), flush=True)
        else:
            if arguments.watch and sys.stdout.isatty():
                print("\x1b[2J\x1b[H", end="")  # clear the screen, as `watch` does
            print(render_overview(overview), flush=True)
        if not arguments.watch:
            return 0
        await asyncio.sleep(_WATCH_EVERY_S)


async def _retry_dead(arguments: argparse.Namespace, fleet: "Fleet") -> int:
    from comfypin.queue.nats.fleet_job import queued_again
    from comfypin.queue.nats.overview import list_dead_jobs

    dead = [job.id for job in await list_dead_jobs(fleet, {})]
    if unknown := sorted(set(arguments.ids) - set(dead)):
        raise UsageError(
            f"{', '.join(unknown)}: not among the jobs that were given up; `comfypin fleet status` lists them."
        )
    retried = []
    for job_id in arguments.ids or dead:
        now = time.time()
        stored_job = await fleet.states.change(job_id, lambda job, at=now: queued_again(job, at=at))  # type: ignore[misc]
        if stored_job is not None and stored_job.changed:
            await fleet.tickets.issue(stored_job.job)
            retried.append(job_id)
    if arguments.json:
        print(json.dumps({"retried": retried, "refused": sorted(set(arguments.ids or dead) - set(retried))}))
    else:
        print("\n".join(retried) if retried else "no job was given up")
    return 0


def render_overview(overview: "FleetOverview") -> str:
    """Return the overview as people read it (pure)."""
    noun = "worker" if len(overview.workers) == 1 else "workers"
    lines = [f"{len(overview.workers)} {noun}"]
    for worker in overview.workers:
        known = dict(worker.releases)
        warm = "starting" if worker.warm is None else known.get(worker.warm, worker.warm)
        doing = "stopping" if worker.is_stopping else f"runs {', '.join(worker.jobs)}" if worker.jobs else "idle"
        machine = " ".join(part for part in (worker.gpu_class, worker.gpu) if part)
        age = _describe_span(overview.read_at - worker.started_at)
        lines.append(f"  {worker.id:<32} {warm:<16} {machine:<20} {age:>6}  {doing}")
    lines.append("backlog")
    busy = [lane for lane in overview.lanes if lane.waiting or lane.running]
    for lane in busy:
        place = f"{lane.release_name} ({lane.lane.gpu_class}, {lane.lane.priority})"
        wait = f", the oldest for {_describe_span(lane.oldest_wait_s)}" if lane.waiting else ""
        lines.append(f"  {place:<40} {lane.waiting} wait{wait}; {lane.running} run")
    if not busy:
        lines.append("  nothing waits")
    if overview.dead:
        lines.append(f"given up: {len(overview.dead)} (comfypin fleet retry-dead runs them again)")
        lines += [f"  {job.id} {job.release_name}: {job.reason}" for job in overview.dead[:20]]
    return "\n".join(lines)


def _describe_span(seconds: float) -> str:
    """Return a span of time in its largest unit, as `2 h` or `14 s`."""
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"

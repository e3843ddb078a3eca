"""`comfypin fleet status`: who works, what waits, which jobs were given up, and what the pods cost."""

import argparse
import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING

from comfypin.cli.common import print_on_stderr
from comfypin.cli.fleet.members import describe_span, with_fleet
from comfypin.errors import ComfypinError

if TYPE_CHECKING:
    from comfypin.digest import JsonValue
    from comfypin.queue.nats.fleet import Fleet
    from comfypin.queue.nats.overview import FleetOverview
    from comfypin.runpod.fleet_pods import FleetPod

# As `watch` does by default.
_WATCH_EVERY_S = 2.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--name", metavar="NAME", default="fleet", help="the fleet's name on Runpod (fleet)")
    parser.add_argument("--watch", action="store_true", help="show it again every two seconds, until Ctrl-C")


def execute(arguments: argparse.Namespace, address: str) -> int:
    """Show it, once or until Ctrl-C."""
    return with_fleet(arguments, address, lambda fleet: _show_status(arguments, fleet))


async def _show_status(arguments: argparse.Namespace, fleet: "Fleet") -> int:
    from comfypin.queue.nats.overview import read_overview

    while True:
        overview = await read_overview(fleet, now=time.time())
        pods = await asyncio.to_thread(_list_pods, arguments)
        if arguments.json:
            print(json.dumps({**overview.to_json(), "pods": pods_to_json(pods)}), flush=True)
        else:
            if arguments.watch and sys.stdout.isatty():
                print("\x1b[2J\x1b[H", end="")  # clear the screen, as `watch` does
            print("\n".join([render_overview(overview), *render_pods(pods)]), flush=True)
        if not arguments.watch:
            return 0
        await asyncio.sleep(_WATCH_EVERY_S)


def _list_pods(arguments: argparse.Namespace) -> "tuple[FleetPod, ...] | None":
    """Return the fleet's pods, None without a key of Runpod; a fleet is shown also while Runpod does not answer."""
    from comfypin.runpod.fleet_pods import list_fleet_pods
    from comfypin.wiring import open_runpod_api

    if arguments.settings.runpod.api_key is None:
        return None
    try:
        return list_fleet_pods(open_runpod_api(arguments.settings).list_resources("pod"), arguments.name)
    except ComfypinError as failure:
        print_on_stderr(f"comfypin: pods are not shown: {failure.message}")
        return None


def pods_to_json(pods: "tuple[FleetPod, ...] | None") -> "dict[str, JsonValue] | None":
    """Return the JSON form: the pods, and what all of them cost an hour."""
    if pods is None:
        return None
    listed: list[JsonValue] = [
        {"id": pod.id, "name": pod.name, "status": pod.status, "cost_per_hour": pod.cost} for pod in pods
    ]
    return {"pods": listed, "cost_per_hour": round(sum(pod.cost for pod in pods), 4)}


def render_pods(pods: "tuple[FleetPod, ...] | None") -> list[str]:
    """Return the pods and their cost as people read it; nothing where no pod works."""
    if not pods:
        return []
    cost = sum(pod.cost for pod in pods)
    noun = "pod" if len(pods) == 1 else "pods"
    lines = [f"{len(pods)} {noun} on Runpod, ${cost:.2f} an hour"]
    return [*lines, *(f"  {pod.name:<48} {pod.status.lower():<12} ${pod.cost:.2f}" for pod in pods)]


def render_overview(overview: "FleetOverview") -> str:
    """Return the overview as people read it (pure)."""
    noun = "worker" if len(overview.workers) == 1 else "workers"
    lines = [f"{len(overview.workers)} {noun}"]
    for worker in overview.workers:
        known = dict(worker.releases)
        warm = "starting" if worker.warm is None else known.get(worker.warm, worker.warm)
        doing = "stopping" if worker.is_stopping else f"runs {', '.join(worker.jobs)}" if worker.jobs else "idle"
        machine = " ".join(part for part in (worker.gpu_class, worker.gpu) if part)
        age = describe_span(overview.read_at - worker.started_at)
        lines.append(f"  {worker.id:<32} {warm:<16} {machine:<20} {age:>6}  {doing}")
    lines.append("backlog")
    busy = [lane for lane in overview.lanes if lane.waiting or lane.running]
    for lane in busy:
        lane_label = f"{lane.release_name} ({lane.lane.gpu_class}, {lane.lane.priority})"
        wait = f", the oldest for {describe_span(lane.oldest_wait_s)}" if lane.waiting else ""
        lines.append(f"  {lane_label:<40} {lane.waiting} wait{wait}; {lane.running} run")
    if not busy:
        lines.append("  nothing waits")
    if overview.dead:
        lines.append(f"given up: {len(overview.dead)} (comfypin fleet retry-dead runs them again)")
        lines += [f"  {job.id} {overview.release_name(job.release)}: {job.reason}" for job in overview.dead[:20]]
    return "\n".join(lines)

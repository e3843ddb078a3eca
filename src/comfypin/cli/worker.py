"""Serve the jobs of a Runpod Serverless endpoint, or of a fleet: realize the env, check the bucket, warm the engine.

With --queue the jobs are those of a fleet's queue, which `comfypin serve --queue` takes: this release's first, urgent
ones before others, and those of releases named with --also once they wait longer than a swap takes.
The release is LOCK_PATH or COMFY_VERSION_NAME (in /app/lockfiles), or --lock. Outputs go to the
destination of OUTPUT_MODE, else to the configured bucket, else into the result as base64, up to Runpod's limit.
"""

import argparse
import importlib.util
import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from comfypin.cli.common import add_job_model_flags, open_job_models, read_release
from comfypin.errors import UsageError
from comfypin.process_memory import give_back_large_blocks

if TYPE_CHECKING:
    from comfypin.lock.model import Lock
    from comfypin.queue.nats.worker import WorkerEnd
    from comfypin.settings.environment import Settings

log = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags; on Runpod the variables say everything."""
    parser.add_argument(
        "--lock",
        "--release",
        metavar="FILE|NAME",
        help="the release (default: LOCK_PATH, COMFY_VERSION_NAME)",
    )
    _add_fleet_flags(parser)
    parser.add_argument(
        "--concurrency",
        type=int,
        metavar="N",
        help="jobs that run at once; one of them is in the engine (2; with --queue 1, as others could run the second)",
    )
    parser.add_argument(
        "--grace",
        type=int,
        default=20,
        metavar="S",
        help="seconds for running jobs after SIGTERM (20); what is not done then goes back to the platform",
    )
    parser.add_argument("--allow-private-inputs", action="store_true", help="let jobs name private addresses")
    add_job_model_flags(parser)
    parser.add_argument(
        "--metrics-port",
        type=int,
        metavar="N",
        help="serve metrics for Prometheus on this port (default: COMFYPIN_METRICS_PORT, else none)",
    )
    parser.add_argument("--json", action="store_true", help="write logs as JSON lines")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of a job's input, and exit")
    parser.add_argument("--keep-temp", action="store_true", help="keep what the engine wrote, for debugging")
    parser.add_argument("--verbose", action="store_true", help="add the engine's log")


def _add_fleet_flags(parser: argparse.ArgumentParser) -> None:
    flags = parser.add_argument_group("fleet")
    flags.add_argument(
        "--queue",
        metavar="ADDRESS",
        help="take the jobs of a fleet's queue, such as nats://host:4222 (default: COMFYPIN_QUEUE, else Runpod's)",
    )
    flags.add_argument("--also", metavar="FILE|NAME,...", default="", help="releases to help out with")
    flags.add_argument(
        "--class",
        dest="gpu_class",
        metavar="NAME",
        default="any",
        help="take jobs of this class too, such as rtx4090, besides those that any worker may run",
    )
    flags.add_argument("--idle-exit", type=float, metavar="S", help="end after so many seconds without a job")
    flags.add_argument(
        "--remove-pod", action="store_true", help="remove the Runpod pod that it runs in once it has no more to do"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    if arguments.schema:
        return _print_schema()
    queue_address = arguments.queue or arguments.settings.fleet.queue
    if queue_address is not None:
        return _work_for_fleet(arguments, queue_address)
    if arguments.also or arguments.idle_exit is not None or arguments.gpu_class != "any" or arguments.remove_pod:
        raise UsageError(
            "--also, --class, --idle-exit and --remove-pod are for workers of a fleet; name its queue with --queue."
        )
    # Asked before anything is started, without importing it.
    if importlib.util.find_spec("runpod") is None:
        from comfypin.installation import extra_command

        raise UsageError(f"comfypin worker needs its extra: {extra_command('worker')}")
    from comfypin import wiring
    from comfypin.cli import console
    from comfypin.cli.serverless_start import serve_release
    from comfypin.jobs.start_times import StartTimes

    start_times = StartTimes()
    # Collectors of logs parse JSON; a person at a terminal reads lines.
    console.configure_service_logging(as_json=arguments.json or not sys.stderr.isatty(), verbose=arguments.verbose)
    give_back_large_blocks()
    settings = arguments.settings
    lock = read_release(arguments.lock, settings)
    # Before all else: a volume is slow, and nothing of what follows waits for it.
    read_ahead = wiring.ModelReadAhead(lock, settings)
    read_ahead.read_warmup()
    try:
        serve_release(arguments, lock, read_ahead, start_times)
    finally:
        read_ahead.stop()
    return 0


def _work_for_fleet(arguments: argparse.Namespace, queue_address: str) -> int:
    import asyncio

    from comfypin import wiring
    from comfypin.cli import console
    from comfypin.cli.own_pod import remove_own_pod, require_own_pod
    from comfypin.lock.codec import lock_digest
    from comfypin.queue.nats.names import is_class_name

    wiring.require_fleet_extra("comfypin worker")
    if not is_class_name(arguments.gpu_class):
        raise UsageError(f"--class {arguments.gpu_class!r} must be up to 40 letters, digits and dashes.")
    console.configure_service_logging(as_json=arguments.json or not sys.stderr.isatty(), verbose=arguments.verbose)
    give_back_large_blocks()
    lock_names = [arguments.lock, *(lock_name.strip() for lock_name in arguments.also.split(",") if lock_name.strip())]
    releases = [read_release(lock_name, arguments.settings) for lock_name in lock_names]
    locks = {wiring.release_key(lock_digest(lock)): lock for lock in releases}
    if arguments.remove_pod:
        require_own_pod(arguments.settings)
    end = asyncio.run(_serve_fleet(arguments, queue_address, locks))
    if not arguments.remove_pod or end == "stopped":
        return 0
    if (why_not := remove_own_pod(arguments.settings)) is None:
        return 0
    # Runpod starts the container again: it works on, and asks again when it has idled.
    log.error("the pod cannot remove itself", extra={"action": "pod_not_removed", "reason": why_not})
    return 1


async def _serve_fleet(arguments: argparse.Namespace, queue_address: str, locks: "Mapping[str, Lock]") -> "WorkerEnd":
    """Work for a fleet until SIGTERM, a roll, or for as long as there is work with --idle-exit; return why it ended."""
    import asyncio
    import signal

    from comfypin import wiring
    from comfypin.queue.nats.connection import parse_queue_address
    from comfypin.queue.nats.fleet import open_fleet
    from comfypin.queue.nats.progress import ProgressPublisher
    from comfypin.queue.nats.worker import FleetWorker, WorkerOptions
    from comfypin.queue.steady_clock import steady_clock

    settings = arguments.settings
    servers, depot = parse_queue_address(queue_address), wiring.open_depot(settings)
    async with open_fleet(servers, settings.fleet, client_name="comfypin worker", depot=depot) as fleet:
        publisher = ProgressPublisher(fleet.client)
        opener = wiring.make_release_opener(
            locks,
            settings,
            fleet=fleet,
            previews=publisher,
            private_inputs=arguments.allow_private_inputs,
            keep_temp=arguments.keep_temp,
            open_models=lambda lock, lock_settings: open_job_models(arguments, lock, lock_settings),
        )
        options = WorkerOptions(
            own=next(iter(locks)),
            releases={release: lock.version_name for release, lock in locks.items()},
            gpu_class=arguments.gpu_class,
            concurrency=arguments.concurrency or 1,
            grace_s=arguments.grace,
            idle_exit_s=arguments.idle_exit,
        )
        worker = FleetWorker(
            fleet, options, opener, worker_id=_worker_name(settings), clock=steady_clock(), publisher=publisher
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, worker.stop)
        return await worker.serve()


def _worker_name(settings: "Settings") -> str:
    """Return a name for this run of the worker: its pod's or machine's, and a random suffix."""
    import re
    import secrets
    import socket

    machine_name = settings.server.pod_id or socket.gethostname()
    return f"{re.sub('[^A-Za-z0-9-]', '-', machine_name)[:40]}-{secrets.token_hex(4)}"


def _print_schema() -> int:
    import json

    from comfypin.jobs.job_input import job_input_schema

    print(json.dumps(job_input_schema(), indent=2))
    return 0

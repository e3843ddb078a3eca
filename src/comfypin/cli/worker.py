"""Serve the jobs of a RunPod Serverless endpoint: check the bucket, realize the env, start and warm the engine.

The release is LOCK_PATH or COMFY_VERSION_NAME (in /app/lockfiles), or --lock. Outputs go to the
destination of OUTPUT_MODE, else to the configured bucket, else into the result as base64, up to RunPod's limit.
"""

import argparse
import importlib.util
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from comfypin.cli.common import add_job_model_flags, open_job_models, read_release
from comfypin.errors import UsageError
from comfypin.process_memory import give_back_large_blocks

if TYPE_CHECKING:
    from comfypin.jobs.handler import Handler
    from comfypin.jobs.interface import Handle

log = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags; on RunPod the variables say everything."""
    parser.add_argument("--lock", metavar="FILE|NAME", help="the release (default: LOCK_PATH, COMFY_VERSION_NAME)")
    parser.add_argument(
        "--concurrency",
        type=int,
        default=2,
        metavar="N",
        help="jobs that run at once; one of them is in the engine (2)",
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


def execute(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    if arguments.schema:
        return _print_schema()
    # Asked before anything is started, without importing it.
    if importlib.util.find_spec("runpod") is None:
        from comfypin.installation import extra_command

        raise UsageError(f"comfypin worker needs its extra: {extra_command('worker')}")
    from comfypin import wiring
    from comfypin.cli import console
    from comfypin.jobs.handler import Handler
    from comfypin.jobs.warmup import warm_engine
    from comfypin.runpod.loop_thread import LoopThread
    from comfypin.runpod.serverless import RunpodWorker

    # Collectors of logs parse JSON; a person at a terminal reads lines.
    console.configure_service_logging(as_json=arguments.json or not sys.stderr.isatty(), verbose=arguments.verbose)
    give_back_large_blocks()
    settings = arguments.settings
    metrics_port = arguments.metrics_port or settings.server.metrics_port
    lock = read_release(arguments.lock, settings)
    sink_for = wiring.open_sinks(settings, private_buckets=arguments.allow_private_inputs)
    engine_choice = wiring.choose_engine(lock.engine, settings, keep_temp=arguments.keep_temp)
    engine_choice = wiring.ensure_env(lock, engine_choice, report=log.info)
    models = open_job_models(arguments, lock, engine_choice.settings)
    began_s = time.monotonic()
    with LoopThread() as loop_thread:
        engine = loop_thread.enter_context(wiring.open_engine(engine_choice))
        service = wiring.open_service(
            lock, engine, sink_for, settings=settings, private_inputs=arguments.allow_private_inputs, models=models
        )
        handler = Handler(service)
        loop_thread.run_coroutine(warm_engine(handler, lock))
        log.info(
            "worker ready",
            extra={
                "action": "worker_ready",
                "release": lock.version_name,
                "seconds": round(time.monotonic() - began_s, 2),
            },
        )
        # From here on the worker takes jobs, so the engine must be warm.
        with _count_jobs(handler, metrics_port) as handle:
            worker = RunpodWorker(handle, loop_thread.loop, grace_s=arguments.grace, concurrency=arguments.concurrency)
            worker.serve(fitness=wiring.make_fitness_checks(lock, engine_choice.settings))
    return 0


@contextmanager
def _count_jobs(handler: "Handler", metrics_port: int | None) -> Iterator["Handle"]:
    """Yield the handler, with its metrics served on the port while the block runs, if a port is given."""
    if metrics_port is None:
        yield handler
        return
    # prometheus_client is loaded only if somebody asks for metrics.
    from comfypin.jobs.metrics import CountedJobs, LiveFigures, Metrics

    metrics = Metrics()
    jobs = CountedJobs(handler, metrics)
    metrics.watch_live(lambda: LiveFigures(running=jobs.running, engine_restarts=handler.crashes))
    stop_metrics = metrics.serve_page(metrics_port)
    log.info("metrics", extra={"action": "metrics_served", "port": metrics_port})
    try:
        yield jobs
    finally:
        stop_metrics()


def _print_schema() -> int:
    import json

    from comfypin.jobs.job_input import job_input_schema

    print(json.dumps(job_input_schema(), indent=2))
    return 0

"""How `comfypin worker` starts on Runpod Serverless: the engine first, and meanwhile all that does not need it."""

import argparse
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from comfypin.cli.common import open_job_models

if TYPE_CHECKING:
    from comfypin.engine.interface import Engine
    from comfypin.jobs.handler import Handler, JobService
    from comfypin.jobs.interface import Handle
    from comfypin.jobs.start_times import StartTimes
    from comfypin.jobs.warmup import IdleWarmUp
    from comfypin.lock.model import Lock, Release
    from comfypin.wiring import EngineChoice, ModelReadAhead

log = logging.getLogger(__name__)


def serve_release(
    arguments: argparse.Namespace, lock: "Lock", read_ahead: "ModelReadAhead", start_times: "StartTimes"
) -> None:
    """Start the engine, prepare the rest meanwhile, and take jobs; warm the engine up while none waits."""
    from comfypin import wiring
    from comfypin.runpod.loop_thread import LoopThread

    settings = arguments.settings
    engine_choice = wiring.choose_engine(lock.engine, settings, keep_temp=arguments.keep_temp)
    with start_times.measure("env"):
        engine_choice = wiring.realize_for_engine(lock, engine_choice, report=log.info)
    claimed = wiring.name_release(lock, engine_choice)
    engine_choice = wiring.leave_out_api_nodes(lock, engine_choice, automatic=True)
    models = open_job_models(arguments, lock, engine_choice.settings)
    unfit_models = None
    if not wiring.are_models_there(lock, engine_choice.model_settings or engine_choice.settings):
        # Nodes may look for their models once, while they are imported.
        unfit_models = _check_models(lock, engine_choice, start_times)
    with LoopThread() as loop_thread:
        engine_starts = loop_thread.begin_context(_time_engine(wiring.open_engine(engine_choice), start_times))
        with start_times.measure("bucket"):
            sink_for = wiring.open_sinks(settings, private_buckets=arguments.allow_private_inputs)
        unfit_models = unfit_models or _check_models(lock, engine_choice, start_times)
        with start_times.measure("handler"):
            # The SDK's imports take as long as the rest of ours together.
            from comfypin.jobs.handler import Handler
            from comfypin.jobs.warmup import check_engine
            from comfypin.runpod.sdk_import import import_sdk
            from comfypin.runpod.serverless import JOBS_AT_ONCE, RunpodWorker

            import_sdk()
            fitness = wiring.make_fitness_checks(lock, unfit_models=unfit_models)
        service = wiring.open_service(
            lock,
            engine_starts.result(),
            sink_for,
            settings=settings,
            private_inputs=arguments.allow_private_inputs,
            models=models,
            start_times=start_times,
            left_out_classes=engine_choice.left_out_classes,
            read_ahead=read_ahead.read_workflow,
            release=claimed,
        )
        handler = Handler(service)
        with start_times.measure("warm_up"):
            loop_thread.run_coroutine(check_engine(handler))
        _report_ready(claimed, read_ahead, start_times)
        warm_up = loop_thread.enter_context(_make_warm_up(handler, service, start_times))
        metrics_port = arguments.metrics_port or settings.server.metrics_port
        with _count_jobs(handler, warm_up, metrics_port, start_times) as handle:
            concurrency = arguments.concurrency or JOBS_AT_ONCE
            worker = RunpodWorker(handle, loop_thread.loop, grace_s=arguments.grace, concurrency=concurrency)
            worker.serve(fitness=fitness)


def _make_warm_up(handler: "Handler", service: "JobService", start_times: "StartTimes") -> "IdleWarmUp":
    """Return the warm-up, which is part of the start that the first job's caller is told of."""
    from comfypin.jobs.warmup import IdleWarmUp

    return IdleWarmUp(
        handler,
        service,
        note_seconds=lambda seconds: start_times.add("warm_up", seconds),
        note_first_job=lambda: handler.report_start(lambda: start_times.seconds),
    )


@asynccontextmanager
async def _time_engine(
    opening: "AbstractAsyncContextManager[Engine]", start_times: "StartTimes"
) -> "AsyncIterator[Engine]":
    """Open the engine, and note the seconds until it answers."""
    began_s = time.monotonic()
    async with opening as engine:
        start_times.add("engine", time.monotonic() - began_s)
        yield engine


def _check_models(
    lock: "Lock", engine_choice: "EngineChoice", start_times: "StartTimes"
) -> "Callable[[], Sequence[str]]":
    from comfypin import wiring

    with start_times.measure("models"):
        return wiring.check_models(lock, engine_choice)


def _report_ready(release: "Release", read_ahead: "ModelReadAhead", start_times: "StartTimes") -> None:
    """Log how long the start took."""
    facts: dict[str, object] = {}
    if (progress := read_ahead.progress) is not None:
        # It may go on while the first job runs.
        start_times.watch("read_ahead", lambda: (read_ahead.progress or progress).seconds)
        facts = {"read_ahead_bytes": progress.read_bytes, "cached_bytes": progress.cached_bytes}
    seconds = start_times.end()
    log.info(
        "worker ready",
        extra={
            "action": "worker_ready",
            "release": release.name,
            "seconds": round(seconds["total"], 2),
            "phases": {phase: round(phase_s, 2) for phase, phase_s in seconds.items()},
            **facts,
        },
    )


@contextmanager
def _count_jobs(
    handler: "Handler", handle: "Handle", metrics_port: int | None, start_times: "StartTimes"
) -> Iterator["Handle"]:
    """Yield what runs jobs, with their metrics served on the port while the block runs, if a port is given."""
    if metrics_port is None:
        yield handle
        return
    # prometheus_client is loaded only if somebody asks for metrics.
    from comfypin.jobs.metrics import CountedJobs, LiveFigures, Metrics

    metrics = Metrics()
    metrics.watch_start(lambda: start_times.seconds)
    jobs = CountedJobs(handle, metrics)
    metrics.watch_live(lambda: LiveFigures(running=jobs.running, engine_restarts=handler.crashes))
    stop_metrics = metrics.serve_page(metrics_port)
    log.info("metrics", extra={"action": "metrics_served", "port": metrics_port})
    try:
        yield jobs
    finally:
        stop_metrics()

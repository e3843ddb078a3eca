"""Takes jobs from Runpod Serverless: the SDK's worker loop in the main thread, our engine on a loop in another.

The SDK owns its event loop and the signals; the handler it calls hands each job to our loop and waits. Cancelling there
cancels here, so a cancelled job's prompt leaves the engine at once. Requires runpod >= 1.10.1: earlier ones send nearly
all jobs of an endpoint with a network volume to one worker (runpod-python issue 432).
"""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Mapping
from types import FrameType
from typing import Any, TypeVar

from comfypin.digest import JsonValue
from comfypin.jobs.interface import Handle, JobOutcome
from comfypin.jobs.job_input import input_of_platform_job
from comfypin.runpod.progress_sender import ProgressSender
from comfypin.runpod.sdk_import import import_sdk

log = logging.getLogger(__name__)

Result = TypeVar("Result")
# Runpod kills what still runs ten seconds after its signal.
_CLEAN_UP_WITHIN_S = 10.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
JOBS_AT_ONCE = 2
"""One job in the engine, and one whose inputs are fetched or whose outputs are delivered."""


class RunpodWorker:
    """Serves an endpoint's jobs with `handle`, whose coroutines run on `loop` (another thread's)."""

    def __init__(
        self, handle: Handle, loop: asyncio.AbstractEventLoop, *, grace_s: float, concurrency: int = JOBS_AT_ONCE
    ) -> None:
        """Take jobs for `handle`. Jobs that run at SIGTERM may go on for `grace_s`."""
        self._handle = handle
        self._loop = loop
        self._grace_s = grace_s
        self._concurrency = concurrency
        self._bounded = False

    def serve(self, *, fitness: Mapping[str, Callable[[], None]]) -> None:
        """Take jobs until SIGTERM; returns when every job that was taken has its answer, or the grace is over.

        A job that is cut off then gets no answer: the platform misses its worker and gives it to another one.
        `fitness` are checks by name, run by the SDK before the first job; one that raises ends the worker.
        """
        runpod = import_sdk()

        for check_name, check in fitness.items():
            # The SDK logs checks by the function's name.
            check.__name__ = check_name
            runpod.serverless.register_fitness_check(check)
        try:
            runpod.serverless.start({"handler": self.handle_job, "concurrency_modifier": self._job_concurrency})
        except asyncio.CancelledError:
            log.warning("grace time over; unfinished jobs go back to the platform", extra={"action": "worker_cut_off"})

    def _job_concurrency(self, _current: int) -> int:
        """Jobs at once. The SDK asks it in its loop, after it has taken the signals: the first place of ours to be."""
        if not self._bounded:
            self._bounded = True
            sdk_loop = asyncio.get_running_loop()
            for signal_number in _STOP_SIGNALS:
                _chain_signal_handler(
                    signal_number,
                    lambda: sdk_loop.call_soon_threadsafe(sdk_loop.call_later, self._grace_s, _cancel_all, sdk_loop),
                )
        return self._concurrency

    async def handle_job(self, sdk_job: dict[str, Any]) -> dict[str, JsonValue]:
        """One job as the SDK gives it, and its answer as the SDK wants it."""
        from runpod import http_client

        open_session: Any = http_client.AsyncClientSession
        async with open_session() as session:
            reporter = ProgressSender(lambda progress: _send_progress(session, sdk_job, progress))
            sdk_loop = asyncio.get_running_loop()

            # The engine's loop calls this; the reporter lives on the SDK's.
            def report_progress(progress: Mapping[str, JsonValue]) -> None:
                sdk_loop.call_soon_threadsafe(reporter, progress)

            try:
                work = self._handle(str(sdk_job["id"]), _job_document(sdk_job), progress=report_progress)
                outcome = await self._run_on_engine_loop(work)
            finally:
                await reporter.close()
        return self._to_response(outcome)

    async def _run_on_engine_loop(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run on our loop; a cancellation waits until the prompt is out of the engine."""
        ended = threading.Event()

        async def run_guarded() -> Result:
            try:
                return await work
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(run_guarded(), self._loop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            # A cancelled future counts as done at once, long before the coroutine has cleaned up.
            future.cancel()
            await asyncio.get_running_loop().run_in_executor(None, ended.wait, _CLEAN_UP_WITHIN_S)
            raise

    def _to_response(self, outcome: JobOutcome) -> dict[str, JsonValue]:
        response = dict(outcome.output)
        if outcome.replace_worker:
            log.error("engine keeps dying; the worker is given back", extra={"action": "worker_given_back"})
            # `refresh_worker` has the platform stop this pod, but the SDK's loop would go on taking jobs meanwhile;
            # on SIGTERM it takes none, and still sends the answers of those that run.
            response["refresh_worker"] = True
            os.kill(os.getpid(), signal.SIGTERM)
        return response


def _job_document(sdk_job: Mapping[str, Any]) -> object:
    """Return a job's input; `webhook_events`, which only a server knows, goes into it, so that the result warns."""
    document = input_of_platform_job(sdk_job)
    if isinstance(document, dict) and "webhook_events" in sdk_job:
        return {**document, "webhook_events": sdk_job["webhook_events"]}
    return document


def _chain_signal_handler(signal_number: signal.Signals, and_then: Callable[[], object]) -> None:
    """Do `and_then` each time the signal has been dealt with by whoever has it now."""
    earlier_handler = signal.getsignal(signal_number)

    def call_both(received_signal: int, frame: FrameType | None) -> None:
        if callable(earlier_handler):
            earlier_handler(received_signal, frame)
        and_then()

    signal.signal(signal_number, call_both)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    # The jobs, whose prompts leave the engine then, and the SDK's own polls, which last up to 90 s.
    for task in asyncio.all_tasks(loop):
        task.cancel()


async def _send_progress(session: Any, sdk_job: dict[str, Any], progress: Mapping[str, JsonValue]) -> None:
    from runpod.serverless.modules import rp_http

    send: Any = rp_http.send_result
    await send(session, {"status": "IN_PROGRESS", "output": dict(progress)}, sdk_job)

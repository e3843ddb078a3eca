"""The handler: one job from its wire form to its outcome, on an engine that stays; the same for the worker and HTTP.

Several calls may run at once: while one job's prompt is in the engine, the next one's inputs are fetched and its prompt
queued behind, and the last one's outputs are delivered, so that the engine never waits for the network.
"""

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from comfypin.digest import JsonValue
from comfypin.engine.errors import EngineCrashed
from comfypin.engine.interface import Engine
from comfypin.engine.progress import Progress as Fraction
from comfypin.errors import ComfypinError
from comfypin.http.deadline import Deadline
from comfypin.jobs.caller_words import JOB
from comfypin.jobs.errors import JobBroken, ReleaseUnavailable
from comfypin.jobs.events import PhaseStarted, Requeued, RunEvent, to_json
from comfypin.jobs.input_files import Fetcher
from comfypin.jobs.interface import Outcome, Progress, nobody
from comfypin.jobs.job import Job, JobResult
from comfypin.jobs.prepare import Request, prepare
from comfypin.jobs.request import JobInput, OutputWish, S3Wish, parse_input
from comfypin.jobs.result_json import failure_to_json, result_to_json
from comfypin.jobs.run import run
from comfypin.jobs.workflow_library import WorkflowFolder
from comfypin.lock.codec import release_of
from comfypin.lock.model import Lock
from comfypin.outputs.interface import OutputSink
from comfypin.temp_folders import temp_folder
from comfypin.workflow.document import to_document
from comfypin.workflow.overrides import overrides_from_json

log = logging.getLogger(__name__)

CRASHES_BEFORE_REPLACEMENT = 3
_SAME_CRASH_S = 0.5
# One for each job that runs, which the queue counts: a slow server must keep its own job waiting, and no other.
_MOST_FETCHERS = 1024
_OPEN_BUCKET_WITHIN_S = 60.0
# So long may what a job has begun in a bucket of its own be taken back, after the job has failed.
_TAKE_BACK_WITHIN_S = 5.0


class SinkFor(Protocol):
    """Opens (and may keep) the sink that a job wishes for; the deadline is for all that is asked of its own bucket.

    Raises `ConfigError`, `StorageError`, `JobInvalid`.
    """

    def __call__(self, wish: OutputWish, s3: S3Wish | None, deadline: Deadline | None = None, /) -> OutputSink: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What all jobs of a worker share. `workflows` are those of the image.

    `default_timeout_s` bounds jobs that set no time.
    """

    lock: Lock
    engine: Engine
    fetcher: Fetcher
    sink_for: SinkFor
    workflows: WorkflowFolder
    default_timeout_s: float | None = None


class Handler:
    """Runs jobs; counts the engine's crashes in a row, after the third of which the worker is worn out."""

    def __init__(self, service: Service, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._service = service
        self._clock = clock
        self._crashed_at_s = -_SAME_CRASH_S - 1
        # Of their own: addresses that hang must not keep other jobs waiting.
        self._fetching = ThreadPoolExecutor(_MOST_FETCHERS, thread_name_prefix="inputs")
        self._release = release_of(service.lock)
        self.crashes_in_a_row = 0
        self.crashes = 0

    async def __call__(self, job_id: str, document: object, *, progress: Progress = nobody) -> Outcome:
        """Run the job. A failure is an outcome; only cancellation comes out as an exception."""
        warnings: list[str] = []
        try:
            wish, warnings = parse_input(document)
            result = await self._run(job_id, wish, progress)
        except ComfypinError as failure:
            return self._failed(job_id, failure, warnings)
        except Exception as exc:  # the last line of defence: a mistake of ours ends one job, not the worker
            log.exception("job failed unexpectedly", extra={"action": "job_broken", "job_id": job_id})
            return self._failed(job_id, JobBroken(cause=exc), warnings)
        self.crashes_in_a_row = 0
        return Outcome(output=result_to_json(result, warnings=warnings))

    async def _run(self, job_id: str, wish: JobInput, progress: Progress) -> JobResult:
        began_s = time.monotonic()
        self._require_release(wish.release)
        with temp_folder("job") as name, self._own_bucket(wish) as deadline:
            folder = Path(name)
            open_sink = partial(self._service.sink_for, wish.output, wish.s3_config, deadline)
            sink = await asyncio.get_running_loop().run_in_executor(self._fetching, open_sink)
            deadline.lift_limit()
            pointed = await self._inputs(wish, folder)
            fetched_s = time.monotonic()
            job = await self._prepared(job_id, wish, folder, pointed)
            prepared_s = time.monotonic()
            watcher = _Watcher(job, progress, self._crashed)
            result = await run(job, engine=self._service.engine, sink=sink, on_event=watcher.hear)
        before = {"inputs": fetched_s - began_s, "prepare": prepared_s - fetched_s}
        return replace(result, phase_s={**before, **result.phase_s})

    @contextmanager
    def _own_bucket(self, wish: JobInput) -> Iterator[Deadline]:
        """Give a job's own bucket a time to be opened in, and its threads back when the job has ended."""
        timeout_s = wish.timeout_s or self._service.default_timeout_s or _OPEN_BUCKET_WITHIN_S
        deadline = Deadline(min(timeout_s, _OPEN_BUCKET_WITHIN_S))
        try:
            yield deadline
        except BaseException:
            if deadline.is_set:
                deadline.cancel()  # it was never opened
            else:
                # Not at once: an upload in parts that was begun should be aborted.
                last = threading.Timer(_TAKE_BACK_WITHIN_S, deadline.cancel)
                last.daemon = True
                last.start()
            raise
        deadline.cancel()

    async def _inputs(self, wish: JobInput, folder: Path) -> tuple[str, ...]:
        if not (wish.images or wish.inputs):
            return ()
        deadline = self._service.fetcher.deadline()
        bring = partial(self._service.fetcher.bring, wish, folder, deadline=deadline)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._fetching, bring)
        except asyncio.CancelledError:
            # The job was cancelled or timed out: its thread comes back now, not when the server is done with it.
            deadline.cancel()
            raise

    async def _prepared(self, job_id: str, wish: JobInput, folder: Path, pointed: tuple[str, ...]) -> Job:
        catalogue = await self._service.engine.catalogue()
        inputs_file = None
        if wish.workflow_name is not None:
            document = await asyncio.to_thread(self._service.workflows.read, wish.workflow_name)
            inputs_file = await asyncio.to_thread(self._service.workflows.inputs_file, wish.workflow_name)
            await asyncio.to_thread(self._service.workflows.bring_companions, wish.workflow_name, folder)
        else:
            document = to_document(wish.workflow, source="in the job")
        key = wish.comfy_org_api_key
        request = Request(
            document=document,
            job_id=job_id,
            submission=str(uuid.uuid4()),
            overrides=overrides_from_json(wish.set),
            input_files=pointed,
            input_folder=folder,
            timeout_s=wish.timeout_s or self._service.default_timeout_s,
            with_previews=wish.output.previews,
            randomize_seeds=wish.randomize_seeds,
            inputs_file=inputs_file,
            extra_data={"api_key_comfy_org": key} if key else {},
            words=JOB,
            brought=_names_brought(wish),
        )
        return prepare(request, lock=self._service.lock, catalogue=catalogue, now=datetime.now().astimezone())

    def _require_release(self, wanted: str | None) -> None:
        if wanted not in (None, self._release.name, str(self._release.digest), self._release.digest.hex):
            raise ReleaseUnavailable(wanted=str(wanted), running=self._release.name)

    def _crashed(self) -> None:
        """Count a crash; the jobs that one crash hits together count it once."""
        now_s = self._clock()
        if now_s - self._crashed_at_s > _SAME_CRASH_S:
            self.crashes += 1
            self.crashes_in_a_row += 1
        self._crashed_at_s = now_s

    def _failed(self, job_id: str, failure: ComfypinError, warnings: list[str]) -> Outcome:
        if isinstance(failure, EngineCrashed):
            self._crashed()
        log.warning(
            "job failed",
            extra={
                "action": "job_failed",
                "job_id": job_id,
                "error": type(failure).__name__,
                "reason": failure.message,
            },
        )
        return Outcome(
            output=failure_to_json(failure, warnings=warnings),
            failure=failure,
            replace_worker=self.crashes_in_a_row >= CRASHES_BEFORE_REPLACEMENT,
        )


def _names_brought(wish: JobInput) -> Mapping[str, str]:
    """The names of the job's input files, each with the field that it came in."""
    images = {image.name: f"images.{index}" for index, image in enumerate(wish.images)}
    return images | {item.name: f"inputs.{index}" for index, item in enumerate(wish.inputs)}


class _Watcher:
    """Turns a job's events into what people follow: a fraction that never goes back, and the node at work."""

    def __init__(self, job: Job, progress: Progress, crashed: Callable[[], None]) -> None:
        self._fraction = Fraction(job.graph)
        self._progress = progress
        self._crashed = crashed

    def hear(self, event: RunEvent) -> None:
        if isinstance(event, Requeued):
            self._crashed()
        elif not isinstance(event, PhaseStarted):
            self._fraction.hear(event)
        told: Mapping[str, JsonValue] = {**to_json(event), "progress": round(self._fraction.fraction, 3)}
        self._progress(told)

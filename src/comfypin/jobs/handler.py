"""Runs one job from its JSON to its outcome, on an engine that stays; the same for the worker and HTTP.

Several calls may run at once: while one job's prompt is in the engine, the next one's inputs are fetched and its prompt
queued behind, and the last one's outputs are delivered, so that the engine never waits for the network.
"""

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from comfypin.digest import JsonValue
from comfypin.engine.errors import EngineCrashed
from comfypin.engine.interface import Engine
from comfypin.engine.progress import PromptProgress as Fraction
from comfypin.errors import ComfypinError
from comfypin.http.deadline import Deadline
from comfypin.jobs.caller_words import JOB_WORDS
from comfypin.jobs.errors import ApiNodesLeftOut, JobBroken, ReleaseUnavailable
from comfypin.jobs.events import PhaseStarted, Requeued, RunEvent, event_to_json
from comfypin.jobs.input_files import InputFetcher
from comfypin.jobs.interface import JobOutcome, ProgressCallback, ignore_progress
from comfypin.jobs.job import Job, JobResult
from comfypin.jobs.job_input import JobInput, OutputWish, S3Wish, parse_job_input
from comfypin.jobs.model_files import bring_job_models
from comfypin.jobs.node_counts import NodeCounts
from comfypin.jobs.output_numbers import OutputNumbers
from comfypin.jobs.prepare import RunRequest, prepare_job
from comfypin.jobs.previews import PreviewSink
from comfypin.jobs.result_json import failed_outcome, result_to_json
from comfypin.jobs.run import run_job
from comfypin.jobs.start_times import StartTimes
from comfypin.jobs.workflow_library import WorkflowLibrary
from comfypin.lock.model import UNPINNED, Lock, Release
from comfypin.models.errors import JobModelsRefused
from comfypin.models.job_models import BroughtModel, JobModels
from comfypin.outputs.interface import OutputSink
from comfypin.temp_folders import SharedTempFolder
from comfypin.workflow.document import Document, to_document
from comfypin.workflow.named_files import class_names
from comfypin.workflow.overrides import overrides_from_json

log = logging.getLogger(__name__)

# One crash may be the workflow's fault, two a coincidence; after three the machine is to blame.
CRASHES_BEFORE_REPLACEMENT = 3
# All jobs of a dead engine fail within milliseconds; starting another takes seconds.
_SAME_CRASH_S = 0.5
# One for each job that runs, which the queue counts: a slow server must keep its own job waiting, and no other.
_MAX_FETCH_THREADS = 1024
# A bucket that does not answer in a minute will not take outputs at the end either.
_OPEN_BUCKET_WITHIN_S = 60.0
_API_KEY_FIELD = "api_key_comfy_org"  # ComfyUI's own name for it
# So long may what a job has begun in a bucket of its own be taken back, after the job has failed.
_TAKE_BACK_WITHIN_S = 5.0


class OpenSink(Protocol):
    """Opens (and may keep) the sink that a job asks for; the deadline holds for all requests to the job's own bucket.

    Raises `ConfigError`, `StorageError`, `JobInvalid`.
    """

    def __call__(
        self, output_wish: OutputWish, s3_wish: S3Wish | None, deadline: Deadline | None = None, /
    ) -> OutputSink: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JobService:
    """Everything that the jobs of a worker share. `workflows` are those of the image.

    `release` is what the engine is known to run, which results claim; `lock` is what was asked for.

    `default_timeout_s` bounds jobs that set no time. `models` brings what jobs name; None: they may name none.
    `warms_up` says to run the release's warm-up before the first job; `start_times` measure this start.
    `comfy_org_api_key` is for the API nodes of jobs that bring none.
    `left_out_classes` are those that the engine was started without. `read_ahead` is given each
    workflow before it runs, and begins to read its models; it may take a moment, and raises nothing.
    `read_engine_version` asks the engine which ComfyUI it is; None: it is none.
    """

    lock: Lock | None
    engine: Engine
    fetcher: InputFetcher
    open_sink: OpenSink
    workflows: WorkflowLibrary
    default_timeout_s: float | None = None
    models: JobModels | None = None
    warms_up: bool = True
    start_times: StartTimes = field(default_factory=StartTimes)
    left_out_classes: frozenset[str] = frozenset()
    read_ahead: Callable[[Document], None] = lambda _document: None
    release: Release = UNPINNED
    comfy_org_api_key: str | None = field(default=None, repr=False)
    read_engine_version: Callable[[], Awaitable[str | None]] | None = None


class Handler:
    """Runs jobs; counts the engine's crashes in a row, after the third of which the worker is worn out."""

    def __init__(
        self,
        service: JobService,
        *,
        previews: PreviewSink | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._previews = previews
        self._clock = clock
        self._crashed_at_s = -_SAME_CRASH_S - 1
        # Of their own: addresses that hang must not keep other jobs waiting.
        self._fetching = ThreadPoolExecutor(_MAX_FETCH_THREADS, thread_name_prefix="inputs")
        self._release = service.release
        self._numbers = OutputNumbers()
        self._temp = SharedTempFolder("jobs")
        self._read_start_s: Callable[[], Mapping[str, float]] = dict
        self.crashes_in_a_row = 0
        self.crashes = 0

    def report_start(self, read_s: Callable[[], Mapping[str, float]]) -> None:
        """Put the seconds of a start into the next result: its caller waited for them."""
        self._read_start_s = read_s

    async def __call__(
        self, job_id: str, document: object, *, progress: ProgressCallback = ignore_progress
    ) -> JobOutcome:
        """Run the job. A failure is an outcome; only cancellation is raised."""
        warnings: list[str] = []
        prepared: list[Job] = []
        try:
            job_input, warnings = parse_job_input(document)
            job_result = await self._run_job(job_id, job_input, progress, prepared.append)
        except ComfypinError as failure:
            own_values = prepared[0].own_values if prepared else {}
            return self._failure_outcome(job_id, failure, warnings, own_values)
        except Exception as exc:  # the last line of defence: a mistake of ours ends one job, not the worker
            log.exception("job failed unexpectedly", extra={"action": "job_broken", "job_id": job_id})
            return self._failure_outcome(job_id, JobBroken(kind=type(exc).__name__), warnings)
        # A job that ended well shows that the engine is healthy again.
        self.crashes_in_a_row = 0
        job_result = replace(job_result, deliveries=self._numbers.count_up(job_result.deliveries))
        read_start_s, self._read_start_s = self._read_start_s, dict
        output = result_to_json(job_result, warnings=warnings, start_s=read_start_s())
        return JobOutcome(output=output, phase_s=job_result.phase_s)

    async def _run_job(
        self, job_id: str, job_input: JobInput, progress: ProgressCallback, note_prepared: Callable[[Job], None]
    ) -> JobResult:
        began_s = time.monotonic()
        self._require_release_runs(job_input.release)
        with self._temp.part() as job_folder, self._own_bucket(job_input) as deadline:
            # Before the inputs: a wrong bucket should fail the job in a second, not after a download of gigabytes.
            open_sink = partial(self._service.open_sink, job_input.output, job_input.s3_config, deadline)
            sink = await asyncio.get_running_loop().run_in_executor(self._fetching, open_sink)
            deadline.lift_limit()
            input_files = await self._fetch_inputs(job_input, job_folder)
            fetched_s = time.monotonic()
            async with self._job_models(job_input, progress) as models:
                brought_s = time.monotonic()
                job = await self._prepare_job(job_id, job_input, job_folder, input_files, models)
                prepared_s = time.monotonic()
                note_prepared(job)
                watcher = _ProgressWatcher(job, progress, self._count_crash)
                job_result = await run_job(
                    job, engine=self._service.engine, sink=sink, on_event=watcher.note_event, previews=self._previews
                )
        before = {"inputs": fetched_s - began_s, "prepare": prepared_s - brought_s}
        if models:
            before["models"] = brought_s - fetched_s
        return replace(job_result, phase_s={**before, **job_result.phase_s})

    @contextmanager
    def _own_bucket(self, job_input: JobInput) -> Iterator[Deadline]:
        """Give a job's own bucket a time to be opened in, and its threads back when the job has ended."""
        timeout_s = job_input.timeout_s or self._service.default_timeout_s or _OPEN_BUCKET_WITHIN_S
        deadline = Deadline(min(timeout_s, _OPEN_BUCKET_WITHIN_S))
        try:
            yield deadline
        except BaseException as error:
            if deadline.is_set or isinstance(error, GeneratorExit):
                deadline.cancel()  # it was never opened, or nobody is left to abort anything
            else:
                # Not at once: an upload in parts that was begun should be aborted.
                take_back = threading.Timer(_TAKE_BACK_WITHIN_S, deadline.cancel)
                take_back.daemon = True
                take_back.start()
            raise
        deadline.cancel()

    async def _fetch_inputs(self, job_input: JobInput, job_folder: Path) -> tuple[str, ...]:
        if not (job_input.images or job_input.inputs):
            return ()
        deadline = self._service.fetcher.start_deadline()
        bring = partial(self._service.fetcher.fetch_inputs, job_input, job_folder, deadline=deadline)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._fetching, bring)
        except asyncio.CancelledError:
            # The job was cancelled or timed out: its thread comes back now, not when the server is done with it.
            deadline.cancel()
            raise

    @asynccontextmanager
    async def _job_models(
        self, job_input: JobInput, progress: ProgressCallback
    ) -> AsyncIterator[tuple[BroughtModel, ...]]:
        """Bring the job's models, and keep them until the block ends."""
        if not job_input.models:
            yield ()
            return
        if self._service.models is None:
            raise JobModelsRefused(release=self._release.name)
        timeout_s = job_input.timeout_s or self._service.default_timeout_s
        async with bring_job_models(
            job_input.models, self._service.models, pool=self._fetching, timeout_s=timeout_s, progress=progress
        ) as models:
            yield models

    def _choose_api_key(self, document: Document, job_input: JobInput) -> dict[str, JsonValue]:
        """Return comfy.org's key for API nodes: the job's, else the one that its body brings, else the worker's."""
        if job_input.comfy_org_api_key:
            return {_API_KEY_FIELD: job_input.comfy_org_api_key}
        if self._service.comfy_org_api_key and not document.extra_data.get(_API_KEY_FIELD):
            return {_API_KEY_FIELD: self._service.comfy_org_api_key}
        return {}

    async def _prepare_job(
        self,
        job_id: str,
        job_input: JobInput,
        job_folder: Path,
        input_files: tuple[str, ...],
        models: tuple[BroughtModel, ...],
    ) -> Job:
        catalogue = await self._service.engine.catalogue()
        inputs_file = None
        if job_input.workflow_name is not None:
            document, inputs_file = await asyncio.to_thread(
                self._service.workflows.bring_workflow, job_input.workflow_name, job_folder
            )
        else:
            document = to_document(job_input.workflow, source="in the job")
        if left_out := self._service.left_out_classes & class_names(document):
            raise ApiNodesLeftOut(classes=", ".join(sorted(left_out)))
        run_request = RunRequest(
            document=document,
            job_id=job_id,
            # Not the job's id: a platform may run the same job again while files of the first try are still there.
            submission_id=str(uuid.uuid4()),
            overrides=overrides_from_json(job_input.set),
            input_files=input_files,
            input_folder=job_folder,
            timeout_s=job_input.timeout_s or self._service.default_timeout_s,
            with_previews=job_input.output.previews,
            randomize_seeds=job_input.randomize_seeds,
            inputs_file=inputs_file,
            extra_data=self._choose_api_key(document, job_input),
            words=JOB_WORDS,
            keeps_valid_outputs=True,
            file_labels=_input_labels(job_input),
            models=models,
            earlier_models=self._service.models.brought_names if self._service.models is not None else frozenset(),
        )
        now = datetime.now().astimezone()
        job = prepare_job(run_request, lock=self._service.lock, catalogue=catalogue, now=now, release=self._release)
        final_document = to_document(job.graph.to_api(), source="in the job")
        # Not waited for: a volume answers slowly, and the engine can begin.
        asyncio.get_running_loop().run_in_executor(self._fetching, self._service.read_ahead, final_document)
        return replace(job, spool_folder=self._temp.root())

    def _require_release_runs(self, wanted_release: str | None) -> None:
        if wanted_release is not None and not self._release.answers_to(wanted_release):
            raise ReleaseUnavailable(
                wanted=wanted_release,
                running=self._release.name,
                _doubt=f" {self._release.doubt}" if self._release.doubt else "",
            )

    def _count_crash(self) -> None:
        """Count a crash; the jobs that one crash hits together count it once."""
        # An engine's death fails its running job and all queued ones at the same moment.
        now_s = self._clock()
        if now_s - self._crashed_at_s > _SAME_CRASH_S:
            self.crashes += 1
            self.crashes_in_a_row += 1
        self._crashed_at_s = now_s

    def _failure_outcome(
        self,
        job_id: str,
        failure: ComfypinError,
        warnings: list[str],
        own_values: Mapping[str, JsonValue] | None = None,
    ) -> JobOutcome:
        if isinstance(failure, EngineCrashed):
            self._count_crash()
        log.warning(
            "job failed",
            extra={
                "action": "job_failed",
                "job_id": job_id,
                "error": type(failure).__name__,
                "reason": failure.command_message,
            },
        )
        worn_out = self.crashes_in_a_row >= CRASHES_BEFORE_REPLACEMENT
        return failed_outcome(failure, warnings=warnings, replace_worker=worn_out, own_values=own_values)


def _input_labels(job_input: JobInput) -> Mapping[str, str]:
    """Return the names of the job's input files, each with the field that it came in."""
    images = {image.name: f"images.{index}" for index, image in enumerate(job_input.images)}
    return images | {media_input.name: f"inputs.{index}" for index, media_input in enumerate(job_input.inputs)}


class _ProgressWatcher:
    """Turns a job's events into what people follow: a fraction that never goes back, and the node at work.

    Each is a whole snapshot, so that whoever missed some knows as much as whoever heard all.
    """

    def __init__(self, job: Job, progress: ProgressCallback, crashed: Callable[[], None]) -> None:
        self._fraction = Fraction(job.graph)
        self._progress = progress
        self._crashed = crashed
        self._nodes = NodeCounts(job.graph)
        self._phase: str | None = None

    def note_event(self, event: RunEvent) -> None:
        if isinstance(event, Requeued):
            self._crashed()
            self._nodes.restart()
        elif isinstance(event, PhaseStarted):
            self._phase = event.phase
            if event.phase == "collect":
                self._fraction.mark_finished()
        else:
            self._fraction.apply_event(event)
            self._nodes.apply_event(event)
        progress_json: Mapping[str, JsonValue] = {
            **event_to_json(event),
            "progress": round(self._fraction.fraction, 3),
            "phase": self._phase,
            **self._nodes.to_json(),
        }
        self._progress(progress_json)

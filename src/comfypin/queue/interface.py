"""The job queue as a server sees it: jobs that wait, run, or have ended, wherever they are kept.

`comfypin.queue.local_queue` keeps them in SQLite and runs them on this machine. A queue that many machines share has to
do no more than these protocols say.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from comfypin.digest import JsonValue
from comfypin.jobs.interface import Handle, JobState
from comfypin.jobs.metrics import Metrics
from comfypin.jobs.previews import PreviewSink

if TYPE_CHECKING:
    from comfypin.queue.job_events import JobEvents
    from comfypin.queue.job_listing import JobFilter, ListedJob
    from comfypin.queue.job_notes import JobNotes
    from comfypin.queue.live_jobs import LiveJob
    from comfypin.queue.webhook_events import WriteEnd
    from comfypin.queue.webhook_records import EventName, WebhookFailure

JobProgress = Mapping[str, JsonValue]
ApiName = Literal["runpod", "workflows", "comfy"]
"""The API that a job came by."""


Priority = Literal["high", "normal"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""The order in which waiting jobs begin; those of one priority in order of arrival."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRoute:
    """Which workers may run a job, and how soon. One machine knows priorities alone: it has one release.

    `rank` orders the jobs of one machine: the higher begins earlier (high: 1).
    `gpu_class` None: any worker; `release` None: that of the server which takes the job, else a name or digest.
    """

    priority: Priority = "normal"
    rank: int = 0
    gpu_class: str | None = None
    release: str | None = None


ANY_ROUTE = JobRoute()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job without its input and output. Times in seconds since the epoch; a higher `rank` begins earlier."""

    id: str
    state: JobState
    webhook: str | None = None
    timeout_s: float | None = None
    ttl_s: float | None = None
    attempts: int = 0
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    priority: Priority = "normal"
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One job as its status shows it. `output` is JSON text: the result, or the newest progress of a job that runs."""

    row: JobRow
    output: str | None = None
    error: str | None = None
    worker_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCounts:
    """Numbers of jobs by what became of them, and how often jobs were run again on request."""

    waiting: int
    running: int
    completed: int
    failed: int
    retried: int


class JobQueue(Protocol):
    """Takes jobs durably, and ends each exactly once, whatever is killed."""

    async def accept_job(
        self,
        job_input: object,
        *,
        webhook: str | None,
        timeout_s: float | None,
        ttl_s: float | None,
        api: ApiName = "runpod",
        job_id: str | None = None,
        webhook_events: Sequence["EventName"] | None = None,
        notes: "JobNotes | None" = None,
        route: JobRoute = ANY_ROUTE,
    ) -> str:
        """Take a job and return its id; it survives a power cut from here on, together with its notes.

        Its webhook is told of its `webhook_events`, or else of its end, whichever it is.
        Raises `QueueFull`, `JobsNotStored`, `RouteUnknown`.
        """

    async def read_record(self, job_id: str, *, wait_s: float = 0.0) -> JobRecord:
        """Return the job once it has ended, or as it is after `wait_s` seconds. Raises `JobUnknown`."""

    async def cancel_job(self, job_id: str) -> JobState:
        """Stop a job and return its state then; a job that has ended keeps its state. Raises `JobUnknown`."""

    async def cancel_waiting(self) -> int:
        """Cancel all jobs that wait; return how many those were."""

    async def retry_job(self, job_id: str) -> None:
        """Run an ended job again. Raises `JobUnknown`, `RetryRefused`, `QueueFull`."""


class QueueOrder(Protocol):
    """Where jobs run, on this machine or on workers elsewhere, and the order in which those that wait begin."""

    can_reorder: bool
    runs_here: bool

    async def prioritize_job(self, job_id: str, priority: int) -> None:
        """Let a job that waits begin before those of a lower priority. Raises `JobUnknown`, `NotReordered`."""


class JobCatalogue(Protocol):
    """Shows the jobs of all APIs: to lists, pages, and followers of what happens."""

    events: "JobEvents"

    @property
    def has_all_jobs(self) -> bool:
        """Return whether lists and counts hold all jobs that are kept: a server of a large fleet reads for a while."""

    async def wait_for_all_jobs(self) -> None:
        """Wait until lists and counts hold all jobs that are kept."""

    @property
    def webhooks(self) -> "WebhookLedger":
        """Return what webhooks could not be told."""

    def find_live(self, job_id: str) -> "LiveJob | None":
        """Return the job if it has not ended, or ended a short while ago."""

    def waiting_place(self, job_id: str) -> int | None:
        """Return a waiting job's place in the queue, from 1; None if it does not wait."""

    def list_pending(self) -> "list[LiveJob]":
        """Return the jobs that run, then those that wait, in the order in which they are to begin."""

    def ends_in_s(self, pending: "Sequence[LiveJob]") -> dict[str, float | None]:
        """Return the seconds until the expected end of each job of `list_pending`, if its history tells."""

    def end_in_s(self, live_job: "LiveJob") -> float | None:
        """Return the seconds until one job's expected end; costs little if thousands wait."""

    async def list_jobs(self, job_filter: "JobFilter") -> "list[ListedJob]":
        """Return the jobs that a filter lets through, newest first. Raises `JobsNotStored`."""

    async def read_input(self, job_id: str) -> object:
        """Return what a job asked for, as far as it is kept."""

    async def read_status(self, job_id: str) -> bytes | None:
        """Return the body that tells a webhook of a job's end, or None if the job is not kept or runs again."""

    async def had_secrets(self, job_id: str) -> bool:
        """Return whether a job came with secrets."""


class WebhookLedger(Protocol):
    """What webhooks could not be told, and what waits to be."""

    async def list_failures(self, *, before: int | None, limit: int) -> "list[WebhookFailure]":
        """Return the posts that were given up, newest first. Raises `JobsNotStored`."""

    async def list_waiting(self, *, limit: int) -> list[tuple[str, str, int]]:
        """Return the jobs with events that wait to be told: id, host and how many. Raises `JobsNotStored`."""

    async def retry(self, number: int, write_end: "WriteEnd") -> str | None:
        """Post once more what was given up; return why it failed again, or None. Raises `WebhookNotKept`."""


class SharedKeys(Protocol):
    """The idempotency keys of all servers of a queue."""

    async def is_claimed(self, key: str) -> bool:
        """Return whether a request has used this key. Raises `JobsNotStored`."""

    async def claim(self, key: str, job_id: str | None) -> bool:
        """Claim a key; return whether it was free. Raises `JobsNotStored`."""

    async def release(self, key: str) -> None:
        """Give a key back whose request made nothing; if the queue does not answer, it stays claimed."""


class ProgressFeed(Protocol):
    """Shows the progress of jobs. Nothing of it is kept: clients that come late see the newest."""

    def follow_progress(self, job_id: str, *, silence_s: float) -> AsyncIterator[JobProgress | None]:
        """Yield the newest progress whenever it changes, until the job ends; None after `silence_s` without news."""

    def take_progress(self, job_id: str, *, poller: str, after: int | None) -> tuple[list[JobProgress], int]:
        """Return a job's progress, oldest first, and how often the job has told any.

        It is what came after the `after`th, or what this poller has not been given yet.
        """


class QueueHealth(Protocol):
    """Tells how a queue is doing: for load balancers, metrics and people."""

    metrics: Metrics

    @property
    def trouble(self) -> str | None:
        """Return why no jobs begin now, as a sentence, or None."""

    @property
    def waiting_count(self) -> int:
        """Return how many jobs wait. May be asked from any thread."""

    @property
    def running_count(self) -> int:
        """Return how many jobs run. May be asked from any thread."""

    async def count_jobs(self) -> JobCounts:
        """Count the jobs that are kept."""


class QueueWorker(Protocol):
    """Runs the jobs of a queue. `previews` shows followers what the jobs are making.

    `runs_here` says whether they run on this machine, or on workers elsewhere.
    """

    runs_here: bool

    @property
    def previews(self) -> PreviewSink:
        """Return where previews of running jobs go."""

    def note_start(self, start_s: Mapping[str, float]) -> None:
        """Show the seconds of the engine's start, by phase, among the metrics."""

    async def recover_jobs(self) -> None:
        """Queue again what had not ended when the last server did."""

    async def run_jobs(self, handle: Handle) -> None:
        """Run jobs until cancelled, or until `stop_jobs`."""

    async def stop_jobs(self, grace_s: float) -> None:
        """Begin no more jobs; give those that run some time, then put them back for the next server."""


class ServedQueue(JobQueue, QueueOrder, JobCatalogue, ProgressFeed, QueueHealth, Protocol):
    """Everything that a server asks of a queue."""


class RunnableQueue(ServedQueue, QueueWorker, Protocol):
    """A queue that a server serves and keeps going."""

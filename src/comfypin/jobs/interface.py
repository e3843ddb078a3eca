"""Sources of jobs: a source owns its loop (Runpod's SDK does, a queue does) and calls one handler for each job."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from comfypin.digest import JsonValue
from comfypin.errors import ComfypinError

JobState = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]
JOB_STATES: tuple[JobState, ...] = get_args(JobState)
PENDING_STATES: frozenset[JobState] = frozenset({"IN_QUEUE", "IN_PROGRESS"})
# Runpod's /retry takes these two only.
RETRYABLE_STATES: frozenset[JobState] = frozenset({"FAILED", "TIMED_OUT"})

ProgressCallback = Callable[[Mapping[str, JsonValue]], None]
"""Told of a job's progress, in order; must return at once."""


def ignore_progress(_progress: Mapping[str, JsonValue]) -> None:
    """Ignore progress: nobody watches this job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutcome:
    """How a job ended: its output, or its failure's, and whether this worker should be replaced after it.

    `phase_s` holds the seconds of each phase, for metrics: `output` is for clients, and nothing reads it back.
    """

    output: Mapping[str, JsonValue]
    failure: ComfypinError | None = None
    phase_s: Mapping[str, float] = field(default_factory=dict)
    replace_worker: bool = False


class Handle(Protocol):
    """Runs one job to its end. Cancelling the call cancels the prompt in the engine."""

    async def __call__(
        self, job_id: str, document: object, *, progress: ProgressCallback = ignore_progress
    ) -> JobOutcome:
        """Return the job's outcome. Failures of the job are outcomes, not exceptions."""


class JobSource(Protocol):
    """Takes jobs from somewhere and returns their outcomes, until it is stopped."""

    async def serve(self, handle: Handle) -> None:
        """Serve until stopped; returns when every job that was taken has its answer."""

"""Shows a job that runs elsewhere, on stderr: a bar on a terminal, lines in a log, JSON lines with --json."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from comfypin.cli.console import open_progress_bar

if TYPE_CHECKING:
    import rich.progress

    from comfypin.client.interface import RemoteJob, RemoteProgress

# Often enough to see that it moves, seldom enough that an hour's log stays readable.
_LINE_EVERY_S = 5.0


class JobProgressReporter(Protocol):
    """Shows how far a job is."""

    def report_job(self, job: "RemoteJob") -> None:
        """Show the job as it is now."""

    def report_note(self, note_text: str) -> None:
        """Show one sentence."""


@contextmanager
def open_job_reporter(*, as_json: bool) -> Iterator[JobProgressReporter]:
    """Yield the reporter that fits."""
    if as_json:
        yield _JobJsonReporter()
    elif sys.stderr.isatty():
        with open_progress_bar() as progress_bar:
            yield _JobBarReporter(progress_bar)
    else:
        yield _JobLineReporter()


class _JobJsonReporter:
    """Writes one JSON object a line."""

    def report_job(self, job: "RemoteJob") -> None:
        _write_line(json.dumps({"event": "job", **job.summary_json()}, ensure_ascii=False))

    def report_note(self, note_text: str) -> None:
        _write_line(json.dumps({"event": "note", "message": note_text}, ensure_ascii=False))


class _JobLineReporter:
    """Writes a line when the state changes, and the progress every few seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quiet_until = clock() + _LINE_EVERY_S
        self._last_state = ""

    def report_job(self, job: "RemoteJob") -> None:
        state = _describe_state(job)
        if state != self._last_state:
            self._last_state = state
            _write_line(state)
        elif job.progress is not None and self._clock() >= self._quiet_until:
            self._quiet_until = self._clock() + _LINE_EVERY_S
            _write_line(describe_progress(job.progress) or state)

    def report_note(self, note_text: str) -> None:
        _write_line(note_text)


class _JobBarReporter:
    """Draws a bar with the running node and the elapsed time."""

    def __init__(self, progress_bar: "rich.progress.Progress") -> None:
        self._progress_bar = progress_bar
        self._task = progress_bar.add_task("", total=None)

    def report_job(self, job: "RemoteJob") -> None:
        # Without a total, rich shows that work goes on, but not how far it is.
        self._progress_bar.update(
            self._task,
            total=1.0 if job.progress and job.progress.fraction else None,
            completed=job.progress.fraction or 0.0 if job.progress else 0.0,
            description=(describe_node(job.progress) if job.progress else "") or _describe_state(job),
        )

    def report_note(self, note_text: str) -> None:
        self._progress_bar.console.print(note_text, markup=False, highlight=False)


def describe_progress(progress: "RemoteProgress") -> str:
    """Return how far a job is and its node; no percent as long as nothing is done that could be counted."""
    percent = f"{progress.fraction:4.0%}" if progress.fraction else ""
    return "  ".join(part for part in (percent, describe_node(progress)) if part)


def describe_node(progress: "RemoteProgress") -> str:
    """Return the node that runs, with its steps."""
    from comfypin.client.json_client import printable

    node_label = printable(progress.node_title or progress.node_id or "")
    return f"{node_label} {progress.step}/{progress.steps}" if progress.steps else node_label


def _describe_state(job: "RemoteJob") -> str:
    if job.has_ended:
        return f"Job {job.id} is {job.status}."
    position = f", at place {job.position}" if job.position else ""
    estimate = f", about {job.estimate_s:.0f} s to go" if job.estimate_s and job.status == "IN_QUEUE" else ""
    message = f": {job.message}" if job.message else ""
    return f"Job {job.id} is {job.status}{position}{estimate}{message}."


def _write_line(line_text: str) -> None:
    sys.stderr.write(f"{line_text}\n")

"""Progress and logs while a command works: a bar on a terminal, plain lines in a log, JSON lines with --json.

Everything here goes to stderr; stdout belongs to results.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from comfypin.cli.transfer_progress import LINE_EVERY_S, TransferMeter, describe_elapsed, make_transfer_column, ticking
from comfypin.digest import JsonValue
from comfypin.engine.interface import NodeProgress, NodeStarted, Queued, Warned
from comfypin.engine.progress import PromptProgress
from comfypin.jobs.events import PhaseStarted, Requeued, RunEvent, event_to_json
from comfypin.plurals import format_count

if TYPE_CHECKING:
    import rich.progress

    from comfypin.outputs.bucket import UploadEvent, UploadWatcher
    from comfypin.workflow.graph import ApiGraph, NodeId

# Fast nodes report hundreds of steps a second, which nobody reads.
_EVENT_EVERY_S = 0.1
# Files can go up by the hundred each second, and a program draws one bar.
_UPLOAD_EVENT_EVERY_S = 1.0
# What is over sooner needs no progress.
_FIRST_LINE_AFTER_S = 5.0
# One line of a wide terminal.
_LONGEST_DETAIL = 160
# What every record has; the rest came with `extra`.
_PLAIN_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class ProgressReporter(Protocol):
    """Shows how far a job is, and then its uploads."""

    @property
    def report_upload(self) -> "UploadWatcher":
        """Return the callback that shows what happens to uploads; it may be called from any thread."""

    def report_step(self, step_text: str) -> None:
        """Show one sentence about what happens now."""

    def report_bytes(self, label: str, done_bytes: int, total_bytes: int) -> None:
        """Show how much of a transfer is done; called very often, from any thread."""

    def attach_graph(self, graph: "ApiGraph") -> None:
        """Take the job's graph, so that later events can name its nodes by their titles."""

    def report_event(self, event: RunEvent) -> None:
        """Show what happened to the job."""


@contextmanager
def open_reporter(*, as_json: bool) -> Iterator[ProgressReporter]:
    """Yield the reporter that fits: JSON lines if asked for, a bar on a terminal, else plain lines."""
    if as_json:
        yield JsonReporter(sys.stderr.write)
    elif sys.stderr.isatty():
        with open_progress_bar() as progress_bar:
            yield BarReporter(progress_bar)
    else:
        reporter = LineReporter(sys.stderr.write)
        with ticking(reporter.report_waiting):
            yield reporter


class _JobFollower:
    """Knows the graph's titles and how far the job is; every reporter extends it."""

    def __init__(self) -> None:
        self._graph: ApiGraph | None = None
        self._progress: PromptProgress | None = None

    def attach_graph(self, graph: "ApiGraph") -> None:
        self._graph = graph
        self._progress = PromptProgress(graph)

    def _follow_event(self, event: RunEvent) -> float | None:
        """Return the part of the work that is done, 0 to 1, or None before the graph is known."""
        if self._progress is None:
            return None
        match event:
            case PhaseStarted(phase="collect"):
                return self._progress.mark_finished()
            case PhaseStarted() | Requeued():
                return self._progress.fraction
            case _:
                return self._progress.apply_event(event)

    def _node_name(self, node_id: "NodeId") -> str:
        node = self._graph.nodes.get(node_id) if self._graph else None
        return node_id if node is None else node.title or node.class_type


class _UploadProgress:
    """Counts the bytes of each upload, and limits how often they are reported. Thread-safe."""

    def __init__(self, clock: Callable[[], float], *, every_s: float) -> None:
        self._clock = clock
        self._every_s = every_s
        # Uploads report from several threads.
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._sent: dict[str, int] = {}
        self._quiet_until: dict[str, float] = {}

    def begin_upload(self, key: str, size_bytes: int) -> None:
        with self._lock:
            self._sizes[key], self._sent[key] = size_bytes, 0
            self._quiet_until[key] = self._clock() + self._every_s

    def advance_upload(self, key: str, byte_count: int) -> tuple[int, int] | None:
        """Return the bytes sent and the total if it is time to report them, else None; resent bytes do not count."""
        with self._lock:
            # A retry sends a part again, so the sum may exceed the size.
            self._sent[key] = min(self._sent[key] + byte_count, self._sizes[key])
            if self._clock() < self._quiet_until[key]:
                return None
            self._quiet_until[key] = self._clock() + self._every_s
            return self._sent[key], self._sizes[key]


class JsonReporter(_JobFollower):
    """Writes one JSON object a line: a node's steps ten times a second at most, an upload's bytes once a second."""

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._write = write
        self._clock = clock
        self._quiet_until = 0.0
        self._uploads = _UploadProgress(clock, every_s=_UPLOAD_EVENT_EVERY_S)
        self._meter = TransferMeter(clock)
        self._bytes_quiet_until = 0.0

    def report_step(self, step_text: str) -> None:
        self._write_line({"event": "note", "message": step_text})

    def report_event(self, event: RunEvent) -> None:
        fraction = self._follow_event(event)
        # The last step is always written, so that each node is seen to reach its end.
        if isinstance(event, NodeProgress) and event.value < event.maximum:
            if self._clock() < self._quiet_until:
                return
            self._quiet_until = self._clock() + _EVENT_EVERY_S
        facts = event_to_json(event)
        if isinstance(node_id := facts.get("node"), str):
            facts["name"] = self._node_name(node_id)
        if fraction is not None:
            facts["fraction"] = round(fraction, 4)
        self._write_line(facts)

    def report_upload(self, event: "UploadEvent") -> None:
        from comfypin.outputs.bucket import UploadFinished, UploadMoved, UploadStarted

        match event:
            case UploadStarted(key=key, size_bytes=size):
                self._uploads.begin_upload(key, size)
                self._write_line({"event": "upload_started", "key": key, "size_bytes": size})
            case UploadMoved(key=key, sent_bytes=byte_count):
                if (progress := self._uploads.advance_upload(key, byte_count)) is not None:
                    self._write_line(
                        {"event": "upload_moved", "key": key, "sent_bytes": progress[0], "size_bytes": progress[1]}
                    )
            case UploadFinished(key=key):
                self._write_line({"event": "upload_finished", "key": key})

    def report_bytes(self, label: str, done_bytes: int, total_bytes: int) -> None:
        self._meter.set_progress(label, done_bytes, total_bytes)
        if self._clock() >= self._bytes_quiet_until or done_bytes == total_bytes:
            self._bytes_quiet_until = self._clock() + _UPLOAD_EVENT_EVERY_S
            _, _, bytes_per_s = self._meter.measure()
            facts: dict[str, JsonValue] = {"done_bytes": done_bytes, "total_bytes": total_bytes}
            self._write_line({"event": "moved", "what": label, **facts, "bytes_per_s": round(bytes_per_s)})

    def _write_line(self, facts: dict[str, JsonValue]) -> None:
        self._write(json.dumps(facts, ensure_ascii=False) + "\n")


class LineReporter(_JobFollower):
    """Writes a line when something changes that a reader of logs wants to know, and the progress every ten seconds."""

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._write = write
        self._clock = clock
        # Quiet at first: a short job needs no progress lines.
        self._quiet_until = clock() + _FIRST_LINE_AFTER_S
        self._meter = TransferMeter(clock)
        self._bytes_quiet_until = clock() + LINE_EVERY_S
        # Whatever had a line about its progress gets one about its end.
        self._told_transfer, self._told_nodes = "", False
        self._last_step, self._step_began, self._last_line_at = "", clock(), clock()
        self._detail = ""

    def report_step(self, step_text: str) -> None:
        self._last_step, self._step_began = step_text, self._clock()
        self._write_text(step_text)

    def report_bytes(self, label: str, done_bytes: int, total_bytes: int) -> None:
        self._meter.set_progress(label, done_bytes, total_bytes)
        self._report_transfer(label)
        if done_bytes == total_bytes:
            self._end_transfer(label)

    def report_waiting(self) -> None:
        """Print what still goes on, if nothing was printed for a while; called from another thread."""
        if self._last_step and self._clock() - self._last_line_at >= LINE_EVERY_S:
            elapsed = describe_elapsed(self._clock() - self._step_began)
            self._write_text(f"{self._last_step.rstrip('.')}: {elapsed} so far.{self._detail}")

    def note_detail(self, detail_text: str) -> None:
        """Note a line of a program that works; the next line about what goes on ends with it."""
        self._detail = f" {detail_text.strip()[:_LONGEST_DETAIL]}"

    def _report_transfer(self, what: str) -> None:
        if self._clock() >= self._bytes_quiet_until:
            self._bytes_quiet_until = self._clock() + LINE_EVERY_S
            self._told_transfer = what
            self._write_text(f"{what}: {self._meter.describe()}")

    def _end_transfer(self, name: str) -> None:
        self._meter.end(name)
        if self._told_transfer and not self._meter.count:
            self._write_text(f"{self._told_transfer}: 100%")
            self._told_transfer = ""

    def _write_text(self, line_text: str) -> None:
        self._last_line_at = self._clock()
        self._write(f"{line_text}\n")

    def report_event(self, event: RunEvent) -> None:
        fraction = self._follow_event(event)
        if (sentence := _describe_event(event)) is not None:
            # Phases are short, so a log need not name them.
            if not isinstance(event, PhaseStarted):
                self.report_step(sentence)
            elif event.phase == "collect" and self._told_nodes:
                self._told_nodes = False
                self.report_step("100%  all nodes are done")
        elif isinstance(event, NodeStarted | NodeProgress) and self._clock() >= self._quiet_until:
            self._quiet_until, self._told_nodes = self._clock() + LINE_EVERY_S, True
            steps = f" {event.value:g}/{event.maximum:g}" if isinstance(event, NodeProgress) else ""
            # Nothing is done yet that could be counted: a node without steps has no percent.
            percent = f"{fraction:4.0%}  " if fraction else ""
            self.report_step(f"{percent}{self._node_name(event.node_id)}{steps}")

    def report_upload(self, event: "UploadEvent") -> None:
        from comfypin.outputs.bucket import UploadFinished, UploadMoved, UploadStarted

        match event:
            case UploadStarted(key=key, size_bytes=size):
                self._meter.set_progress(key, 0, size)
            case UploadMoved(key=key, sent_bytes=byte_count):
                self._meter.advance(key, byte_count)
                uploads = self._meter.count
                self._report_transfer(f"Uploading {key}" if uploads == 1 else f"Uploading {uploads} files")
            case UploadFinished(key=key):
                self._end_transfer(key)


class BarReporter(_JobFollower):
    """Draws a bar with the running node and the elapsed time."""

    def __init__(self, progress_bar: "rich.progress.Progress") -> None:
        super().__init__()
        self._progress_bar = progress_bar
        # Without a total, rich shows that work goes on, but not how far it is.
        self._task = progress_bar.add_task("", total=None)
        self._uploads: dict[str, rich.progress.TaskID] = {}

    def report_step(self, step_text: str) -> None:
        self._progress_bar.update(self._task, description=step_text)

    def report_bytes(self, label: str, done_bytes: int, total_bytes: int) -> None:
        if label not in self._uploads:
            self._uploads[label] = self._progress_bar.add_task(label, total=total_bytes, transfer=True)
        self._progress_bar.update(self._uploads[label], completed=done_bytes)
        if done_bytes == total_bytes:
            self._progress_bar.remove_task(self._uploads.pop(label))

    def report_event(self, event: RunEvent) -> None:
        fraction = self._follow_event(event)
        # Printed above the bar: its own text is overwritten by the next event.
        if isinstance(event, Warned | Requeued):
            self._progress_bar.console.print(_describe_event(event), markup=False, highlight=False)
        elif (sentence := _describe_event(event)) is not None:
            self._progress_bar.update(self._task, description=sentence, completed=fraction)
        elif isinstance(event, NodeStarted | NodeProgress):
            steps = f" {event.value:g}/{event.maximum:g}" if isinstance(event, NodeProgress) else ""
            self._progress_bar.update(
                self._task,
                total=1.0 if fraction else None,
                completed=fraction or 0.0,
                description=self._node_name(event.node_id) + steps,
            )

    def report_upload(self, event: "UploadEvent") -> None:
        from comfypin.outputs.bucket import UploadFinished, UploadMoved, UploadStarted

        match event:
            case UploadStarted(key=key, size_bytes=size):
                self._uploads[key] = self._progress_bar.add_task(key, total=size, transfer=True)
            case UploadMoved(key=key, sent_bytes=byte_count):
                self._progress_bar.advance(self._uploads[key], byte_count)
            case UploadFinished(key=key):
                self._progress_bar.remove_task(self._uploads.pop(key))


def _describe_event(event: RunEvent) -> str | None:
    match event:
        case Queued(ahead=prompts_ahead) if prompts_ahead:
            return f"Waiting behind {format_count(prompts_ahead, 'prompt')}."
        case Warned(message=message):
            return f"Warning: {message}"
        case Requeued(reason=reason):
            return f"The engine died ({reason}); the job is queued once more."
        case PhaseStarted(phase="collect"):
            return "Collecting outputs."
        case PhaseStarted(phase="deliver"):
            return "Delivering outputs."
        case _:
            return None


@contextmanager
def open_progress_bar() -> "Iterator[rich.progress.Progress]":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    # Titles may hold brackets, which rich would read as styles.
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        make_transfer_column(),
    )
    # Transient: when the bar is gone, only results stay.
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress_bar:
        yield progress_bar


def configure_logging(*, as_json: bool, verbose: bool) -> None:
    """Send logs to stderr: warnings only, or with `verbose` everything that our modules and the engine log."""
    handler = _StderrHandler()
    handler.setFormatter(JsonFormatter() if as_json else PlainFormatter())
    root_logger = logging.getLogger()
    # Replaces what an SDK or an earlier call may have added: two handlers print every line twice.
    root_logger.handlers[:] = [handler]
    root_logger.setLevel(logging.WARNING)
    # Only our own loggers become verbose; SDKs log every request.
    logging.getLogger("comfypin").setLevel(logging.INFO if verbose else logging.WARNING)


def configure_service_logging(*, as_json: bool, verbose: bool) -> None:
    """Send logs to stderr for a command that runs for days: its own events always, the engine's log if `verbose`."""
    configure_logging(as_json=as_json, verbose=True)
    logging.getLogger("comfypin.engine.log").setLevel(logging.INFO if verbose else logging.WARNING)


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what stderr is at that moment: rich replaces it while a bar is drawn, and puts lines above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _extra_fields(record: logging.LogRecord) -> dict[str, object]:
    return {field_name: value for field_name, value in vars(record).items() if field_name not in _PLAIN_RECORD}


class PlainFormatter(logging.Formatter):
    """Formats a record as `12:00:00 warning model fetched path=vae/x.safetensors`."""

    def format(self, record: logging.LogRecord) -> str:
        # The engine's lines carry their own time and level.
        if record.name == "comfypin.engine.log":
            return f"engine | {record.getMessage()}"
        time_of_day = time.strftime("%H:%M:%S", time.localtime(record.created))
        # `action` is for machines; the message says the same.
        facts = "".join(
            f" {field_name}={value}" for field_name, value in _extra_fields(record).items() if field_name != "action"
        )
        log_line = f"{time_of_day} {record.levelname.lower()} {record.getMessage()}{facts}"
        return f"{log_line}\n{self.formatException(record.exc_info)}" if record.exc_info else log_line


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object on a line."""

    def format(self, record: logging.LogRecord) -> str:
        facts = {
            "event": "log",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **_extra_fields(record),
        }
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        # `extra` may hold paths and other objects.
        return json.dumps(facts, ensure_ascii=False, default=str)

"""What a person or a machine is told while a command works: a bar on a terminal, lines in a log, JSON where asked.

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

from comfypin.digest import JsonValue
from comfypin.engine.interface import NodeProgress, NodeStarted, Queued, Warned
from comfypin.engine.progress import PromptProgress
from comfypin.jobs.events import PhaseStarted, Requeued, RunEvent, event_to_json

if TYPE_CHECKING:
    import rich.progress

    from comfypin.outputs.bucket import UploadEvent, UploadWatcher
    from comfypin.workflow.graph import ApiGraph, NodeId

_LINE_EVERY_S = 5.0
_EVENT_EVERY_S = 0.1
_UPLOAD_EVENT_EVERY_S = 1.0
_PLAIN_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Teller(Protocol):
    """Tells of a job's way, and of every piece that goes up at its end."""

    @property
    def hear_upload(self) -> "UploadWatcher":
        """Something happened to an upload; called from any thread."""

    def say(self, text: str) -> None:
        """One sentence on what happens now."""

    def watch(self, graph: "ApiGraph") -> None:
        """The job's graph is known: from here on its events can be told in its words."""

    def hear(self, event: RunEvent) -> None:
        """Something happened to the job."""


@contextmanager
def telling(*, as_json: bool) -> Iterator[Teller]:
    """The teller that fits: JSON where asked for, a bar on a terminal, lines elsewhere."""
    if as_json:
        yield JsonTeller(sys.stderr.write)
    elif sys.stderr.isatty():
        with _bar() as bar:
            yield BarTeller(bar)
    else:
        yield LineTeller(sys.stderr.write)


class _Follower:
    """What all tellers share: the graph's words, and how far the job is."""

    def __init__(self) -> None:
        self._graph: ApiGraph | None = None
        self._progress: PromptProgress | None = None

    def watch(self, graph: "ApiGraph") -> None:
        self._graph = graph
        self._progress = PromptProgress(graph)

    def _follow(self, event: RunEvent) -> float | None:
        """The part of the work that is done, 0 to 1."""
        if self._progress is None:
            return None
        match event:
            case PhaseStarted(phase="collect"):
                return self._progress.mark_finished()
            case PhaseStarted() | Requeued():
                return self._progress.fraction
            case _:
                return self._progress.apply_event(event)

    def _name(self, node_id: "NodeId") -> str:
        node = self._graph.nodes.get(node_id) if self._graph else None
        return node_id if node is None else node.title or node.class_type


class _Uploads:
    """How far each upload is, and whether it is time to say so. Safe for threads."""

    def __init__(self, clock: Callable[[], float], *, every_s: float) -> None:
        self._clock = clock
        self._every_s = every_s
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._sent: dict[str, int] = {}
        self._quiet_until: dict[str, float] = {}

    def begin(self, key: str, size_bytes: int) -> None:
        with self._lock:
            self._sizes[key], self._sent[key] = size_bytes, 0
            self._quiet_until[key] = self._clock() + self._every_s

    def move(self, key: str, count: int) -> tuple[int, int] | None:
        """Bytes sent and all bytes, where they are to be told now; what is sent once more does not count."""
        with self._lock:
            self._sent[key] = min(self._sent[key] + count, self._sizes[key])
            if self._clock() < self._quiet_until[key]:
                return None
            self._quiet_until[key] = self._clock() + self._every_s
            return self._sent[key], self._sizes[key]


class JsonTeller(_Follower):
    """One JSON object a line; steps of one node at most ten times a second, bytes of one upload once."""

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._write = write
        self._clock = clock
        self._quiet_until = 0.0
        self._uploads = _Uploads(clock, every_s=_UPLOAD_EVENT_EVERY_S)

    def say(self, text: str) -> None:
        self._line({"event": "note", "message": text})

    def hear(self, event: RunEvent) -> None:
        fraction = self._follow(event)
        if isinstance(event, NodeProgress) and event.value < event.maximum:
            if self._clock() < self._quiet_until:
                return
            self._quiet_until = self._clock() + _EVENT_EVERY_S
        facts = event_to_json(event)
        if isinstance(node_id := facts.get("node"), str):
            facts["name"] = self._name(node_id)
        if fraction is not None:
            facts["fraction"] = round(fraction, 4)
        self._line(facts)

    def hear_upload(self, event: "UploadEvent") -> None:
        from comfypin.outputs.bucket import UploadFinished, UploadMoved, UploadStarted

        match event:
            case UploadStarted(key=key, size_bytes=size):
                self._uploads.begin(key, size)
                self._line({"event": "upload_started", "key": key, "size_bytes": size})
            case UploadMoved(key=key, sent_bytes=count):
                if (told := self._uploads.move(key, count)) is not None:
                    self._line({"event": "upload_moved", "key": key, "sent_bytes": told[0], "size_bytes": told[1]})
            case UploadFinished(key=key):
                self._line({"event": "upload_finished", "key": key})

    def _line(self, facts: dict[str, JsonValue]) -> None:
        self._write(json.dumps(facts, ensure_ascii=False) + "\n")


class LineTeller(_Follower):
    """A line where something changes that a reader of a log wants to know, and now and then how far it is."""

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._write = write
        self._clock = clock
        self._quiet_until = clock() + _LINE_EVERY_S
        self._uploads = _Uploads(clock, every_s=_LINE_EVERY_S)

    def say(self, text: str) -> None:
        self._write(f"{text}\n")

    def hear(self, event: RunEvent) -> None:
        fraction = self._follow(event)
        if (told := _sentence(event)) is not None:
            if not isinstance(event, PhaseStarted):
                self.say(told)
        elif isinstance(event, NodeStarted | NodeProgress) and self._clock() >= self._quiet_until:
            self._quiet_until = self._clock() + _LINE_EVERY_S
            steps = f" {event.value:g}/{event.maximum:g}" if isinstance(event, NodeProgress) else ""
            self.say(f"{fraction or 0:4.0%}  {self._name(event.node_id)}{steps}")

    def hear_upload(self, event: "UploadEvent") -> None:
        from comfypin.outputs.bucket import UploadMoved, UploadStarted

        match event:
            case UploadStarted(key=key, size_bytes=size):
                self._uploads.begin(key, size)
            case UploadMoved(key=key, sent_bytes=count):
                if (told := self._uploads.move(key, count)) is not None:
                    self.say(f"Uploading {key}: {told[0] / 1e6:.1f} of {told[1] / 1e6:.1f} MB")


class BarTeller(_Follower):
    """A bar with the node that runs and the time that has gone by."""

    def __init__(self, bar: "rich.progress.Progress") -> None:
        super().__init__()
        self._bar = bar
        self._task = bar.add_task("", total=None)
        self._uploads: dict[str, rich.progress.TaskID] = {}

    def say(self, text: str) -> None:
        self._bar.update(self._task, description=text)

    def hear(self, event: RunEvent) -> None:
        fraction = self._follow(event)
        if isinstance(event, Warned | Requeued):
            self._bar.console.print(_sentence(event), markup=False, highlight=False)
        elif (told := _sentence(event)) is not None:
            self._bar.update(self._task, description=told, completed=fraction)
        elif isinstance(event, NodeStarted | NodeProgress):
            steps = f" {event.value:g}/{event.maximum:g}" if isinstance(event, NodeProgress) else ""
            self._bar.update(
                self._task, total=1.0, completed=fraction or 0.0, description=self._name(event.node_id) + steps
            )

    def hear_upload(self, event: "UploadEvent") -> None:
        from comfypin.outputs.bucket import UploadFinished, UploadMoved, UploadStarted

        match event:
            case UploadStarted(key=key, size_bytes=size):
                self._uploads[key] = self._bar.add_task(key, total=size)
            case UploadMoved(key=key, sent_bytes=count):
                self._bar.advance(self._uploads[key], count)
            case UploadFinished(key=key):
                self._bar.remove_task(self._uploads.pop(key))


def _sentence(event: RunEvent) -> str | None:
    match event:
        case Queued(ahead=ahead) if ahead:
            return f"Waiting behind {ahead} prompts."
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
def _bar() -> "Iterator[rich.progress.Progress]":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    # Titles may hold brackets, which rich would read as styles.
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield progress


def configure_logging(*, as_json: bool, verbose: bool) -> None:
    """Send logs to stderr: warnings, and with `verbose` all that our own modules and the engine say."""
    handler = _StderrHandler()
    handler.setFormatter(JsonFormatter() if as_json else PlainFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("comfypin").setLevel(logging.INFO if verbose else logging.WARNING)


def configure_service_logging(*, as_json: bool, verbose: bool) -> None:
    """As `configure_logging`, for what runs for days: it tells what it does; `verbose` adds the engine's log."""
    configure_logging(as_json=as_json, verbose=True)
    logging.getLogger("comfypin.engine.log").setLevel(logging.INFO if verbose else logging.WARNING)


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever stderr is now, so that lines appear above a bar."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _facts(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _PLAIN_RECORD}


class PlainFormatter(logging.Formatter):
    """`12:00:00 warning model fetched path=vae/x.safetensors`."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == "comfypin.engine.log":
            return f"engine | {record.getMessage()}"
        when = time.strftime("%H:%M:%S", time.localtime(record.created))
        facts = "".join(f" {name}={value}" for name, value in _facts(record).items() if name != "action")
        text = f"{when} {record.levelname.lower()} {record.getMessage()}{facts}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        facts = {"event": "log", "level": record.levelname.lower(), "message": record.getMessage(), **_facts(record)}
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return json.dumps(facts, ensure_ascii=False, default=str)

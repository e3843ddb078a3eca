"""Progress of model downloads: bars with rate and time left on a terminal, else lines, JSON lines with --json."""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from comfypin.cli.transfer_progress import describe_transfer, make_transfer_column
from comfypin.models.interface import NullPullWatcher, PullWatcher
from comfypin.plurals import format_size

if TYPE_CHECKING:
    import rich.progress

# A log of a pull that takes an hour should still be readable.
LINE_EVERY_S = 10.0


@contextlib.contextmanager
def open_watcher(*, as_json: bool, quiet: bool = False) -> Iterator[PullWatcher]:
    """Yield the watcher that fits: none if `quiet`, JSON lines if asked for, bars on a terminal, else lines."""
    if quiet:
        yield NullPullWatcher()
    elif as_json:
        yield LineWatcher(sys.stderr.write, as_json=True)
    elif sys.stderr.isatty():
        with _open_bars() as bars:
            yield BarWatcher(bars)
    else:
        yield LineWatcher(sys.stderr.write, as_json=False)


class PullProgress:
    """Keeps each file's size, the bytes present, the bytes fetched now, and the time it began."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._fetched: dict[str, int] = {}
        self._began: dict[str, float] = {}

    def plan_files(self, sizes: Mapping[str, int | None]) -> None:
        """Add files to the total before any of them begins."""
        self._sizes.update({file_name: size or 0 for file_name, size in sizes.items()})

    def start_file(self, file_name: str, total_bytes: int | None, resumed_bytes: int, now_s: float) -> None:
        """Begin a file, or begin it again."""
        self._sizes[file_name], self._done[file_name] = total_bytes or 0, resumed_bytes
        self._fetched.setdefault(file_name, 0)
        self._began.setdefault(file_name, now_s)

    def advance_file(self, file_name: str, byte_count: int) -> None:
        """Add bytes that arrived."""
        self._done[file_name] = self._done.get(file_name, 0) + byte_count
        self._fetched[file_name] = self._fetched.get(file_name, 0) + byte_count

    def end_file(self, file_name: str) -> None:
        """End a file; one that was present already does not count in the total."""
        if self._began.pop(file_name, None) is None:
            self._sizes.pop(file_name, None)

    @property
    def files_in_progress(self) -> list[str]:
        """Return the files that are being fetched."""
        return list(self._began)

    @property
    def file_count(self) -> int:
        """Return the number of files in the total."""
        return len(self._sizes)

    def file_progress(self, file_name: str, now_s: float) -> tuple[int, int, float, float]:
        """Return one file's present bytes, total bytes, bytes a second, and seconds left."""
        return _measure_progress(
            self._done[file_name], self._sizes[file_name], self._fetched[file_name], now_s - self._began[file_name]
        )

    def total_progress(self, began_s: float, now_s: float) -> tuple[int, int, float, float]:
        """Return the same four figures for all files together."""
        return _measure_progress(
            sum(self._done.values()), sum(self._sizes.values()), sum(self._fetched.values()), now_s - began_s
        )


def _measure_progress(
    done_bytes: int, total_bytes: int, fetched_bytes: int, elapsed_s: float
) -> tuple[int, int, float, float]:
    # No time may have passed yet.
    bytes_per_s = fetched_bytes / max(1e-9, elapsed_s)
    return done_bytes, total_bytes, bytes_per_s, max(0, total_bytes - done_bytes) / max(1.0, bytes_per_s)


class LineWatcher:
    """Writes a line for each finished file, and every ten seconds the progress, with rate and time left."""

    def __init__(
        self, write: Callable[[str], object], *, as_json: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._as_json = as_json
        self._clock = clock
        self._began = self._told = clock()
        # Files are downloaded in several threads.
        self._lock = threading.Lock()
        self._tally = PullProgress()

    def plan_files(self, sizes: Mapping[str, int | None]) -> None:
        with self._lock:
            self._tally.plan_files(sizes)

    def start_file(self, file_name: str, total_bytes: int | None, resumed_bytes: int) -> None:
        with self._lock:
            self._tally.start_file(file_name, total_bytes, resumed_bytes, self._clock())
        if resumed_bytes:
            self._write_line("resumed", file_name, f"goes on after {format_size(resumed_bytes)}", bytes=resumed_bytes)

    def advance_file(self, name: str, count: int) -> None:
        with self._lock:
            self._tally.advance_file(name, count)
            now_s = self._clock()
            if now_s - self._told < LINE_EVERY_S:
                return
            self._told = now_s
            total_progress = self._tally.total_progress(self._began, now_s)
            # For a single file, the total says it all.
            file_progresses = (
                {file: self._tally.file_progress(file, now_s) for file in self._tally.files_in_progress}
                if self._tally.file_count > 1
                else {}
            )
        # Outside the lock: a slow terminal must not hold up downloads.
        for file_name, progress in file_progresses.items():
            self._write_progress(file_name, *progress)
        self._write_progress("", *total_progress)

    def end_file(self, file_name: str, outcome: str) -> None:
        with self._lock:
            self._tally.end_file(file_name)
        if outcome != "present":
            self._write_line(outcome, file_name, outcome)

    def _write_progress(
        self, file_name: str, done_bytes: int, total_bytes: int, bytes_per_s: float, left_s: float
    ) -> None:
        self._write_line(
            "progress",
            file_name,
            describe_transfer(done_bytes, total_bytes, bytes_per_s),
            bytes=done_bytes,
            total_bytes=total_bytes,
            bytes_per_s=int(bytes_per_s),
            seconds_left=int(left_s),
        )

    def _write_line(self, event: str, file_name: str, line_text: str, **facts: int) -> None:
        if self._as_json:
            self._write(json.dumps({"event": event, **({"model": file_name} if file_name else {}), **facts}) + "\n")
        else:
            self._write(f"{file_name}: {line_text}\n" if file_name else f"{line_text}\n")


class BarWatcher:
    """Draws a bar for each file that is being fetched, and one for the total."""

    def __init__(self, bars: "rich.progress.Progress") -> None:
        self._bars = bars
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._tally = PullProgress()
        self._total_task = bars.add_task("all", total=None, transfer=True)
        self._lock = threading.Lock()

    def plan_files(self, sizes: Mapping[str, int | None]) -> None:
        with self._lock:
            self._tally.plan_files(sizes)
            self._update_total()

    def start_file(self, file_name: str, total_bytes: int | None, resumed_bytes: int) -> None:
        with self._lock:
            if file_name in self._tasks:
                self._bars.remove_task(self._tasks[file_name])
            # The end of a path says more than its beginning.
            label = file_name.replace("$MODELS_DIR/", "")[-48:]
            self._tasks[file_name] = self._bars.add_task(
                label, total=total_bytes, completed=resumed_bytes, transfer=True
            )
            self._tally.start_file(file_name, total_bytes, resumed_bytes, time.monotonic())
            self._update_total()

    def advance_file(self, file_name: str, count: int) -> None:
        with self._lock:
            self._tally.advance_file(file_name, count)
            if file_name in self._tasks:
                self._bars.advance(self._tasks[file_name], count)
            self._update_total()

    def end_file(self, file_name: str, outcome: str) -> None:
        with self._lock:
            task = self._tasks.pop(file_name, None)
            if task is not None:
                self._bars.remove_task(task)
            self._tally.end_file(file_name)
            self._update_total()
        if outcome != "present":
            self._bars.console.print(f"{file_name}: {outcome}", highlight=False, markup=False)

    def _update_total(self) -> None:
        # Only the bytes are used, so the times do not matter.
        done_bytes, total_bytes, _, _ = self._tally.total_progress(0.0, 0.0)
        self._bars.update(self._total_task, total=total_bytes, completed=done_bytes)


def _open_bars() -> "rich.progress.Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        make_transfer_column(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=5)

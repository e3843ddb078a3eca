"""How a pull looks while it goes: bars with rate and time left on a terminal, lines in a log, JSON where asked."""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from comfypin.models.interface import NullPullWatcher, PullWatcher

if TYPE_CHECKING:
    import rich.progress

LINE_EVERY_S = 10.0


@contextlib.contextmanager
def watching(*, as_json: bool, quiet: bool = False) -> Iterator[PullWatcher]:
    """The watcher that fits where stderr goes."""
    if quiet:
        yield NullPullWatcher()
    elif as_json:
        yield LineWatcher(sys.stderr.write, as_json=True)
    elif sys.stderr.isatty():
        with _bars() as bars:
            yield BarWatcher(bars)
    else:
        yield LineWatcher(sys.stderr.write, as_json=False)


class Tally:
    """What is known of each file: its size, how much is there, how much of that came now, and when it began."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._fetched: dict[str, int] = {}
        self._began: dict[str, float] = {}

    def planned(self, sizes: Mapping[str, int | None]) -> None:
        """Files that will be looked at: they belong to the whole before they begin."""
        self._sizes.update({name: size or 0 for name, size in sizes.items()})

    def started(self, name: str, size: int | None, resumed: int, now: float) -> None:
        """A file begins, or begins again."""
        self._sizes[name], self._done[name] = size or 0, resumed
        self._fetched.setdefault(name, 0)
        self._began.setdefault(name, now)

    def advanced(self, name: str, count: int) -> None:
        """Bytes came."""
        self._done[name] = self._done.get(name, 0) + count
        self._fetched[name] = self._fetched.get(name, 0) + count

    def ended(self, name: str) -> None:
        """A file is in its place. What needed no fetching is no part of the whole."""
        if self._began.pop(name, None) is None:
            self._sizes.pop(name, None)

    @property
    def going(self) -> list[str]:
        """The files that are on their way."""
        return list(self._began)

    @property
    def files(self) -> int:
        """How many files the whole is made of."""
        return len(self._sizes)

    def one(self, name: str, now: float) -> tuple[int, int, float, float]:
        """Bytes that are there, all bytes, bytes a second, seconds left: of one file."""
        return _pace(self._done[name], self._sizes[name], self._fetched[name], now - self._began[name])

    def whole(self, began: float, now: float) -> tuple[int, int, float, float]:
        """The same of all files."""
        return _pace(sum(self._done.values()), sum(self._sizes.values()), sum(self._fetched.values()), now - began)


def _pace(done: int, size: int, fetched: int, seconds: float) -> tuple[int, int, float, float]:
    rate = fetched / max(1e-9, seconds)
    return done, size, rate, max(0, size - done) / max(1.0, rate)


class LineWatcher:
    """One line when a file is in its place; now and then how far each is and the whole, with rate and time left."""

    def __init__(
        self, write: Callable[[str], object], *, as_json: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._as_json = as_json
        self._clock = clock
        self._began = self._told = clock()
        self._lock = threading.Lock()
        self._tally = Tally()

    def planned(self, sizes: Mapping[str, int | None]) -> None:
        with self._lock:
            self._tally.planned(sizes)

    def started(self, name: str, total_bytes: int | None, resumed_bytes: int) -> None:
        with self._lock:
            self._tally.started(name, total_bytes, resumed_bytes, self._clock())
        if resumed_bytes:
            self._line("resumed", name, f"goes on after {_mb(resumed_bytes)}", bytes=resumed_bytes)

    def advanced(self, name: str, count: int) -> None:
        with self._lock:
            self._tally.advanced(name, count)
            now = self._clock()
            if now - self._told < LINE_EVERY_S:
                return
            self._told = now
            whole = self._tally.whole(self._began, now)
            # Of a single file, the whole says all.
            each = {file: self._tally.one(file, now) for file in self._tally.going} if self._tally.files > 1 else {}
        for file, progress in each.items():
            self._progress(file, *progress)
        self._progress("", *whole)

    def ended(self, name: str, outcome: str) -> None:
        with self._lock:
            self._tally.ended(name)
        if outcome != "present":
            self._line(outcome, name, outcome)

    def _progress(self, name: str, done: int, size: int, rate: float, left_s: float) -> None:
        text = f"{_mb(done)} of {_mb(size)}, {rate / 1e6:.1f} MB/s, {left_s:.0f} s left"
        self._line(
            "progress", name, text, bytes=done, total_bytes=size, bytes_per_s=int(rate), seconds_left=int(left_s)
        )

    def _line(self, event: str, name: str, text: str, **facts: int) -> None:
        if self._as_json:
            self._write(json.dumps({"event": event, **({"model": name} if name else {}), **facts}) + "\n")
        else:
            self._write(f"{name}: {text}\n" if name else f"{text}\n")


class BarWatcher:
    """A bar for each file that is on its way, and one for the whole."""

    def __init__(self, bars: "rich.progress.Progress") -> None:
        self._bars = bars
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._tally = Tally()
        self._whole = bars.add_task("all", total=None)
        self._lock = threading.Lock()

    def planned(self, sizes: Mapping[str, int | None]) -> None:
        with self._lock:
            self._tally.planned(sizes)
            self._sum_up()

    def started(self, name: str, total_bytes: int | None, resumed_bytes: int) -> None:
        with self._lock:
            if name in self._tasks:
                self._bars.remove_task(self._tasks[name])
            label = name.replace("$MODELS_DIR/", "")[-48:]
            self._tasks[name] = self._bars.add_task(label, total=total_bytes, completed=resumed_bytes)
            self._tally.started(name, total_bytes, resumed_bytes, time.monotonic())
            self._sum_up()

    def advanced(self, name: str, count: int) -> None:
        with self._lock:
            self._tally.advanced(name, count)
            if name in self._tasks:
                self._bars.advance(self._tasks[name], count)
            self._sum_up()

    def ended(self, name: str, outcome: str) -> None:
        with self._lock:
            task = self._tasks.pop(name, None)
            if task is not None:
                self._bars.remove_task(task)
            self._tally.ended(name)
            self._sum_up()
        if outcome != "present":
            self._bars.console.print(f"{name}: {outcome}", highlight=False, markup=False)

    def _sum_up(self) -> None:
        done, size, _, _ = self._tally.whole(0.0, 0.0)
        self._bars.update(self._whole, total=size, completed=done)


def _bars() -> "rich.progress.Progress":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=5)


def _mb(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"

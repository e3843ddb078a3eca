"""How a pull looks while it goes: bars with rate and time left on a terminal, lines in a log, JSON where asked."""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from comfypin.models.interface import Unwatched, Watcher

if TYPE_CHECKING:
    import rich.progress

LINE_EVERY_S = 10.0


@contextlib.contextmanager
def watching(*, as_json: bool, quiet: bool = False) -> Iterator[Watcher]:
    """The watcher that fits where stderr goes."""
    if quiet:
        yield Unwatched()
    elif as_json:
        yield LineWatcher(sys.stderr.write, as_json=True)
    elif sys.stderr.isatty():
        with _bars() as bars:
            yield BarWatcher(bars)
    else:
        yield LineWatcher(sys.stderr.write, as_json=False)


class LineWatcher:
    """One line when a file is in its place, and now and then how far the whole is."""

    def __init__(
        self, write: Callable[[str], object], *, as_json: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._as_json = as_json
        self._clock = clock
        self._began = self._told = clock()
        self._lock = threading.Lock()
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._fetched = 0

    def started(self, name: str, total_bytes: int | None, resumed_bytes: int) -> None:
        with self._lock:
            self._totals[name] = total_bytes or 0
            self._done[name] = resumed_bytes
        if resumed_bytes:
            self._line("resumed", name, f"goes on after {_mb(resumed_bytes)}", bytes=resumed_bytes)

    def advanced(self, name: str, count: int) -> None:
        with self._lock:
            self._done[name] = self._done.get(name, 0) + count
            self._fetched += count
            now = self._clock()
            if now - self._told < LINE_EVERY_S:
                return
            self._told = now
            done, total = sum(self._done.values()), sum(self._totals.values())
            rate = self._fetched / max(1e-9, now - self._began)
            left_s = max(0, total - done) / max(1.0, rate)
        text = f"{_mb(done)} of {_mb(total)}, {rate / 1e6:.1f} MB/s, {left_s:.0f} s left"
        self._line("progress", "", text, bytes=done, total_bytes=total, bytes_per_s=int(rate), seconds_left=int(left_s))

    def ended(self, name: str, outcome: str) -> None:
        if outcome != "present":
            self._line(outcome, name, outcome)

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
        self._sizes: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._whole = bars.add_task("all", total=None)
        self._lock = threading.Lock()

    def started(self, name: str, total_bytes: int | None, resumed_bytes: int) -> None:
        with self._lock:
            if name in self._tasks:
                self._bars.remove_task(self._tasks[name])
            label = name.replace("$MODELS_DIR/", "")[-48:]
            self._tasks[name] = self._bars.add_task(label, total=total_bytes, completed=resumed_bytes)
            self._sizes[name] = total_bytes or 0
            self._done[name] = resumed_bytes
            self._sum_up()

    def advanced(self, name: str, count: int) -> None:
        with self._lock:
            self._done[name] = self._done.get(name, 0) + count
            if name in self._tasks:
                self._bars.update(self._tasks[name], completed=self._done[name])
            self._sum_up()

    def ended(self, name: str, outcome: str) -> None:
        with self._lock:
            task = self._tasks.pop(name, None)
            if task is not None:
                self._bars.remove_task(task)
        if outcome != "present":
            self._bars.console.print(f"{name}: {outcome}", highlight=False, markup=False)

    def _sum_up(self) -> None:
        self._bars.update(self._whole, total=sum(self._sizes.values()), completed=sum(self._done.values()))


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

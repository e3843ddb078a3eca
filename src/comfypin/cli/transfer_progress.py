"""How far a transfer is, in words: bytes, rate and time left; lines for a log every ten seconds."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from comfypin.plurals import format_rate, format_size

if TYPE_CHECKING:
    import rich.progress

# A log of what takes an hour should still be readable.
LINE_EVERY_S = 10.0
# The rate of the last moments, so that a connection that became slow is seen.
_RATE_WINDOW_S = 20.0


class TransferMeter:
    """Measures transfers by name; thread-safe. One that begins again counts from zero."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])
        self._moved_bytes = 0

    def set_progress(self, file_name: str, done_bytes: int, total_bytes: int) -> None:
        """Note how much of a transfer is done."""
        with self._lock:
            self._moved_bytes += max(0, done_bytes - self._done.get(file_name, 0))
            self._totals[file_name], self._done[file_name] = total_bytes, done_bytes
            self._take_sample()

    def advance(self, file_name: str, byte_count: int) -> None:
        """Note bytes that were moved; bytes that are sent again move, and do not count as done twice."""
        with self._lock:
            self._moved_bytes += byte_count
            self._done[file_name] = min(self._done.get(file_name, 0) + byte_count, self._totals.get(file_name, 0))
            self._take_sample()

    def end(self, file_name: str) -> None:
        """Forget a transfer that has ended; the others go on."""
        with self._lock:
            self._totals.pop(file_name, None)
            self._done.pop(file_name, None)

    @property
    def count(self) -> int:
        """Return how many transfers go on."""
        return len(self._totals)

    def measure(self) -> tuple[int, int, float]:
        """Return the bytes done, all bytes, and bytes a second of the last moments."""
        with self._lock:
            now_s = self._clock()
            began_s, began_bytes = self._samples[0]
            # No time may have passed yet.
            bytes_per_s = (self._moved_bytes - began_bytes) / max(1e-3, now_s - began_s)
            return sum(self._done.values()), sum(self._totals.values()), bytes_per_s

    def describe(self) -> str:
        """Return `12.0 MB of 40.0 MB, 5.2 MB/s, 5 s left`."""
        return describe_transfer(*self.measure())

    def _take_sample(self) -> None:
        now_s = self._clock()
        # Ten samples in the window are enough for a rate.
        if now_s - self._samples[-1][0] >= _RATE_WINDOW_S / 10:
            self._samples.append((now_s, self._moved_bytes))
        while len(self._samples) > 1 and now_s - self._samples[0][0] > _RATE_WINDOW_S:
            self._samples.popleft()


def describe_transfer(done_bytes: int, total_bytes: int, bytes_per_s: float) -> str:
    """Return `12.0 MB of 40.0 MB, 5.2 MB/s, 5 s left`; without a time if nothing moves."""
    transfer_text = f"{format_size(done_bytes)} of {format_size(total_bytes)}, {format_rate(bytes_per_s)}"
    return (
        f"{transfer_text}, {describe_time((total_bytes - done_bytes) / bytes_per_s)} left"
        if bytes_per_s >= 1
        else transfer_text
    )


def make_transfer_column() -> "rich.progress.ProgressColumn":
    """Return the column of a progress bar that shows bytes, rate and time left of tasks with the field `transfer`."""
    from rich.progress import ProgressColumn
    from rich.text import Text

    class TransferColumn(ProgressColumn):
        def render(self, task: "rich.progress.Task") -> Text:
            if not task.fields.get("transfer"):
                return Text("")
            rate = task.speed or 0.0
            if task.total is None:
                return Text(f"{format_size(task.completed)}, {format_rate(rate)}")
            return Text(describe_transfer(int(task.completed), int(task.total), rate))

    return TransferColumn()


def describe_time(seconds: float) -> str:
    """Return `40 s`, `12 min` or `3 h 20 min`."""
    # Rounded first, so that 99.7 does not become 100 s, and 1.7 min follow 100 s as 2.
    if round(seconds) < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def describe_elapsed(seconds: float) -> str:
    """Return `40 s`, `2:05` or `1:02:05`: a line that is printed every few seconds differs each time."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def ticking(tick: Callable[[], None], *, every_s: float = LINE_EVERY_S) -> Iterator[None]:
    """Call `tick` in another thread, every few seconds, while the block runs."""
    ended = threading.Event()

    def run_ticks() -> None:
        while not ended.wait(every_s):
            tick()

    thread = threading.Thread(target=run_ticks, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

"""Measures a start: the seconds of each phase, from the process's first moment to the first job that it could take."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_CLOCK_TICKS_PER_S = 100  # USER_HZ, which is 100 wherever Linux runs CPython
_STAT = Path("/proc/self/stat")


class StartTimes:
    """Adds up the seconds of phases, which may overlap. Safe for threads.

    `total` counts from the start of the process, the interpreter's own start and imports included.
    """

    def __init__(self, *, clock_s: float | None = None, began_s: float | None = None) -> None:
        """Begin now, or at `began_s`, a time of `time.monotonic`; by default when the process began."""
        now_s = time.monotonic() if clock_s is None else clock_s
        self._began_s = now_s - process_age_s() if began_s is None else began_s
        self._seconds: dict[str, float] = {"process": now_s - self._began_s}
        self._live: dict[str, Callable[[], float]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the seconds of the block to a phase, even if the block fails."""
        phase_began_s = time.monotonic()
        try:
            yield
        finally:
            self.add(phase, time.monotonic() - phase_began_s)

    def add(self, phase: str, seconds: float) -> None:
        """Add seconds to a phase."""
        with self._lock:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds

    def watch(self, phase: str, read_s: Callable[[], float]) -> None:
        """Ask for a phase's seconds whenever they are wanted: it may go on after the start."""
        self._live[phase] = read_s

    def end(self) -> Mapping[str, float]:
        """Set `total`, and return the seconds of all phases."""
        with self._lock:
            self._seconds["total"] = time.monotonic() - self._began_s
        return self.seconds

    @property
    def seconds(self) -> Mapping[str, float]:
        """Return the seconds by phase, so far."""
        live = {phase: read_s() for phase, read_s in self._live.items()}
        with self._lock:
            return {**live, **self._seconds}


def process_age_s() -> float:
    """Return the seconds since this process began; 0 if the system does not say."""
    with suppress(OSError, ValueError, IndexError, AttributeError):
        # The second field is the program's name in brackets, which may hold spaces.
        fields = _STAT.read_text().rpartition(")")[2].split()
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / _CLOCK_TICKS_PER_S)
    return 0.0

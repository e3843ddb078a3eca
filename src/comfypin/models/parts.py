"""The parts of one file on its way: what fetchers take and fill in any order, and one hasher reads in order."""

import heapq
import threading
from dataclasses import dataclass

# The hasher is woken for this much at once: waking it for every read of a socket costs more than the hash itself.
HASH_STEP_BYTES = 2 << 20


@dataclass(slots=True)
class Part:
    """One range of the file; `length` is None where nobody knows it. `resumed` ones were there before this run."""

    index: int
    start: int
    length: int | None
    written: int = 0
    resumed: bool = False

    @property
    def whole(self) -> bool:
        return self.length is not None and self.written >= self.length


class Parts:
    """All parts of a file. Fetchers and the hasher meet here, and nowhere else."""

    def __init__(self) -> None:
        self.all: list[Part] = []
        self.fetched_bytes = 0
        self.failure: Exception | None = None
        self.over = False
        self._missing: list[int] = []
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._offered = threading.Condition(self._lock)
        self._awaited: Part | None = None
        self._awaited_bytes = 0

    @property
    def missing(self) -> int:
        """How many parts nobody has taken."""
        return len(self._missing)

    def add(self, start: int, length: int | None, *, there: bool = False) -> Part:
        """Append a part: one that is `there` already, or one to be fetched."""
        part = Part(len(self.all), start, length)
        if there:
            part.written, part.resumed = length or 0, True
        else:
            self._missing.append(part.index)
        self.all.append(part)
        return part

    # -- for fetchers

    def take(self) -> Part | None:
        """The first part that is missing, waiting for one to be put back; None when all is over."""
        with self._lock:
            while not self.over and self.failure is None:
                if self._missing:
                    return self.all[heapq.heappop(self._missing)]
                self._offered.wait(0.5)
        return None

    def put_back(self, part: Part) -> None:
        """Let anybody go on with the part where it broke off."""
        with self._lock:
            heapq.heappush(self._missing, part.index)
            self._offered.notify()

    def wrote(self, part: Part, count: int) -> None:
        """Say that the next bytes of a part are in the file."""
        with self._lock:
            part.written += count
            self.fetched_bytes += count
            if part is self._awaited and (part.whole or part.written >= self._awaited_bytes):
                self._arrived.notify()

    def ended(self, part: Part) -> None:
        """Say that a part whose length nobody knew is all there."""
        with self._lock:
            part.length = part.written
            self._arrived.notify()

    def fail(self, error: Exception) -> None:
        """End the work of all; the first failure counts."""
        with self._lock:
            self.failure = self.failure or error
            self._arrived.notify()
            self._offered.notify_all()

    # -- for the hasher

    def arrived(self, part: Part, position: int, *, wait_s: float) -> int | None:
        """How much of a part is written, once that is worth a look beyond `position` or all there will be.

        None where that did not come to be within `wait_s`, or something failed.
        """
        with self._lock:
            self._awaited, self._awaited_bytes = part, position + HASH_STEP_BYTES
            self._arrived.wait_for(lambda: self.failure is not None or self._ready(part), wait_s)
            self._awaited = None
            # What has arrived is hashed even after a failure, so that the next run can tell whether it is still right.
            return part.written if self._ready(part) else None

    def _ready(self, part: Part) -> bool:
        return part.whole or part.written >= self._awaited_bytes

    def fetch_again(self, part: Part) -> None:
        """The bytes on the disk are not those that had arrived: only this part is fetched again."""
        with self._lock:
            part.written, part.resumed = 0, False
            heapq.heappush(self._missing, part.index)
            self._offered.notify()

    def end(self) -> None:
        """Everything was hashed, or nothing is wanted any more."""
        with self._lock:
            self.over = True
            self._offered.notify_all()

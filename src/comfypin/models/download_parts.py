"""The parts of one file on its way: what fetchers take and fill in any order, and one hasher reads in order."""

import heapq
import threading
from dataclasses import dataclass

# The hasher is woken for this much at once: waking it for every read of a socket costs more than the hash itself.
HASH_STEP_BYTES = 2 << 20


@dataclass(slots=True)
class Part:
    """One range of the file, and how much of it is written and hashed; `length` is None where nobody knows it.

    `resumed` ones were there before this run.
    """

    index: int
    start: int
    length: int | None
    written: int = 0
    hashed: int = 0
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
        self._lent = False

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

    def lend_hash(self, part: Part) -> bool:
        """Whether the next bytes of a part are the next ones of the hash, and the fetcher may hash them.

        The hasher waits for them then; it has the hash back when they are said to be written.
        """
        with self._lock:
            if part is not self._awaited or part.hashed != part.written:
                return False
            self._lent = True
            return True

    def wrote(self, part: Part, count: int, *, hashed: bool) -> None:
        """Say that the next bytes of a part are in the file; `hashed` gives back a hash that was lent."""
        with self._lock:
            part.written += count
            self.fetched_bytes += count
            if hashed:
                part.hashed += count
                self._lent = False
            if part is self._awaited and self._ready(part):
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

    def arrived(self, part: Part, *, wait_s: float) -> bool:
        """Whether more of a part is written, once that is worth a look or is all there will be.

        Not within `wait_s`, or something failed: False.
        """
        with self._lock:
            self._awaited = part
            self._arrived.wait_for(lambda: self.failure is not None or self._ready(part), wait_s)
            self._awaited = None
            # What has arrived is hashed even after a failure, so that the next run can tell whether it is still right.
            return self._ready(part)

    def _ready(self, part: Part) -> bool:
        return not self._lent and (part.whole or part.written - part.hashed >= HASH_STEP_BYTES)

    def fetch_again(self, part: Part) -> None:
        """The bytes on the disk are not those that had arrived: only this part is fetched again."""
        with self._lock:
            part.written, part.hashed, part.resumed = 0, 0, False
            heapq.heappush(self._missing, part.index)
            self._offered.notify()

    def end(self) -> None:
        """Everything was hashed, or nothing is wanted any more."""
        with self._lock:
            self.over = True
            self._offered.notify_all()

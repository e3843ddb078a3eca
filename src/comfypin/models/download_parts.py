"""Keeps the parts of one file while it arrives: fetchers take and fill them in any order, one hasher reads them in
order.
"""

import heapq
import threading
from dataclasses import dataclass

# The hasher is woken once for so many bytes: waking it for every read of a socket costs more than the hash itself.
HASH_STEP_BYTES = 2 << 20


@dataclass(slots=True)
class FilePart:
    """One range of the file, and how much of it is written and hashed; `length` is None if unknown.

    `resumed` means that the bytes were there before this run.
    """

    index: int
    start: int
    length: int | None
    written: int = 0
    hashed: int = 0
    resumed: bool = False

    @property
    def is_fully_written(self) -> bool:
        """Return whether all bytes of the range were written."""
        return self.length is not None and self.written >= self.length


class FileParts:
    """All parts of a file: the only place where fetchers and the hasher meet."""

    def __init__(self) -> None:
        self.all: list[FilePart] = []
        self.fetched_bytes = 0
        self.failure: Exception | None = None
        self.over = False
        self._missing: list[int] = []
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._offered = threading.Condition(self._lock)
        self._awaited: FilePart | None = None
        self._lent = False

    @property
    def missing_count(self) -> int:
        """Return how many parts nobody has taken."""
        return len(self._missing)

    def add_part(self, start: int, length: int | None, *, there: bool = False) -> FilePart:
        """Append a part: `there` if its bytes exist already, else to be fetched."""
        file_part = FilePart(len(self.all), start, length)
        if there:
            file_part.written, file_part.resumed = length or 0, True
        else:
            self._missing.append(file_part.index)
        self.all.append(file_part)
        return file_part

    # -- for fetchers

    def take_missing(self) -> FilePart | None:
        """Take the first missing part, waiting for one to be put back; return None when everything is done."""
        with self._lock:
            while not self.over and self.failure is None:
                if self._missing:
                    return self.all[heapq.heappop(self._missing)]
                # Also wakes up by itself, so that a fetcher notices the end even if nobody notifies it.
                self._offered.wait(0.5)
        return None

    def put_back(self, file_part: FilePart) -> None:
        """Let another fetcher continue the part from its current end."""
        with self._lock:
            # Lowest index first: the hash reads in order, so the earliest missing part holds it up.
            heapq.heappush(self._missing, file_part.index)
            self._offered.notify()

    def lend_hash(self, file_part: FilePart) -> bool:
        """Return whether a part's next bytes are the hash's next bytes, so that the fetcher may hash them.

        The hasher then waits until they are recorded as written.
        """
        with self._lock:
            # Only these bytes continue the hash; lending it for any others would mix up their order.
            if file_part is not self._awaited or file_part.hashed != file_part.written:
                return False
            self._lent = True
            return True

    def record_written(self, file_part: FilePart, byte_count: int, *, hashed: bool) -> None:
        """Record that the next bytes of a part are in the file; `hashed` gives back a lent hash."""
        with self._lock:
            file_part.written += byte_count
            self.fetched_bytes += byte_count
            if hashed:
                file_part.hashed += byte_count
                self._lent = False
            if file_part is self._awaited and self._is_ready(file_part):
                self._arrived.notify()

    def record_end(self, file_part: FilePart) -> None:
        """Record that a part of unknown length is complete."""
        with self._lock:
            file_part.length = file_part.written
            self._arrived.notify()

    def fail_all(self, error: Exception) -> None:
        """Stop all fetchers; the first failure counts."""
        with self._lock:
            # Later failures are mostly consequences of the first.
            self.failure = self.failure or error
            self._arrived.notify()
            self._offered.notify_all()

    # -- for the hasher

    def wait_for_bytes(self, file_part: FilePart, *, wait_s: float) -> bool:
        """Wait until enough of a part is written to be worth hashing, or all of it is.

        Return False after `wait_s`, or if something failed.
        """
        with self._lock:
            self._awaited = file_part
            self._arrived.wait_for(lambda: self.failure is not None or self._is_ready(file_part), wait_s)
            self._awaited = None
            # What has arrived is hashed even after a failure, so that the next run can tell whether it is still right.
            return self._is_ready(file_part)

    def _is_ready(self, file_part: FilePart) -> bool:
        return not self._lent and (
            file_part.is_fully_written or file_part.written - file_part.hashed >= HASH_STEP_BYTES
        )

    def fetch_again(self, file_part: FilePart) -> None:
        """Fetch this part anew, because the bytes on the disk are not those that arrived."""
        with self._lock:
            file_part.written, file_part.hashed, file_part.resumed = 0, 0, False
            heapq.heappush(self._missing, file_part.index)
            self._offered.notify()

    def end_all(self) -> None:
        """End the work: everything is hashed, or nothing is wanted any more."""
        with self._lock:
            self.over = True
            self._offered.notify_all()

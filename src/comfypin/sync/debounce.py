"""Decides when a file is complete: right after its close, or once it stays unchanged for the settle time. Pure.

Times are monotonic seconds, so that a jump of the wall clock changes nothing.
"""

import heapq
from dataclasses import dataclass, field

from comfypin.sync.scan import Fingerprint

# After a close: long enough for the rename that often follows, so that no file goes out under its temporary name.
AFTER_CLOSE_S = 0.02


@dataclass(slots=True)
class _Candidate:
    due_s: float
    since_s: float
    fingerprint: Fingerprint | None
    closed: bool


@dataclass(slots=True)
class Debouncer:
    """Tracks files that may be complete soon, and when to look at each of them next."""

    settle_s: float
    _files: dict[str, _Candidate] = field(default_factory=dict)
    _heap: list[tuple[float, str]] = field(default_factory=list)

    def note_closed(self, path: str, now_s: float) -> None:
        """Note that the writer closed the file, or renamed it into place."""
        self._schedule_path(path, _Candidate(now_s + AFTER_CLOSE_S, now_s, None, closed=True))

    def note_found(self, path: str, mark: Fingerprint, now_s: float) -> None:
        """Note that a scan found the file, unless a close of it is known, which weighs more."""
        known = self._files.get(path)
        # The same state again must not restart the settle time.
        if known is None or (not known.closed and known.fingerprint != mark):
            self._schedule_path(path, _Candidate(now_s + self.settle_s, now_s, mark, closed=False))

    def due_paths(self, now_s: float) -> list[str]:
        """Return the files to look at now; each stays until it is forgotten or waits longer."""
        paths = []
        while self._heap and self._heap[0][0] <= now_s:
            due_s, path = heapq.heappop(self._heap)
            candidate = self._files.get(path)
            # Heap entries are never removed; one whose time differs is outdated.
            if candidate is not None and candidate.due_s == due_s:
                paths.append(path)
        return paths

    def has_settled(self, path: str, mark: Fingerprint, now_s: float) -> bool:
        """Return whether the file, which has this fingerprint now, may be taken."""
        candidate = self._files[path]
        return candidate.closed or (candidate.fingerprint == mark and now_s >= candidate.since_s + self.settle_s)

    def wait_longer(self, path: str, mark: Fingerprint, now_s: float) -> None:
        """Look again when it may have settled: it still changes, or is still open."""
        known = self._files[path]
        since_s = known.since_s if known.fingerprint == mark else now_s
        # At least 50 ms ahead: a file that is open all the time must not be checked in a loop.
        due_s = max(since_s + self.settle_s, now_s + min(0.05, self.settle_s))
        self._schedule_path(path, _Candidate(due_s, since_s, mark, closed=False))

    def forget_path(self, path: str) -> None:
        """Forget the file, which was taken or is gone."""
        self._files.pop(path, None)

    def waiting_paths(self) -> list[str]:
        """Return every file that waits."""
        return list(self._files)

    def hurry_all(self, now_s: float) -> None:
        """Look at every file now, as complete as it is known to be: there is no time to settle."""
        for path, candidate in list(self._files.items()):
            self._schedule_path(path, _Candidate(now_s, candidate.since_s, candidate.fingerprint, candidate.closed))

    def next_due_s(self) -> float | None:
        """Return when to look next, or None while nothing waits."""
        return self._heap[0][0] if self._heap else None

    def __len__(self) -> int:
        return len(self._files)

    def _schedule_path(self, path: str, candidate: _Candidate) -> None:
        self._files[path] = candidate
        heapq.heappush(self._heap, (candidate.due_s, path))

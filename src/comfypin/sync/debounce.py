"""Decides when a file is complete: right after its close, or once it stays unchanged for the settle time. Pure.

Times are monotonic seconds, so that a jump of the wall clock changes nothing.
"""

import heapq
from dataclasses import dataclass, field

from comfypin.sync.folder_scan import Fingerprint

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

    def note_closed(self, relative_path: str, now_s: float) -> None:
        """Note that the writer closed the file, or renamed it into place."""
        self._schedule_path(relative_path, _Candidate(now_s + AFTER_CLOSE_S, now_s, None, closed=True))

    def note_found(self, relative_path: str, fingerprint: Fingerprint, now_s: float) -> None:
        """Note that a scan found the file, unless we know that it was closed, which proves more."""
        known_candidate = self._files.get(relative_path)
        # The same state again must not restart the settle time.
        if known_candidate is None or (not known_candidate.closed and known_candidate.fingerprint != fingerprint):
            self._schedule_path(relative_path, _Candidate(now_s + self.settle_s, now_s, fingerprint, closed=False))

    def due_paths(self, now_s: float) -> list[str]:
        """Return the files to look at now; each stays until it is forgotten or waits longer."""
        due_files = []
        while self._heap and self._heap[0][0] <= now_s:
            due_s, relative_path = heapq.heappop(self._heap)
            file_candidate = self._files.get(relative_path)
            # Heap entries are never removed; one whose time differs is outdated.
            if file_candidate is not None and file_candidate.due_s == due_s:
                due_files.append(relative_path)
        return due_files

    def has_settled(self, relative_path: str, fingerprint: Fingerprint, now_s: float) -> bool:
        """Return whether the file, which has this fingerprint now, may be taken."""
        file_candidate = self._files[relative_path]
        return file_candidate.closed or (
            file_candidate.fingerprint == fingerprint and now_s >= file_candidate.since_s + self.settle_s
        )

    def wait_longer(self, relative_path: str, fingerprint: Fingerprint, now_s: float) -> None:
        """Look at the file again when it may have settled: it is still changing, or still open."""
        known_candidate = self._files[relative_path]
        since_s = known_candidate.since_s if known_candidate.fingerprint == fingerprint else now_s
        # At least 50 ms ahead: a file that is open all the time must not be checked in a loop.
        due_s = max(since_s + self.settle_s, now_s + min(0.05, self.settle_s))
        self._schedule_path(relative_path, _Candidate(due_s, since_s, fingerprint, closed=False))

    def forget_path(self, relative_path: str) -> None:
        """Forget the file, which was taken or is gone."""
        self._files.pop(relative_path, None)

    def waiting_paths(self) -> list[str]:
        """Return every file that waits."""
        return list(self._files)

    def hurry_all(self, now_s: float) -> None:
        """Look at every file now, because there is no time left to let it settle."""
        for relative_path, file_candidate in list(self._files.items()):
            self._schedule_path(
                relative_path,
                _Candidate(now_s, file_candidate.since_s, file_candidate.fingerprint, file_candidate.closed),
            )

    def next_due_s(self) -> float | None:
        """Return when to look next, or None while nothing waits."""
        return self._heap[0][0] if self._heap else None

    def __len__(self) -> int:
        return len(self._files)

    def _schedule_path(self, relative_path: str, file_candidate: _Candidate) -> None:
        self._files[relative_path] = file_candidate
        heapq.heappush(self._heap, (file_candidate.due_s, relative_path))

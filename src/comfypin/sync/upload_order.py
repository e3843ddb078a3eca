"""Decides which upload is next: small files never wait behind large ones, failed ones wait for their time. Pure."""

import heapq
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

# About five seconds at 100 Mbit/s: a longer wait would be noticed.
LARGE_BYTES = 64 << 20


@dataclass(slots=True)
class UploadQueue:
    """Queues the paths that are owed. Large files use at most half of the workers, small ones all of them."""

    worker_count: int
    _small: list[tuple[float, int, str]] = field(default_factory=list)
    _large: list[tuple[float, int, str]] = field(default_factory=list)
    _busy: dict[str, bool] = field(default_factory=dict)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)

    def add_upload(self, path: str, size: int, *, due_s: float) -> None:
        """Add an upload that may start at `due_s` (monotonic seconds)."""
        lane = self._large if size >= LARGE_BYTES else self._small
        # The counter keeps the order of rows that are due at the same time.
        heapq.heappush(lane, (due_s, next(self._order), path))

    def take_next(self, now_s: float) -> str | None:
        """Return the next path to upload, or None while no worker is free or nothing is due."""
        if len(self._busy) >= self.worker_count:
            return None
        large_busy = sum(self._busy.values())
        lanes = [(self._small, False)]
        if large_busy < max(1, self.worker_count // 2):
            lanes.append((self._large, True))
        for lane, is_large in lanes:
            if lane and lane[0][0] <= now_s:
                path = heapq.heappop(lane)[2]
                self._busy[path] = is_large
                return path
        return None

    def release_path(self, path: str) -> None:
        """Free the worker of an upload that ended, however it ended."""
        del self._busy[path]

    def is_busy(self, path: str) -> bool:
        """Return whether the path is being uploaded now."""
        return path in self._busy

    def reorder_uploads(self, paths: Iterable[str], *, due_s: float) -> "UploadQueue":
        """Return a queue with the same running uploads, and these paths in this order, whatever their size."""
        lanes = UploadQueue(self.worker_count, _busy=self._busy)
        for path in paths:
            if path not in self._busy:
                lanes.add_upload(path, 0, due_s=due_s)
        return lanes

    @property
    def running_count(self) -> int:
        """Return how many uploads run."""
        return len(self._busy)

    def next_due_s(self) -> float | None:
        """Return when the next waiting upload may start (monotonic seconds), or None."""
        return min((lane[0][0] for lane in (self._small, self._large) if lane), default=None)

    def __len__(self) -> int:
        return len(self._small) + len(self._large)

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

    def add_upload(self, relative_path: str, size_bytes: int, *, due_s: float) -> None:
        """Add an upload that may start at `due_s` (monotonic seconds)."""
        upload_lane = self._large if size_bytes >= LARGE_BYTES else self._small
        # The counter keeps the order of rows that are due at the same time.
        heapq.heappush(upload_lane, (due_s, next(self._order), relative_path))

    def take_next(self, now_s: float) -> str | None:
        """Return the next path to upload, or None while no worker is free or nothing is due."""
        if len(self._busy) >= self.worker_count:
            return None
        large_busy = sum(self._busy.values())
        open_lanes = [(self._small, False)]
        if large_busy < max(1, self.worker_count // 2):
            open_lanes.append((self._large, True))
        for upload_lane, is_large in open_lanes:
            if upload_lane and upload_lane[0][0] <= now_s:
                relative_path = heapq.heappop(upload_lane)[2]
                self._busy[relative_path] = is_large
                return relative_path
        return None

    def release_path(self, relative_path: str) -> None:
        """Free the worker of an upload that ended, however it ended."""
        del self._busy[relative_path]

    def is_busy(self, relative_path: str) -> bool:
        """Return whether the path is being uploaded now."""
        return relative_path in self._busy

    def reorder_uploads(self, ordered_paths: Iterable[str], *, due_s: float) -> "UploadQueue":
        """Return a queue with the same running uploads, and these paths in this order, whatever their size."""
        reordered_queue = UploadQueue(self.worker_count, _busy=self._busy)
        for relative_path in ordered_paths:
            if relative_path not in self._busy:
                reordered_queue.add_upload(relative_path, 0, due_s=due_s)
        return reordered_queue

    @property
    def running_count(self) -> int:
        """Return how many uploads run."""
        return len(self._busy)

    def next_due_s(self) -> float | None:
        """Return when the next waiting upload may start (monotonic seconds), or None."""
        return min((upload_lane[0][0] for upload_lane in (self._small, self._large) if upload_lane), default=None)

    def __len__(self) -> int:
        return len(self._small) + len(self._large)

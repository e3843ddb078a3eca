"""Notices a body that has stalled: files of unknown size can have no deadline, only a minimum rate."""

import time
from collections.abc import Callable

# Below this a connection is worth less than the hope for a better one.
STALL_BYTES_PER_S = 2_000


class StallWatch:
    """Notices a connection that still sends bytes, but hardly any."""

    def __init__(self, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._clock = clock
        self._since = clock()
        self._count = 0

    def is_too_slow(self, count: int) -> bool:
        """Count what arrived; return True when a whole window went by below the least rate."""
        self._count += count
        if self._clock() - self._since < self._window_s:
            return False
        if self.bytes_per_s() < STALL_BYTES_PER_S:
            return True
        self._since, self._count = self._clock(), 0
        return False

    def bytes_per_s(self) -> float:
        """Return the rate in the current window."""
        # The window may have begun this very moment.
        return self._count / max(1e-9, self._clock() - self._since)

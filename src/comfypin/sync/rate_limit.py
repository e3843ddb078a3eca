"""Limits the bytes sent each second by all uploads together: a bucket that time fills and bytes empty."""

import threading
import time
from collections.abc import Callable


class RateLimiter:
    """Lets `bytes_per_s` through, with up to a tenth of a second's worth at once."""

    def __init__(
        self,
        bytes_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def __call__(self, byte_count: int) -> None:
        """Account for `byte_count` bytes, sleeping until they fit."""
        with self._lock:
            now_s = self._clock()
            # Unused time counts for a tenth of a second only, so an idle hour gives no burst.
            start_s = max(self._free_at, now_s - 0.1)
            self._free_at = start_s + byte_count / self._rate
            wait_s = self._free_at - now_s
        if wait_s > 0:
            # Outside the lock: other threads may book their time meanwhile.
            self._sleep(wait_s)

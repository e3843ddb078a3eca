"""The time of day as it was when the process began, and what has gone by since: for times that are compared.

A wall clock that is set (by NTP at boot, by hand, by a host that resumes) would have jobs wait a day, or no time.
"""

import time
from collections.abc import Callable

Clock = Callable[[], float]


def steady_clock(*, wall: Clock = time.time, elapsed: Clock | None = None) -> Clock:
    """Return a clock in seconds since 1970 that never jumps; `elapsed` counts seconds, also those of a suspension."""
    since = elapsed or (lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
    offset_s = wall() - since()
    return lambda: offset_s + since()

"""Trying again: exponential back-off with full jitter, for failures that may pass, and only for those.

Full jitter, because many workers that failed together must not come back together:
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from comfypin.errors.storage import Transient

log = logging.getLogger(__name__)
T = TypeVar("T")

LONGEST_SLEEP_S = 60.0


def ceiling_s(attempt: int, *, base_s: float) -> float:
    """The longest sleep after failed attempt number `attempt` (from 0), in seconds."""
    return min(LONGEST_SLEEP_S, base_s * 2.0 ** min(attempt, 30))


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often, and after what sleeps, an operation is tried again. The clock and the dice can be brought."""

    retries: int = 3
    base_sleep_s: float = 0.5
    sleep: Callable[[float], None] = time.sleep
    dice: Callable[[], float] = field(default=random.random)

    def call(self, operation: Callable[[], T], *, what: str, progress: Callable[[], int] = lambda: 0) -> T:
        """Do it, at most `retries` times more than once. The last failure goes up as it is.

        Where `progress` has grown since the failure before, the counting begins anew: a long upload over a bad line
        is not a hopeless one.
        """
        attempt, reached = 0, progress()
        while True:
            try:
                return operation()
            except Transient as exc:
                if (now := progress()) > reached:
                    attempt, reached = 0, now
                if attempt >= self.retries:
                    raise
                pause_s = self.pause_s(attempt)
                log.warning(
                    "storage retried",
                    extra={"action": "storage_retried", "what": what, "reason": exc.message, "sleep_s": pause_s},
                )
            self.sleep(pause_s)
            attempt += 1

    def pause_s(self, attempt: int) -> float:
        """The sleep after failed attempt number `attempt` (from 0): anything up to the ceiling, evenly."""
        return self.dice() * ceiling_s(attempt, base_s=self.base_sleep_s)

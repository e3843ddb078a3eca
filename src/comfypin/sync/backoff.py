"""When to try again: capped exponential back-off with full jitter. Pure."""

import random
from collections.abc import Callable

FIRST_S = 0.2
LONGEST_S = 60.0


def wait_s(
    failures: int, *, longest_s: float = LONGEST_S, draw: Callable[[float, float], float] = random.uniform
) -> float:
    """Seconds to wait after so many failures in a row (1 or more), spread so that nobody herds.

    Source: "Exponential Backoff And Jitter", full jitter; the lower half is kept free so that a wait is never nothing.
    """
    ceiling = min(longest_s, FIRST_S * 2 ** min(failures, 20))
    return draw(ceiling / 2, ceiling)

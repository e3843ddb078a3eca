"""Trying a store's requests again: the one retry policy, for failures of stores that may pass, said in the log."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from comfypin import retry
from comfypin.storage.errors import Transient

log = logging.getLogger(__name__)
T = TypeVar("T")

LONGEST_SLEEP_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often, and after what sleeps, an operation is tried again. Sleep and chance can be replaced."""

    retries: int = 3
    base_sleep_s: float = 0.5
    sleep: Callable[[float], None] = time.sleep
    dice: Callable[[], float] = field(default=random.random)

    @property
    def policy(self) -> retry.RetryPolicy:
        """The policy."""
        return retry.RetryPolicy(retries=self.retries, base_s=self.base_sleep_s, longest_s=LONGEST_SLEEP_S)

    def call(self, operation: Callable[[], T], *, what: str, progress: Callable[[], int] = lambda: 0) -> T:
        """Return what the operation returns, tried again as the policy says. The last failure goes up as it is.

        A failure after `progress` has grown is the first of a new row: a long upload over a bad line is not a
        hopeless one.
        """

        def report(retried: retry.Retried) -> None:
            reason = getattr(retried.error, "message", str(retried.error))
            log.warning(
                "storage retried",
                extra={"action": "storage_retried", "what": what, "reason": reason, "sleep_s": retried.delay_s},
            )

        again = retry.Retry(policy=self.policy, on=Transient, report=report, progress=progress, draw=self.dice)
        return again.call(operation, sleep=self.sleep)

"""Trying a store's requests again: the one retry policy, for failures of stores that may pass, said in the log."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from comfypin import retry
from comfypin.storage.errors import TransientStorageError

log = logging.getLogger(__name__)
T = TypeVar("T")

LONGEST_SLEEP_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRetry:
    """How often, and after what sleeps, an operation is tried again. Sleep and chance can be replaced."""

    retries: int = 3
    base_sleep_s: float = 0.5
    sleep: Callable[[float], None] = time.sleep
    dice: Callable[[], float] = field(default=random.random)

    @property
    def retry_policy(self) -> retry.RetryPolicy:
        """The policy."""
        return retry.RetryPolicy(retries=self.retries, base_s=self.base_sleep_s, longest_s=LONGEST_SLEEP_S)

    def call(self, operation: Callable[[], T], *, target: str, progress: Callable[[], int] = lambda: 0) -> T:
        """Return what the operation returns, tried again as the policy says. The last failure goes up as it is.

        A failure after `progress` has grown is the first of a new row: a long upload over a bad line is not a
        hopeless one.
        """

        def report_retry(retried: retry.Retried) -> None:
            reason = getattr(retried.error, "message", str(retried.error))
            log.warning(
                "storage retried",
                extra={"action": "storage_retried", "what": target, "reason": reason, "sleep_s": retried.delay_s},
            )

        core_retry = retry.Retry(
            policy=self.retry_policy, on=TransientStorageError, report=report_retry, progress=progress, draw=self.dice
        )
        return core_retry.call(operation, sleep=self.sleep)

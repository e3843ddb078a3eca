"""Retries a store's requests: one retry policy, for transient failures of stores, with a log line for each retry."""

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

# A service that wants more than a minute between tries is down.
LONGEST_SLEEP_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRetry:
    """Retries an operation, so often and after such sleeps. Tests replace the sleep and the dice."""

    retries: int = 3
    base_sleep_s: float = 0.5
    sleep: Callable[[float], None] = time.sleep
    dice: Callable[[], float] = field(default=random.random)

    @property
    def retry_policy(self) -> retry.RetryPolicy:
        """Return the policy."""
        return retry.RetryPolicy(retries=self.retries, base_s=self.base_sleep_s, longest_s=LONGEST_SLEEP_S)

    def call(self, operation: Callable[[], T], *, target: str, progress: Callable[[], int] = lambda: 0) -> T:
        """Return what the operation returns, retried as the policy says. Raises its last failure.

        If `progress` has grown since the last failure, the count starts again: a long upload over a bad line is not
        hopeless.
        """

        # A retry costs time, so the log says why there was one.
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

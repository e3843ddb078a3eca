"""Defines the one retry policy: how often something is tried again, and how long after each failure.

A policy is a value; `retry` and `retry_async` run an operation under it. Code that cannot hand over its operation (a
connection that is kept for days, a queue of files) counts its failures with `Failures`, which gives the same delays.

The delays are "full jitter": anything between nothing and a ceiling that doubles with each failure, drawn evenly.
Clients that failed together then come back spread over the whole interval, not bunched at its end:
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

import math
import random
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_MOST_DOUBLINGS = 30  # 2.0**1024 is an OverflowError, and a client may be offline for longer than that
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often to try again after a failure, and the bounds of the delays between, in seconds.

    `retries` counts the tries after the first one; None means for ever. If a server asks for a delay (Retry-After), we
    wait that long, up to `longest_asked_s`; for a longer delay we give up, since an earlier retry would be refused.
    """

    retries: int | None = 3
    base_s: float = 0.5
    longest_s: float = 60.0
    longest_asked_s: float = 600.0

    def is_exhausted(self, failures: int) -> bool:
        """Return whether so many failures in a row use up all retries."""
        return self.retries is not None and failures > self.retries

    def ceiling_s(self, failures: int) -> float:
        """Return the longest delay after so many failures in a row (1 or more), if the server asks for none."""
        return min(self.longest_s, self.base_s * 2.0 ** min(max(0, failures - 1), _MOST_DOUBLINGS))

    def delay_s(
        self, failures: int, *, asked_s: float | None = None, draw: Callable[[], float] = random.random
    ) -> float | None:
        """Return how long to wait after so many failures in a row (1 or more); None to give up.

        The delay that a server asks for is waited in full, plus jitter: all its clients were told the same number.
        `draw` gives a number between 0 and 1.
        """
        if self.is_exhausted(failures):
            return None
        jitter_s = draw() * self.ceiling_s(failures)
        if asked_s is None or asked_s <= 0:
            return jitter_s
        return asked_s + jitter_s if asked_s <= self.longest_asked_s else None


NO_RETRIES = RetryPolicy(retries=0)


class Failures:
    """Counts one operation's failures in a row. Progress starts the count again."""

    def __init__(self, policy: RetryPolicy, *, draw: Callable[[], float] = random.random) -> None:
        self._policy = policy
        self._draw = draw
        self.in_a_row = 0

    def count_failure(self, *, asked_s: float | None = None) -> float | None:
        """Count a failure; return how long to wait before the next try, None to give up."""
        self.in_a_row += 1
        return self._policy.delay_s(self.in_a_row, asked_s=asked_s, draw=self._draw)

    def begin_new_row(self) -> None:
        """Begin a new row: something succeeded, or got further than before."""
        self.in_a_row = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """A failure that is tried again after `delay_s`, as `Retry.report` gets it."""

    error: Exception
    failures: int
    delay_s: float


def asked_delay_s(error: Exception) -> float | None:
    """Return what the server asked for, as errors carry it: in an attribute `retry_after_s`."""
    asked_s = getattr(error, "retry_after_s", None)
    return float(asked_s) if isinstance(asked_s, int | float) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A policy and what it is applied to; sleep and randomness can be replaced.

    `on` are the exceptions that may be temporary, `when` says which of them are; others are raised at once. `report` is
    called for each retry. `progress` says how far the operation has come, in any unit: a failure after progress is the
    first of a new row, because a long upload over a bad line is not a hopeless one.
    """

    policy: RetryPolicy
    on: type[Exception] | tuple[type[Exception], ...]
    when: Callable[[Exception], bool] = lambda error: True
    report: Callable[[Retried], None] = lambda retried: None
    progress: Callable[[], float] = lambda: 0
    draw: Callable[[], float] = random.random

    def _delay_s(self, error: Exception, failures: Failures, reached: float) -> float | None:
        if not self.when(error):
            return None
        # An upload that got further is not the same failure again.
        if self.progress() > reached:
            failures.begin_new_row()
        delay_s = failures.count_failure(asked_s=asked_delay_s(error))
        if delay_s is not None:
            self.report(Retried(error=error, failures=failures.in_a_row, delay_s=delay_s))
        return delay_s

    def call(self, operation: Callable[[], T], *, sleep: Callable[[float], object] = time.sleep) -> T:
        """Return the operation's result, trying again as the policy says. The last failure is raised as it is."""
        failures, progress_before = Failures(self.policy, draw=self.draw), self.progress()
        while True:
            try:
                return operation()
            except self.on as error:
                delay_s = self._delay_s(error, failures, progress_before)
                if delay_s is None:
                    raise
                progress_before = self.progress()
            # Outside the except block, or the failure and all it refers to would stay alive meanwhile.
            sleep(delay_s)

    async def call_async(
        self,
        operation: Callable[[], Awaitable[T]],
        *,
        sleep: Callable[[float], Awaitable[object]] | None = None,
    ) -> T:
        """Do the same as `call` for coroutines."""
        if sleep is None:
            import asyncio  # slow to import, and whoever awaits this has it already

            sleep = asyncio.sleep
        failures, progress_before = Failures(self.policy, draw=self.draw), self.progress()
        while True:
            try:
                return await operation()
            except self.on as error:
                delay_s = self._delay_s(error, failures, progress_before)
                if delay_s is None:
                    raise
                progress_before = self.progress()
            await sleep(delay_s)


def parse_retry_after(header_text: str | None, *, now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds that a Retry-After header asks for; None if it says nothing that can be understood.

    RFC 9110, 10.2.3: whole seconds or a date. Fractions are common and taken; of several values the longest counts.
    """
    header_text = (header_text or "").strip()
    if not header_text:
        return None
    delay_texts = [part.strip() for part in header_text.split(",")]
    if all(_SECONDS.fullmatch(number) for number in delay_texts):
        return max(float(number) for number in delay_texts)  # thousands of digits give infinity, which nobody waits for
    import email.utils  # hardly any server sends a date, and the e-mail parser is slow to import

    try:
        moment = email.utils.parsedate_to_datetime(header_text)
        seconds = moment.timestamp() if moment.tzinfo else _utc_timestamp(header_text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    delay_s = seconds - now()
    return max(0.0, delay_s) if math.isfinite(delay_s) else None


def _utc_timestamp(header_text: str) -> float:
    # HTTP's dates are in GMT, whatever the machine's own zone is; Python parses "-0000" and no zone as naive.
    import email.utils

    parsed_date = email.utils.parsedate_tz(header_text)
    if parsed_date is None:
        raise ValueError(header_text)
    return float(email.utils.mktime_tz((*parsed_date[:9], 0)))

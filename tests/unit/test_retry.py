"""The one retry policy: how often, how long after, and what a server may ask for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfypin.retry import NO_RETRIES, Failures, Retried, Retry, RetryPolicy, parse_retry_after

_NOW_S = 1_800_000_000.0  # 2027-01-15 08:00:00 GMT


class Busy(Exception):
    """May pass by itself."""

    def __init__(self, retry_after_s: float | None = None) -> None:
        super().__init__("busy")
        self.retry_after_s = retry_after_s


class Flaky:
    """Fails so many times, then works."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.left, self.calls, self.error = failures, 0, error or Busy()

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "done"


@pytest.mark.parametrize(("failures", "retries"), [(0, 0), (3, 3), (2, 5), (200, None)])
def test_it_is_tried_until_it_works(failures: int, retries: int | None) -> None:
    flaky = Flaky(failures)
    assert Retry(policy=RetryPolicy(retries=retries), on=Busy).call(flaky, sleep=lambda _s: None) == "done"
    assert flaky.calls == failures + 1


@pytest.mark.parametrize("retries", [0, 3])
def test_the_last_failure_goes_up_as_it_is(retries: int) -> None:
    flaky = Flaky(9)
    with pytest.raises(Busy):
        Retry(policy=RetryPolicy(retries=retries), on=Busy).call(flaky, sleep=lambda _s: None)
    assert flaky.calls == retries + 1


def test_what_cannot_pass_is_not_tried_again() -> None:
    flaky = Flaky(9, KeyError("x"))
    with pytest.raises(KeyError):
        Retry(policy=RetryPolicy(), on=Busy).call(flaky)
    assert flaky.calls == 1


async def test_coroutines_are_tried_again_by_the_same_rules() -> None:
    flaky, slept, heard = Flaky(2, Busy(7.0)), [], []

    async def operation() -> str:
        return flaky()

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)

    retry = Retry(policy=RetryPolicy(retries=2, base_s=1.0), on=Busy, report=heard.append, draw=lambda: 0.5)
    assert await retry.call_async(operation, sleep=sleep) == "done"
    assert slept == [7.5, 8.0]
    assert heard == [Retried(error=flaky.error, failures=number, delay_s=slept[number - 1]) for number in (1, 2)]


def test_progress_begins_a_new_row() -> None:
    received = 0

    def send() -> str:
        nonlocal received
        received += 1
        if received < 50:
            raise Busy
        return "done"

    retry = Retry(policy=RetryPolicy(retries=2), on=Busy, progress=lambda: received)
    assert retry.call(send, sleep=lambda _s: None) == "done"


@given(failures=st.integers(1, 5000), base_s=st.floats(0, 100), chance=st.floats(0, 1))
def test_a_delay_is_anything_up_to_a_ceiling_that_doubles(failures: int, base_s: float, chance: float) -> None:
    policy = RetryPolicy(retries=None, base_s=base_s)
    delay_s = policy.delay_s(failures, draw=lambda: chance)
    assert delay_s is not None
    assert 0 <= delay_s <= policy.ceiling_s(failures) <= policy.longest_s
    if failures < 30:
        assert policy.ceiling_s(failures) == min(policy.longest_s, base_s * 2 ** (failures - 1))


def test_the_whole_interval_is_used() -> None:
    policy = RetryPolicy(base_s=8.0)
    assert [policy.delay_s(1, draw=lambda chance=chance: chance) for chance in (0.0, 0.25, 1.0)] == [0.0, 2.0, 8.0]


@pytest.mark.parametrize(
    ("asked_s", "delay_s"),
    [(None, 0.5), (0.0, 0.5), (-3.0, 0.5), (10.0, 10.5), (600.0, 600.5), (601.0, None), (math.inf, None)],
)
def test_a_server_is_given_the_delay_that_it_asks_for_within_bounds(
    asked_s: float | None, delay_s: float | None
) -> None:
    assert RetryPolicy(base_s=1.0).delay_s(1, asked_s=asked_s, draw=lambda: 0.5) == delay_s


def test_failures_without_retries_are_given_up_at_once() -> None:
    assert Failures(NO_RETRIES).count_failure() is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None), ("", None), ("soon", None), ("3", 3.0), (" 4 ", 4.0), ("1.5", 1.5), ("0", 0.0),
        ("-1", None), ("+3", None), ("1e3", None), ("0x10", None), ("inf", None), ("nan", None), ("٣", None),
        ("3, 7", 7.0), ("9" * 400, math.inf),
        ("Fri, 15 Jan 2027 08:02:00 GMT", 120.0), ("Fri, 15 Jan 2027 08:02:00", 120.0),
        ("Fri, 15 Jan 2027 08:02:00 -0000", 120.0), ("Fri, 15 Jan 2027 10:02:00 +0200", 120.0),
        ("Friday, 15-Jan-27 08:02:00 GMT", 120.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None), ("Fri, 31 Feb 2099 00:00:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_or_nothing(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, now=lambda: _NOW_S) == seconds

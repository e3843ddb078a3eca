"""Trying again: how often, how long after, and what for."""

import pytest

from comfypin.storage.errors import ClockSkewed, StoreBusy
from comfypin.storage.retry import StoreRetry


def busy() -> StoreBusy:
    return StoreBusy(store="s3://b", status=503)


class Flaky:
    """Fails so many times, then works."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.left, self.calls, self.error = failures, 0, error or busy()

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "done"


@pytest.mark.parametrize(("failures", "retries"), [(0, 0), (3, 3), (2, 5)])
def test_it_is_tried_until_it_works(failures: int, retries: int) -> None:
    flaky = Flaky(failures)
    assert StoreRetry(retries=retries, sleep=lambda _: None).call(flaky, target="x") == "done"
    assert flaky.calls == failures + 1


def test_after_the_last_retry_the_failure_goes_up() -> None:
    flaky = Flaky(9)
    with pytest.raises(StoreBusy):
        StoreRetry(retries=3, sleep=lambda _: None).call(flaky, target="x")
    assert flaky.calls == 4


def test_what_cannot_pass_is_not_tried_again() -> None:
    flaky = Flaky(9, ClockSkewed(store="s3://b"))
    with pytest.raises(ClockSkewed):
        StoreRetry(retries=3).call(flaky, target="x")
    assert flaky.calls == 1


def test_progress_begins_the_counting_anew() -> None:
    received = 0

    def send() -> str:
        nonlocal received
        received += 1
        if received < 50:
            raise busy()
        return "done"

    assert StoreRetry(retries=2, sleep=lambda _: None).call(send, target="x", progress=lambda: received) == "done"

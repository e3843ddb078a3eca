"""When a file's hasher wants more connections."""

import pytest

from comfypin.models.pull_limits import ConnectionDemand


def felt(*, waiting: float, busy: float, processors: int = 2, step_s: float = 0.01, steps: int = 100) -> bool:
    """Whether hunger is ever felt by a hasher that waits so much of each step, on processors that busy."""
    now = 0.0
    hunger = ConnectionDemand(clock=lambda: now, processor_s=lambda: now * busy * processors, processors=processors)
    answers = []
    for _ in range(steps):
        answers.append(hunger.wants_more(step_s * waiting))
        now += step_s
    return any(answers)


@pytest.mark.parametrize("step_s", [0.002, 0.04, 0.3])
def test_short_waits_that_add_up_are_hunger_as_long_ones_are(step_s: float) -> None:
    assert felt(waiting=0.95, busy=0.1, step_s=step_s)


def test_a_hasher_that_mostly_hashes_is_not_hungry() -> None:
    assert not felt(waiting=0.4, busy=0.3)


def test_full_processors_are_not_helped_by_more_connections() -> None:
    assert not felt(waiting=0.95, busy=0.8)

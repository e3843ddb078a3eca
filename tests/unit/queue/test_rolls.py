"""Which release has the place of another, after any number of rolls forward and back."""

import pytest

from comfypin.queue.nats.rolls import NO_ROLLS, Roll, Rolls


def roll(old: str, new: str, *, held: bool = True) -> Roll:
    return Roll(old=old, old_name=f"name of {old}", new=new, new_name=f"name of {new}", at=1.0, is_held=held)


def rolled(*steps: tuple[str, str]) -> Rolls:
    rolls = NO_ROLLS
    for old, new in steps:
        rolls = rolls.with_roll(roll(old, new))
    return rolls


def test_nothing_was_rolled() -> None:
    assert NO_ROLLS.successor("a") == "a"
    assert NO_ROLLS.without_last(at=2.0) is None


def test_a_roll_holds_once_its_release_is_warm() -> None:
    rolls = NO_ROLLS.with_roll(roll("a", "b", held=False))
    assert rolls.successor("a") == "a"
    assert rolls.wanted("a") == "b"
    assert rolls.held("a").successor("a") == "b"


def test_rolls_follow_each_other() -> None:
    rolls = rolled(("a", "b"), ("b", "c"))
    assert [rolls.successor(release) for release in "abcd"] == ["c", "c", "c", "d"]
    assert rolls.names() == {release: f"name of {release}" for release in "abc"}


def test_a_roll_is_taken_back_at_once_for_both_releases() -> None:
    back = rolled(("a", "b")).without_last(at=2.0)
    assert back is not None
    assert [back.successor(release) for release in "ab"] == ["a", "a"]
    assert back.without_last(at=3.0) is None


def test_two_rolls_are_taken_back_one_after_the_other() -> None:
    once = rolled(("a", "b"), ("b", "c")).without_last(at=2.0)
    assert once is not None
    assert {once.successor(release) for release in "abc"} == {"b"}
    twice = once.without_last(at=3.0)
    assert twice is not None
    assert {twice.successor(release) for release in "abc"} == {"a"}


@pytest.mark.parametrize("steps", [(("a", "b"), ("b", "a")), (("a", "b"), ("b", "c"), ("c", "a"))])
def test_rolls_never_go_round_in_circles(steps: tuple[tuple[str, str], ...]) -> None:
    assert {rolled(*steps).successor(release) for release in "ab"} == {"a"}

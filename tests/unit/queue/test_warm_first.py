"""Which release a worker serves next."""

from comfypin.queue.nats.warm_first import Backlog, choose_release

SWAP_S = 10.0


def backlog(release: str, oldest_wait_s: float, waiting: int = 1) -> Backlog:
    return Backlog(release=release, waiting=waiting, oldest_wait_s=oldest_wait_s)


def test_the_warm_release_is_served_while_others_wait_less_than_a_swap() -> None:
    assert choose_release(backlog("warm", 0, 0), [backlog("other", 9.9)], swap_s=SWAP_S) == "warm"


def test_a_release_that_waits_longer_than_a_swap_is_helped() -> None:
    assert choose_release(backlog("warm", 0, 0), [backlog("other", 10.1)], swap_s=SWAP_S) == "other"


def test_the_one_that_waits_longest_is_helped() -> None:
    others = [backlog("long", 20), backlog("longest", 30), backlog("longer", 25)]
    assert choose_release(backlog("warm", 0, 0), others, swap_s=SWAP_S) == "longest"


def test_work_of_its_own_that_waits_as_long_keeps_a_worker_where_it_is() -> None:
    assert choose_release(backlog("warm", 25), [backlog("other", 30)], swap_s=SWAP_S) == "warm"


def test_endless_work_of_its_own_starves_nobody() -> None:
    assert choose_release(backlog("warm", 5), [backlog("other", 30)], swap_s=SWAP_S) == "other"


def test_a_release_for_which_nothing_waits_is_not_helped() -> None:
    assert choose_release(backlog("warm", 0, 0), [backlog("other", 99, waiting=0)], swap_s=SWAP_S) == "warm"


def test_who_has_no_other_release_stays() -> None:
    assert choose_release(backlog("warm", 0, 0), [], swap_s=0.0) == "warm"

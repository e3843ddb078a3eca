"""How many threads share uploads: few that work, many that wait."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from comfypin.errors import Cancelled
from comfypin.storage.thread_pool import ThreadsByNeed, more_to_start


def threads_used(piece: Callable[[], object], *, pieces: int, most: int) -> int:
    left, taking, used = [piece] * pieces, threading.Lock(), set()
    with ThreadPoolExecutor(most) as pool:
        threads = ThreadsByNeed(pool)

        def work() -> None:
            while True:
                threads.require_going()
                with taking:
                    if not left:
                        return
                    left.pop()
                used.add(threading.get_ident())
                piece()

        threads.share(work, most=most)
    assert not left
    return len(used)


def test_threads_that_wait_are_joined_by_others() -> None:
    assert threads_used(lambda: time.sleep(0.05), pieces=40, most=8) == 8


@pytest.mark.parametrize(
    ("started", "busy", "more"), [(2, 0.1, 2), (4, 0.59, 4), (6, 0.0, 2), (8, 0.0, 0), (2, 0.6, 0), (2, 1.3, 0)]
)
def test_threads_that_work_are_left_alone(started: int, busy: float, more: int) -> None:
    assert more_to_start(started, most=8, busy=busy) == more


def test_one_thread_is_enough_for_one_thing() -> None:
    assert threads_used(lambda: time.sleep(0.05), pieces=1, most=1) == 1


def test_after_a_failure_the_others_end_and_it_goes_up() -> None:
    ended = []
    with ThreadPoolExecutor(4) as pool:
        threads = ThreadsByNeed(pool)
        first, both = iter([True]), threading.Barrier(2)

        def work() -> None:
            both.wait(10)
            if next(first, False):
                raise ValueError("broken")
            try:
                while True:
                    threads.require_going()
                    time.sleep(0.001)
            except Cancelled:
                ended.append(threading.get_ident())
                raise

        with pytest.raises(ValueError, match="broken"):
            threads.share(work, most=4)
    assert ended

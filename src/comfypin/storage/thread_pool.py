"""Threads that share uploads: a few at first, more while they mostly wait for the network.

Threads of Python that have work hinder each other: ten of them send small files to a server nearby no faster than four
do, for a third more CPU. A server far away keeps four waiting.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, wait

from comfypin.errors import Cancelled

_AT_FIRST = 4
_LOOK_EVERY_S = 0.02
_BUSY = 0.6  # of one core: all that Python's threads have among them, less what changing costs


class ThreadsByNeed:
    """Threads of a shared pool that do one piece of work together."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._is_stopped = False
        self._began_s: dict[int, float] = {}
        self._worked_s: dict[int, float] = {}

    def share(self, work: Callable[[], None], *, most: int) -> None:
        """Have threads, at most so many, do the work together: each call ends when nothing is left to begin.

        Waits for all of them. After the first failure the others end when they next ask whether to go on.
        """
        started = [self._start(work) for _ in range(min(_AT_FIRST, most))]
        try:
            while True:
                began_s, worked_s = time.monotonic(), self._sum_s()
                pause_s = _LOOK_EVERY_S if len(started) < most else None
                done, pending = wait(started, timeout=pause_s, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                if not pending:
                    return
                if not done:
                    busy = (self._sum_s() - worked_s) / (time.monotonic() - began_s)
                    started += [self._start(work) for _ in range(more_to_start(len(started), most=most, busy=busy))]
        except BaseException:
            self.stop()
            for future in started:
                future.cancel()
            wait(started)
            raise

    def stop(self) -> None:
        """Have all threads end when they next ask whether to go on."""
        self._is_stopped = True

    def require_going(self) -> None:
        """Asked by the threads, within their work. Raises `Cancelled` if it was stopped."""
        if self._is_stopped:
            raise Cancelled("The upload was given up.")
        thread = threading.get_ident()
        self._worked_s[thread] = time.thread_time() - self._began_s.get(thread, 0.0)

    def _sum_s(self) -> float:
        return sum(list(self._worked_s.values()))

    def _start(self, work: Callable[[], None]) -> "Future[None]":
        def begin() -> None:
            # A thread of the pool has worked for others before.
            self._began_s[threading.get_ident()] = time.thread_time()
            work()

        return self._pool.submit(begin)


def more_to_start(started: int, *, most: int, busy: float) -> int:
    """How many threads join those that use `busy` of a core together: as many again, while they mostly wait."""
    return min(started, most - started) if busy < _BUSY else 0

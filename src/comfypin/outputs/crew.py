"""Threads that share uploads: two at first, more while they mostly wait for the network.

Threads of Python that have work hinder each other: eight of them send small files to a server nearby no faster than two
do, for one and a half times the CPU. A server far away keeps two waiting.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor

from comfypin.errors import Cancelled

_AT_FIRST = 2
_LOOK_EVERY_S = 0.02
_BUSY = 0.6  # of one core: all that Python's threads have among them, less what changing costs


class Crew:
    """The threads of one delivery."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._given_up = False
        self._began_s: dict[int, float] = {}
        self._worked_s: dict[int, float] = {}

    async def share(self, work: Callable[[], None], *, most: int) -> None:
        """Have threads, at most so many, do the work together: each call ends when nothing is left to begin.

        After the first failure, and where this is cancelled, the others end when they next say that they work.
        """
        tasks = [self._hire(work) for _ in range(min(_AT_FIRST, most))]
        try:
            while True:
                began_s, worked_s = time.monotonic(), self._sum_s()
                pause_s = _LOOK_EVERY_S if len(tasks) < most else None
                done, pending = await asyncio.wait(tasks, timeout=pause_s, return_when=asyncio.FIRST_EXCEPTION)
                for task in done:
                    task.result()
                if not pending:
                    return
                if not done and self._sum_s() - worked_s < _BUSY * (time.monotonic() - began_s):
                    tasks += [self._hire(work) for _ in range(min(len(tasks), most - len(tasks)))]
        except BaseException:
            self._given_up = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    def still_working(self) -> None:
        """Said by its threads and theirs, within their work. Raises `Cancelled` where the delivery was given up."""
        if self._given_up:
            raise Cancelled("The delivery was given up.")
        thread = threading.get_ident()
        self._worked_s[thread] = time.thread_time() - self._began_s.get(thread, 0.0)

    def _sum_s(self) -> float:
        return sum(list(self._worked_s.values()))

    def _hire(self, work: Callable[[], None]) -> "asyncio.Future[None]":
        def begin() -> None:
            # A thread of the pool has worked for others before.
            self._began_s[threading.get_ident()] = time.thread_time()
            work()

        return asyncio.get_running_loop().run_in_executor(self._pool, begin)

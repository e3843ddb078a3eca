"""The loop of the engine and its jobs, in a thread of its own."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType

import pytest

from comfypin.runpod.loop_thread import LoopThread


class Interrupted(Exception):
    """What a signal raises in the main thread."""


def test_a_wait_that_a_signal_ends_lets_the_coroutine_clean_up() -> None:
    cleaned_up = threading.Event()
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    async def work() -> None:
        try:
            await asyncio.sleep(0.1)  # until the main thread waits
            # A real signal: it ends the wait for a lock at once, which a flag in the interpreter does not.
            signal.pthread_kill(main_thread, signal.SIGUSR1)
            await asyncio.sleep(60)
        finally:
            cleaned_up.set()

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with LoopThread() as thread, pytest.raises(Interrupted):
            thread.run_coroutine(work())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert cleaned_up.is_set()


def test_a_context_that_is_begun_is_left_at_the_end() -> None:
    happened: list[str] = []

    @asynccontextmanager
    async def opened() -> AsyncIterator[str]:
        happened.append("entered")
        yield "engine"
        happened.append("left")

    with LoopThread() as thread:
        assert thread.begin_context(opened()).result(10) == "engine"
    assert happened == ["entered", "left"]


def test_a_context_that_is_still_being_entered_is_broken_off() -> None:
    cleaned_up = threading.Event()

    @asynccontextmanager
    async def slow_to_open() -> AsyncIterator[None]:
        try:
            await asyncio.sleep(60)
            yield
        finally:
            cleaned_up.set()

    with LoopThread() as thread:
        thread.begin_context(slow_to_open())
    assert cleaned_up.is_set()


def test_a_context_that_cannot_be_entered_tells_whoever_waits() -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise ValueError
        yield

    with LoopThread() as thread, pytest.raises(ValueError):
        thread.begin_context(broken()).result(10)

"""The loop of the engine and its jobs, in a thread of its own."""

import _thread
import asyncio
import contextlib
import threading

from comfypin.runpod.loop_thread import LoopThread


def test_a_wait_that_a_signal_ends_lets_the_coroutine_clean_up() -> None:
    cleaned_up = threading.Event()

    async def work() -> None:
        try:
            threading.Timer(0.05, _thread.interrupt_main).start()
            await asyncio.sleep(60)
        finally:
            cleaned_up.set()

    with LoopThread() as thread, contextlib.suppress(KeyboardInterrupt):
        thread.run_coroutine(work())
    assert cleaned_up.is_set()

"""Runs an event loop in its own thread, for what must outlive other loops: the engine and its jobs."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, TypeVar

Result = TypeVar("Result")
# Half of what a platform waits before it kills.
_CLEAN_UP_WITHIN_S = 5.0


class LoopThread:
    """Runs an event loop in a thread; contexts entered on it are left, in reverse, when the block ends."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._entered: list[AbstractAsyncContextManager[Any]] = []
        self._entering: set[asyncio.Task[Any]] = set()
        # A daemon: a loop that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self.loop.run_forever, name="engine loop", daemon=True)

    def run_coroutine(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the loop and wait for its result; if the wait is broken off, so is the coroutine."""
        ended = threading.Event()

        async def guarded() -> Result:
            try:
                return await work
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(guarded(), self.loop)
        try:
            return future.result()
        except BaseException:
            # A signal of ours (`Stopped`) ends the wait alone. Left as it is, the coroutine would clean up when the
            # interpreter collects it, where no thread can be started and no folder is removed.
            if not future.done() and future.cancel():
                ended.wait(_CLEAN_UP_WITHIN_S)
            raise

    def enter_context(self, context: AbstractAsyncContextManager[Result]) -> Result:
        """Enter a context on the loop."""

        async def enter_on_loop() -> Result:
            return await context.__aenter__()

        entered = self.run_coroutine(enter_on_loop())
        self._entered.append(context)
        return entered

    def begin_context(self, context: AbstractAsyncContextManager[Result]) -> "Future[Result]":
        """Begin to enter a context on the loop, and return its future; broken off if it is not entered at the end."""

        async def enter_on_loop() -> Result:
            task = asyncio.current_task()
            assert task is not None, "run_coroutine_threadsafe makes a task"
            self._entering.add(task)
            try:
                entered = await context.__aenter__()
            finally:
                self._entering.discard(task)
            self._entered.append(context)
            return entered

        return asyncio.run_coroutine_threadsafe(enter_on_loop(), self.loop)

    def __enter__(self) -> "LoopThread":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._break_off_entering()
        # On the same loop: what was made on a loop can only be closed there.
        for context in reversed(self._entered):

            async def leave_on_loop(context: AbstractAsyncContextManager[Any] = context) -> None:
                await context.__aexit__(None, None, None)

            self.run_coroutine(leave_on_loop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _break_off_entering(self) -> None:
        """Cancel what is being entered, and wait until it has cleaned up."""

        async def cancel_all() -> None:
            if entering := set(self._entering):
                for task in entering:
                    task.cancel()
                await asyncio.wait(entering, timeout=_CLEAN_UP_WITHIN_S)

        self.run_coroutine(cancel_all())

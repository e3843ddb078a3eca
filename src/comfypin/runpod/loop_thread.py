"""An event loop in a thread of its own, for what must outlive the loops of others: the engine and its jobs."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, TypeVar

Result = TypeVar("Result")
_CLEAN_UP_WITHIN_S = 5.0


class LoopThread:
    """A running loop; contexts entered on it are left, in reverse, when the block ends."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._entered: list[AbstractAsyncContextManager[Any]] = []
        self._thread = threading.Thread(target=self.loop.run_forever, name="engine loop", daemon=True)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
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

    def enter(self, context: AbstractAsyncContextManager[Result]) -> Result:
        """Enter a context on the loop."""

        async def entering() -> Result:
            return await context.__aenter__()

        entered = self.run(entering())
        self._entered.append(context)
        return entered

    def __enter__(self) -> "LoopThread":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for context in reversed(self._entered):

            async def leaving(context: AbstractAsyncContextManager[Any] = context) -> None:
                await context.__aexit__(None, None, None)

            self.run(leaving())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

"""Stops a command that is told to end: it cleans up, as after Ctrl-C, within a time, and its programs end with it."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from comfypin.errors import Cancelled

CLEAN_UP_WITHIN_S = 10.0


class Stopped(KeyboardInterrupt):
    """A signal asked for the end; it unwinds the command as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def failure(self) -> Cancelled:
        """What the user is told."""
        stopped = Cancelled("Stopped." if self.number == signal.SIGINT else f"Stopped by {self.name}.")
        stopped.exit_code = 130 if self.number == signal.SIGINT else 143  # type: ignore[misc]
        return stopped

    @property
    def name(self) -> str:
        """The signal's name."""
        return signal.Signals(self.number).name


@contextlib.contextmanager
def heeding_signals() -> Iterator[None]:
    """Raise `Stopped` in the block when SIGINT, SIGTERM or SIGHUP comes; a second one ends the process as it is.

    A command that serves has handlers of its own, from when it is ready to end in its own way.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # A hang-up that `nohup` ignores stays ignored.
    before = {number: was for number in numbers if (was := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, was in before.items():
            if signal.getsignal(number) == _stop:
                signal.signal(number, was)


def _stop(number: int, _frame: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) == _stop:
            signal.signal(each, signal.SIG_DFL)
    stopped = Stopped(number)
    # Threads that wait for a server cannot be told; what they leave is swept by the next start.
    late = threading.Timer(CLEAN_UP_WITHIN_S, os._exit, [stopped.failure.exit_code])
    late.daemon = True
    late.start()
    # Programs are in sessions of their own, where no signal of ours comes; without them, threads end.
    # (A module that is being imported has no function yet, and has started none.)
    end_all = getattr(sys.modules.get("comfypin.tools.process"), "end_all", None)
    if end_all is not None:
        end_all()
    raise stopped

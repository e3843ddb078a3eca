"""Stops a command on a signal: it has ten seconds to clean up, as after Ctrl-C, and its child processes end with it."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from comfypin.errors import Cancelled

# Whoever presses Ctrl-C waits a few seconds, not minutes; Docker kills after ten.
CLEAN_UP_WITHIN_S = 10.0


class Stopped(KeyboardInterrupt):
    """Raised when a signal asks us to stop; unwinds the command as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def failure(self) -> Cancelled:
        """Return the error that the user sees."""
        stopped = Cancelled("Stopped." if self.number == signal.SIGINT else f"Stopped by {self.name}.")
        stopped.exit_code = 130 if self.number == signal.SIGINT else 143  # type: ignore[misc]
        return stopped

    @property
    def name(self) -> str:
        """Return the signal's name."""
        return signal.Signals(self.number).name


@contextlib.contextmanager
def heeding_signals() -> Iterator[None]:
    """Raise `Stopped` in the block when SIGINT, SIGTERM or SIGHUP comes; a second one ends the process at once.

    A command that serves installs its own handlers once it is ready to stop in its own way.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # A hang-up that `nohup` ignores stays ignored.
    before = {number: was for number in numbers if (was := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, _stop)
    # A process that a library forks (Runpod's heartbeat) inherits the handlers, and has nothing of ours to clean up.
    os.register_at_fork(after_in_child=_restore_defaults)
    try:
        yield
    finally:
        for number, was in before.items():
            if signal.getsignal(number) == _stop:
                signal.signal(number, was)


def _restore_defaults() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == _stop:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, _frame: FrameType | None) -> None:
    _restore_defaults()
    stopped = Stopped(number)
    # Threads that wait for a server cannot be stopped; the next start sweeps what they leave.
    late = threading.Timer(CLEAN_UP_WITHIN_S, os._exit, [stopped.failure.exit_code])
    late.daemon = True
    late.start()
    # Child processes run in their own sessions, so our signal does not reach them; threads wait for them to end.
    # (A module that is still being imported has no `end_all` yet, and has started no processes.)
    end_all = getattr(sys.modules.get("comfypin.tools.process"), "end_all", None)
    if end_all is not None:
        end_all()
    raise stopped

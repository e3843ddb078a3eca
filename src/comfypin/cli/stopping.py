"""Stops a command on a signal: it has ten seconds to clean up, as after Ctrl-C, and its child processes end with it."""

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from comfypin.errors import Cancelled

# Whoever presses Ctrl-C waits a few seconds, not minutes; Docker kills after ten.
CLEAN_UP_WITHIN_S = 10.0
# How long a signal is put off that comes while an exception would be lost or do harm.
PUT_OFF_S = 0.02


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
    os.register_at_fork(before=_fork_begins, after_in_parent=_fork_is_over, after_in_child=_child_begins)
    report_unraisable = sys.unraisablehook
    sys.unraisablehook = functools.partial(_raise_stop_again, report_unraisable)
    try:
        yield
    finally:
        sys.unraisablehook = report_unraisable
        for number, was in before.items():
            if signal.getsignal(number) == _stop:
                signal.signal(number, was)


# From linux/prctl.h: the kernel ends this process if the thread that started it ends.
_PR_SET_PDEATHSIG = 1

# The threads that are forking, each with its process. Linux gives the main one the process's own number.
_forking: list[tuple[int, int]] = []


def _fork_begins() -> None:
    _forking.append((os.getpid(), threading.get_native_id()))


def _fork_is_over() -> None:
    _forking.remove((os.getpid(), threading.get_native_id()))


def _child_begins() -> None:
    # A stop between a fork and its being noted (multiprocessing's `start`) leaves a child that nobody ends.
    parents = {process for process, thread in _forking if process == thread}
    if sys.platform == "linux" and parents:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() not in parents:  # it ended before we asked
            os._exit(0)
    _forking.clear()
    _restore_defaults()


def _raise_stop_again(report: Callable[["sys.UnraisableHookArgs"], object], lost: "sys.UnraisableHookArgs") -> None:
    # Python drops what is raised in a destructor or a weak reference's callback; a stop must not be lost there.
    if isinstance(lost.exc_value, Stopped):
        signal.signal(lost.exc_value.number, _stop)
        _send_later(lost.exc_value.number)
    else:
        report(lost)


def _send_later(number: int) -> None:
    later = threading.Timer(PUT_OFF_S, os.kill, [os.getpid(), number])
    later.daemon = True
    later.start()


def _restore_defaults() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == _stop:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, _frame: FrameType | None) -> None:
    if _forking:  # Python holds locks around a fork (logging's), and drops what its hooks raise.
        _send_later(number)
        return
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

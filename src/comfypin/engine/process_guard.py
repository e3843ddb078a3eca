"""Runs one command and leaves nothing of it behind.

Usage: `python process_guard.py PARENT_PID LIFELINE_FD GRACE_S -- COMMAND...`

A separate program (standard library only, never imported by the rest) between comfypin and an engine, because a
process that is killed with -9 cannot clean up after itself. The parent holds the other end of the lifeline
pipe and nothing is ever written to it: when the parent dies, however it dies, the pipe closes, and this program kills
the command and every process that descends from it. (A parent-death signal on the command itself would fire when the
*thread* that started it ends.) The command in turn is killed by the kernel should this program be killed.

SIGTERM stops the command: SIGTERM, and SIGKILL after GRACE_S seconds. This program ends as its command did: with its
exit code, or by its signal.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

# From linux/prctl.h: the kernel ends the child if its parent dies, even by SIGKILL.
_PR_SET_PDEATHSIG = 1
# From linux/prctl.h: grandchildren whose parent dies come to us instead of to process 1.
_PR_SET_CHILD_SUBREAPER = 36
# The pipe wakes us at once; this interval is for a parent that died with its pipe held open.
_LOOK_S = 0.5
# A process in uninterruptible sleep (a dead network disk) cannot be killed: do not wait for it for ever.
_SWEEP_S = 2.0


def main(arguments: list[str]) -> None:
    """Run the command until it ends or has to."""
    parent_pid, lifeline, grace_s = int(arguments[0]), int(arguments[1]), float(arguments[2])
    os.set_inheritable(lifeline, False)  # noqa: FBT003
    process_control = _process_control()
    process_control(_PR_SET_CHILD_SUBREAPER, 1)
    with contextlib.suppress(ValueError, OSError):
        # A core file of a process with a model in memory fills the disk.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stop_requests: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop_requests.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for signal_number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signal_number, signal.SIG_IGN)
    # A signal that comes just before `select` would be lost; the wake-up descriptor keeps it.
    wake, wake_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(wake_end, False)
    signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
    child_pid = _start_child(arguments[4:], process_control)
    status = _watch_child(child_pid, parent_pid, (lifeline, wake), stop_requests, grace_s)
    _kill_leftovers()
    _end_with_status(status)


def _watch_child(
    child_pid: int, parent_pid: int, pipes: tuple[int, int], stop_requests: list[int], grace_s: float
) -> int:
    """Wait until the child ends: by itself, by request, or because its parent is gone."""
    lifeline, wake = pipes
    kill_at: float | None = None
    while True:
        readable, _, _ = select.select([lifeline, wake], [], [], _LOOK_S)
        if wake in readable:
            os.read(wake, 4096)
        status = _reap_children(child_pid)
        if status is not None:
            return status
        # The pipe alone would not do: a fork of the parent may hold its end open after the parent has died.
        if lifeline in readable or os.getppid() != parent_pid or (kill_at is not None and time.monotonic() > kill_at):
            os.kill(child_pid, signal.SIGKILL)
            return _await_child(child_pid)
        if stop_requests and kill_at is None:
            os.kill(child_pid, signal.SIGTERM)
            kill_at = time.monotonic() + grace_s


def _start_child(command: list[str], process_control: Callable[[int, int], object]) -> int:
    """Start the command in a process that the kernel kills if this one dies."""
    guard = os.getpid()
    child_pid = os.fork()
    if child_pid:
        return child_pid
    try:
        process_control(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(1)
        # Undo the guard's own handling, which the command would inherit.
        signal.set_wakeup_fd(-1)
        for signal_number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
            signal.signal(signal_number, signal.SIG_DFL)
        os.execv(command[0], command)  # noqa: S606
    except OSError as exc:
        os.write(2, f"cannot start {command[0]}: {exc.strerror}\n".encode())
    finally:
        os._exit(127)


def _reap_children(child_pid: int) -> int | None:
    """Collect dead processes, also adopted ones; return the child's wait status once it is among them."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child_pid:
                status = wait_status
    return status


def _await_child(child_pid: int) -> int:
    return os.waitpid(child_pid, 0)[1]


def _kill_leftovers() -> None:
    """Kill what the command started and left behind: we are their adopted parent, so we know even daemons."""
    give_up_at = time.monotonic() + _SWEEP_S
    while (leftovers := _find_descendants()) and time.monotonic() < give_up_at:
        for pid in leftovers:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        _reap_children(-1)
        time.sleep(0.01)


def _find_descendants() -> list[int]:
    """Return the processes that descend from this one, by /proc."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # `pid (name) state ppid ...`, and a name may hold anything, brackets too.
            state, ppid = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            # Zombies are dead already; their entry goes when they are reaped.
            if state != "Z":
                children.setdefault(int(ppid), []).append(int(folder.name))
    descendants: list[int] = []
    unseen = [os.getpid()]
    while unseen:
        own_children = children.get(unseen.pop(), [])
        descendants += own_children
        unseen += own_children
    return descendants


def _process_control() -> Callable[[int, int], object]:
    """Return Linux' prctl; elsewhere a function that does nothing, so that only the lifeline protects."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        return lambda option, value: library.prctl(option, value, 0, 0, 0)
    except (OSError, AttributeError):
        return lambda *_: None


def _end_with_status(status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        # Die of the same signal, so that our parent sees what it would have seen without us.
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])

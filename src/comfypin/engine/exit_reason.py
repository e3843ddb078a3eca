"""Explains why an engine's process ended, from its exit code, last lines and the kernel's counters. Pure."""

import signal
from collections.abc import Sequence

_GPU_MEMORY = (
    "CUDA out of memory",
    "OutOfMemoryError",
    "HIP out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
_MEMORY = ("MemoryError", "can't allocate memory", "Cannot allocate memory", "std::bad_alloc")
_PORT_TAKEN = ("address already in use", "[Errno 98]", "[Errno 48]")
# A shell, and Docker, report death by signal N as exit code 128 + N.
_SHELL_SIGNAL = 128


def explain_exit(returncode: int, log_tail: Sequence[str], *, oom_killed: bool = False) -> str:
    """Say why the engine ended: `exit code 1`, `killed by SIGKILL (exit code 137), ...`."""
    signal_number = _find_signal(returncode)
    if signal_number is None:
        reason_text = f"exit code {returncode}"
    else:
        reason_text = f"killed by {_signal_name(signal_number)} (exit code {_SHELL_SIGNAL + signal_number})"
    log_text = "\n".join(log_tail)
    # The log first: it says which memory, where a signal only says that it was killed.
    if any(sign in log_text for sign in _GPU_MEMORY):
        return f"{reason_text}, out of memory: the GPU's memory was full"
    if oom_killed:
        return f"{reason_text}, out of memory: the kernel's out-of-memory killer ended it"
    if signal_number == signal.SIGKILL:
        return f"{reason_text}, most likely out of memory: only the kernel or a person sends that signal"
    if any(sign in log_text for sign in _MEMORY):
        return f"{reason_text}, out of memory: the machine's memory was full"
    return reason_text


def is_port_taken(log_tail: Sequence[str]) -> bool:
    """Return whether the engine ended because another process took its port after we chose it."""
    return any(sign.lower() in line.lower() for sign in _PORT_TAKEN for line in log_tail)


def _find_signal(returncode: int) -> int | None:
    if returncode < 0:
        return -returncode
    return returncode - _SHELL_SIGNAL if _SHELL_SIGNAL < returncode <= _SHELL_SIGNAL + signal.NSIG else None


def _signal_name(signal_number: int) -> str:
    try:
        return signal.Signals(signal_number).name
    except ValueError:
        return f"signal {signal_number}"

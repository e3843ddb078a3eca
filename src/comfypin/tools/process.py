"""Runs child processes and waits for them: keeps their output, and kills all of them after a deadline."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from comfypin.errors import Cancelled
from comfypin.tools.errors import ToolMissing, ToolTimedOut

# Installing gigabytes over a slow line takes many minutes; what takes longer than this hangs.
DEFAULT_TIMEOUT_S = 1800.0
# The process groups that run now; a signal's handler reads it, so there is no lock.
_running: set[int] = set()
_ending = threading.Event()


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedProcess:
    """Holds a program's exit code and output."""

    exit_code: int
    stdout: bytes
    stderr: str

    @property
    def stdout_text(self) -> str:
        """Return stdout as text."""
        return self.stdout.decode(errors="replace")

    @property
    def error_summary(self) -> str:
        """Return the last five lines of stderr that are not empty, as one line."""
        error_lines = [error_line.strip() for error_line in self.stderr.splitlines() if error_line.strip()]
        # Tools print the cause last; 800 characters keep a message readable.
        return " / ".join(error_lines[-5:])[-800:] or f"exit code {self.exit_code}"


def run_program(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> FinishedProcess:
    """Run a program to its end in its own process group. A failing exit code is a value, not an error.

    Raises `ToolMissing`, `ToolTimedOut` (its whole group is killed) and, once this process ends, `Cancelled`.
    """
    _require_going_on()
    tool_name = Path(command[0]).name
    try:
        child_process = subprocess.Popen(
            [str(command_part) for command_part in command],
            cwd=cwd,
            env=dict(env) if env is not None else None,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Its own group, so that a timeout can kill what the program itself has started.
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise ToolMissing(
            tool=tool_name, remedy=f"install it, or put it on PATH (Debian: apt-get install {tool_name})"
        ) from error
    _running.add(child_process.pid)
    try:
        # `communicate` reads both pipes at once: a full pipe that nobody reads would block the program for ever.
        stdout, stderr = child_process.communicate(stdin, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise ToolTimedOut(tool=tool_name, timeout_s=timeout_s, where=str(cwd or Path.cwd())) from error
    finally:
        if child_process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child_process.pid, signal.SIGKILL)
            # Reaps the child, which would otherwise stay a zombie as long as we run.
            child_process.communicate()
        _running.discard(child_process.pid)
    _require_going_on()
    return FinishedProcess(exit_code=child_process.returncode, stdout=stdout, stderr=stderr.decode(errors="replace"))


def end_all() -> None:
    """Kill all programs that run now, and start no more: this process is about to end."""
    _ending.set()
    for process_group in tuple(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process_group, signal.SIGKILL)


def _require_going_on() -> None:
    if _ending.is_set():
        raise Cancelled("Stopped.")

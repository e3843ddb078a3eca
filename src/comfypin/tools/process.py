"""Child processes that we wait for: output kept, a deadline, and nothing of them left when it passes."""

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

DEFAULT_TIMEOUT_S = 1800.0
# The process groups that run now; a signal's handler reads it, so there is no lock.
_running: set[int] = set()
_ending = threading.Event()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a program left: its exit code and what it said."""

    exit_code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Stdout as text."""
        return self.stdout.decode(errors="replace")

    @property
    def complaint(self) -> str:
        """The lines of stderr that matter most, as one line: the last five that are not empty."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        return " / ".join(lines[-5:])[-800:] or f"exit code {self.exit_code}"


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Finished:
    """Run a program to its end, in a process group of its own. A failing exit code is a value, not an error.

    Raises `ToolMissing`, `ToolTimedOut` (its whole group is killed) and, once this process ends, `Cancelled`.
    """
    _require_going_on()
    tool = Path(command[0]).name
    try:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env=dict(env) if env is not None else None,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise ToolMissing(
            tool=tool, remedy=f"install it, or put it on PATH (Debian: apt-get install {tool})"
        ) from error
    _running.add(process.pid)
    try:
        stdout, stderr = process.communicate(stdin, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise ToolTimedOut(tool=tool, timeout_s=timeout_s, where=str(cwd or Path.cwd())) from error
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        _running.discard(process.pid)
    _require_going_on()
    return Finished(exit_code=process.returncode, stdout=stdout, stderr=stderr.decode(errors="replace"))


def end_all() -> None:
    """Kill all programs that run now, and start no more: this process is about to end."""
    _ending.set()
    for group in tuple(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def _require_going_on() -> None:
    if _ending.is_set():
        raise Cancelled("Stopped.")

"""Runs programs that print while they work: reports every line, and keeps the last ones for an error."""

import os
import re
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from comfypin.image.interface import Report

# Enough for the failing step of a Dockerfile with its command.
KEPT_LINES = 30
# What buildah and podman say before a registry's own words: what they were doing.
_PUSH_STEPS = re.compile(
    r"^Error: |pushing image \S+ to \S+: |trying to reuse blob \S+ at destination: "
    r"|checking whether a blob \S+ exists in \S+: |pinging container registry \S+: "
    r"|initiating layer upload to \S+ in \S+: |writing (blob|manifest): "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramOutput:
    """Holds a program's exit code and the last lines of its output."""

    exit_code: int
    last_lines: tuple[str, ...]

    @property
    def log_text(self) -> str:
        """Return the last lines that are not empty, indented."""
        return "\n".join(f"  {output_line}" for output_line in self.last_lines if output_line.strip())

    @property
    def error_summary(self) -> str:
        """Return the last lines as one line."""
        return (
            " / ".join(output_line.strip() for output_line in self.last_lines[-3:] if output_line.strip())[-600:]
            or f"exit {self.exit_code}"
        )

    @property
    def push_reason(self) -> str:
        """Return why a push failed: its last line, without what the builder was doing then."""
        last_line = next((line.strip() for line in reversed(self.last_lines) if line.strip()), "")
        return _PUSH_STEPS.sub("", last_line)[-600:] or f"exit {self.exit_code}"


def run_and_report(
    command: Sequence[str | Path], report: Report, *, env: Mapping[str, str] | None = None
) -> ProgramOutput:
    """Run a program to its end and report its lines, stdout and stderr together."""
    last_lines: deque[str] = deque(maxlen=KEPT_LINES)
    with subprocess.Popen(
        [str(argument) for argument in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # Together, because their order tells which command failed.
        stderr=subprocess.STDOUT,
        env={**os.environ, **env} if env else None,
    ) as child_process:
        assert child_process.stdout is not None
        try:
            for raw_line in child_process.stdout:
                output_line = raw_line.decode(errors="replace").rstrip()
                last_lines.append(output_line)
                report(output_line)
        # Ctrl-C too: a build that goes on would hold the builder's lock.
        except BaseException:
            child_process.terminate()
            raise
    return ProgramOutput(exit_code=child_process.returncode, last_lines=tuple(last_lines))

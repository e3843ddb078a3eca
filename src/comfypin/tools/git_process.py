"""Runs the program git so that no setting of the user can change what it does."""

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from comfypin.tools.errors import ToolMissing
from comfypin.tools.process import FinishedProcess, run_program

FETCH_TIMEOUT_S = 900.0
_GIT_OPTIONS = (
    *("-c", "protocol.version=2"),
    # A garbage collection in the background would outlive us and hold locks in the cache.
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
    # A hook from the user's configuration would run code that no lock pins.
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "advice.detachedHead=false"),
)


def run_git(
    arguments: Sequence[str | Path],
    *,
    cwd: Path,
    stdin: bytes | None = None,
    extra_variables: Mapping[str, str] | None = None,
    timeout_s: float = FETCH_TIMEOUT_S,
) -> FinishedProcess:
    """Run git so that no user setting and no prompt can change or stop it; `extra_variables` join its environment."""
    command: list[str | Path] = ["git", *_GIT_OPTIONS, *arguments]
    return run_program(
        command, cwd=cwd, env={**_git_environment(), **(extra_variables or {})}, stdin=stdin, timeout_s=timeout_s
    )


def start_git(arguments: Sequence[str], *, cwd: Path) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            ["git", *_GIT_OPTIONS, *arguments],
            cwd=cwd,
            env=_git_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise ToolMissing(tool="git", remedy="install it (Debian: apt-get install git)") from error


def feed_stdin(git_process: "subprocess.Popen[bytes]", content: bytes) -> None:
    assert git_process.stdin is not None
    # git closes its input when it fails; the reader then reports the missing object.
    with contextlib.suppress(BrokenPipeError, ValueError):
        git_process.stdin.write(content)
        git_process.stdin.close()


def _git_environment() -> dict[str, str]:
    # Inside another repository's hook these variables would send our commands to that repository.
    kept_variables = {
        variable_name: variable_value
        for variable_name, variable_value in os.environ.items()
        if not _is_repository_variable(variable_name)
    }
    # No prompt: nobody may be there to answer. LC_ALL, because we match git's English messages.
    return {
        **kept_variables,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
        "LC_ALL": "C",
    }


def _is_repository_variable(variable_name: str) -> bool:
    return variable_name in {
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_NAMESPACE",
        "GIT_PREFIX",
    }

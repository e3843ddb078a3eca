"""Runs the program git so that no setting of the user can change what it does."""

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from comfypin.tools.errors import ToolMissing
from comfypin.tools.process import FinishedProcess, run_program

# A large repository over a slow line takes minutes; what takes longer than this hangs.
FETCH_TIMEOUT_S = 900.0
_GIT_OPTIONS = (
    *("-c", "protocol.version=2"),
    # A garbage collection in the background would outlive us and hold locks in the cache.
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
    # A hook from the user's configuration would run code that no lock pins.
    *("-c", "core.hooksPath=/dev/null"),
    # So would a file system monitor, which the checkout's own settings may name.
    *("-c", "core.fsmonitor=false"),
    *("-c", "advice.detachedHead=false"),
)
# What `git rev-parse --local-env-vars` lists (a hook that calls us has them set), except settings, by which CI
# passes credentials; and whatever else would make git see another repository, or other paths in it.
_REPOSITORY_VARIABLES = frozenset(
    f"GIT_{variable_name}"
    for variable_name in (
        *("DIR", "WORK_TREE", "INDEX_FILE", "OBJECT_DIRECTORY", "ALTERNATE_OBJECT_DIRECTORIES", "NAMESPACE", "PREFIX"),
        *("COMMON_DIR", "SHALLOW_FILE", "GRAFT_FILE", "REPLACE_REF_BASE", "NO_REPLACE_OBJECTS", "IMPLICIT_WORK_TREE"),
        *("INTERNAL_SUPER_PREFIX", "QUARANTINE_PATH", "CONFIG", "CEILING_DIRECTORIES", "ATTR_SOURCE", "TEMPLATE_DIR"),
        *("LITERAL_PATHSPECS", "GLOB_PATHSPECS", "NOGLOB_PATHSPECS", "ICASE_PATHSPECS", "DEFAULT_HASH"),
        *("DEFAULT_REF_FORMAT", "EXTERNAL_DIFF", "DIFF_OPTS"),
    )
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


def setting_variables(settings: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the variables that give git these settings, after any that the user's own variables give it."""
    given_count = _git_environment().get("GIT_CONFIG_COUNT", "")
    first_number = int(given_count) if given_count.isdigit() else 0
    variables = {"GIT_CONFIG_COUNT": str(first_number + len(settings))}
    for number, (setting_key, setting_value) in enumerate(settings, start=first_number):
        variables |= {f"GIT_CONFIG_KEY_{number}": setting_key, f"GIT_CONFIG_VALUE_{number}": setting_value}
    return variables


def _git_environment() -> dict[str, str]:
    # Inside another repository's hook these variables would send our commands to that repository.
    kept_variables = {
        variable_name: variable_value
        for variable_name, variable_value in os.environ.items()
        if variable_name not in _REPOSITORY_VARIABLES
    }
    # No prompt: nobody may be there to answer. LC_ALL, because we match git's English messages.
    return {
        **kept_variables,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
        "LC_ALL": "C",
    }

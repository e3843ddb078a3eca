"""Runs uv, the Python package installer, as the binary that its library brings."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from comfypin.tools.errors import ToolMissing
from comfypin.tools.process import DEFAULT_TIMEOUT_S, FinishedProcess, run_program

# What of uv's own variables could change which bytes a lock means.
_FORBIDDEN_PREFIXES = ("UV_", "PIP_", "PYTHON", "VIRTUAL_ENV", "CONDA_")
# These only say where and how uv downloads, never which bytes it installs.
_KEPT_VARIABLES = frozenset(
    {"UV_CACHE_DIR", "UV_HTTP_TIMEOUT", "UV_CONCURRENT_DOWNLOADS", "UV_SYSTEM_CERTS", "UV_NATIVE_TLS"}
)

# How uv says that the source of a package cannot be built: its name, and the version unless it came by its address.
UNBUILT = re.compile(
    r"Failed to (?:download and )?(?:build|prepare)(?: distributions?)?:? `([^`\s=]+)(?:==([^`\s]+)| @ [^`]+)?`"
)
# For questions that have another answer, for example a cached one.
_IMPATIENT_VARIABLES = {"UV_HTTP_RETRIES": "1", "UV_HTTP_CONNECT_TIMEOUT": "3"}


def find_uv() -> Path:
    """Return the uv that is installed beside us. Raises `ToolMissing`."""
    from uv import find_uv_bin

    try:
        return Path(find_uv_bin())
    except FileNotFoundError as error:
        raise ToolMissing(tool="uv", remedy="install it with `pip install uv`") from error


def clean_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment without the user's own uv, pip or Python settings, which could change the outcome."""
    return {
        variable_name: variable_value
        for variable_name, variable_value in (variables if variables is not None else os.environ).items()
        if variable_name in _KEPT_VARIABLES or not variable_name.startswith(_FORBIDDEN_PREFIXES)
    }


def run_uv(
    arguments: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    offline: bool = False,
    stdin: bytes | None = None,
    cache: Path | None = None,
    patient: bool = True,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> FinishedProcess:
    """Run uv without its configuration files, without Python downloads and without progress bars.

    `cache` is its cache folder; without it, UV_CACHE_DIR or uv itself decides. Without patience it soon gives up on
    servers that it cannot reach.
    """
    command: list[str | Path] = [
        find_uv(),
        # A uv.toml of the user may name other indexes, and so other bytes.
        "--no-config",
        "--no-progress",
        "--color",
        "never",
        # The interpreter is chosen by us, before uv runs.
        "--no-python-downloads",
    ]
    if offline:
        command.append("--offline")
    if cache is not None:
        command += ["--cache-dir", cache]
    environment = {**clean_environment(), **({} if patient else _IMPATIENT_VARIABLES)}
    return run_program([*command, *arguments], cwd=cwd, env=environment, stdin=stdin, timeout_s=timeout_s)

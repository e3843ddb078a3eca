"""Recognises a machine that lacks what every program needs: memory, threads, descriptors, usable folders."""

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

from comfypin.errors import ConfigError

_LIMITS = {
    errno.ENOMEM: "memory (`ulimit -v`, or the container's limit)",
    errno.EMFILE: "open files (`ulimit -n`)",
    errno.ENFILE: "open files (fs.file-max)",
    errno.EAGAIN: "processes or threads (`ulimit -u`, or the container's limit)",
}
# What the loader of shared objects says when it gets no memory.
_UNLOADABLE = re.compile(r"failed to map segment|cannot allocate memory|cannot create shared object|static TLS", re.I)


class ResourceRefused(ConfigError):
    """The machine refuses memory, threads, processes or open files."""

    def __init__(self, *, resource: str) -> None:
        super().__init__(
            f"This machine refuses comfypin more {resource}: raise the limit, or free some.", what=resource
        )


class PathUnusable(ConfigError):
    """A file or folder that the machine, or a variable, names cannot be used."""

    def __init__(self, *, path: str, reason: str, home_folder: str | None) -> None:
        below_home = home_folder is not None and Path(path).is_relative_to(home_folder)
        help_ = (
            f"HOME is {home_folder}: set HOME, or the variable that names this folder (COMFYPIN_STATE_DIR, "
            "COMFYPIN_CACHE_DIR), to one that can be written"
            if below_home
            else "name another, or make it usable for this user"
        )
        super().__init__(f"{path} cannot be used: {reason.lower()}; {help_}.", path=path, reason=reason)


def machine_failure(error: BaseException, environ: Mapping[str, str]) -> ConfigError | None:
    """Return the error that explains an exception of Python's own by this machine's limits, else None."""
    if isinstance(error, MemoryError):
        return ResourceRefused(resource=_LIMITS[errno.ENOMEM])
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return ResourceRefused(resource=_LIMITS[errno.EAGAIN])
    if isinstance(error, ImportError) and _UNLOADABLE.search(str(error)):
        return ResourceRefused(resource=_LIMITS[errno.ENOMEM])
    if not isinstance(error, OSError):
        return None
    if error.errno in _LIMITS:
        return ResourceRefused(resource=_LIMITS[error.errno])
    if error.errno is None or not isinstance(error.filename, str | bytes | os.PathLike):
        return None
    return PathUnusable(
        path=os.fsdecode(error.filename),
        reason=error.strerror or str(error),
        home_folder=environ.get("HOME", "").strip() or None,
    )

"""Recognises a machine that lacks what every program needs: memory, threads, descriptors, usable folders."""

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

from comfypin.errors import ConfigError, declare

_LIMITS = {
    errno.ENOMEM: "memory (`ulimit -v`, or the container's limit)",
    errno.EMFILE: "open files (`ulimit -n`)",
    errno.ENFILE: "open files (fs.file-max)",
    errno.EAGAIN: "processes or threads (`ulimit -u`, or the container's limit)",
}
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EFBIG: "the file is too big"}
# What the loader of shared objects says when it gets no memory.
_UNLOADABLE = re.compile(r"failed to map segment|cannot allocate memory|cannot create shared object|static TLS", re.I)


def is_full(error: OSError) -> bool:
    """Return whether a write failed because there was no room for it."""
    return error.errno in _FULL


def reason_of(error: OSError) -> str:
    """Return why the machine refused something, in the words of our messages: "the disk is full"."""
    return _FULL.get(error.errno or 0) or (error.strerror or str(error)).lower()


@declare
class ResourceRefused(ConfigError):
    """Raised when the machine refuses memory, threads, processes or open files."""

    template = "This machine refuses comfypin more {what}: raise the limit, or free some."
    what: str


@declare
class PathUnusable(ConfigError):
    """Raised when a file or folder that the machine, or a variable, names cannot be used."""

    template = "{path} cannot be used: {cause}; {help}."
    path: str
    reason: str
    _home: str | None

    @property
    def cause(self) -> str:
        """Return the system's reason as a clause."""
        return self.reason.lower()

    @property
    def help(self) -> str:
        """Return what to set: HOME if the path is below it, since the user may not have named it."""
        if self._home is None or not Path(self.path).is_relative_to(self._home):
            return "name another, or make it usable for this user"
        return (
            f"HOME is {self._home}: set HOME, or the variable that names this folder (COMFYPIN_STATE_DIR, "
            "COMFYPIN_CACHE_DIR), to one that can be written"
        )


def machine_failure(error: BaseException, environ: Mapping[str, str]) -> ConfigError | None:
    """Return the error that explains an exception of Python's own by this machine's limits, else None."""
    if isinstance(error, MemoryError):
        return ResourceRefused(what=_LIMITS[errno.ENOMEM])
    # Python has no exception of its own for this.
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return ResourceRefused(what=_LIMITS[errno.EAGAIN])
    if isinstance(error, ImportError) and _UNLOADABLE.search(str(error)):
        return ResourceRefused(what=_LIMITS[errno.ENOMEM])
    if not isinstance(error, OSError):
        return None
    if error.errno in _LIMITS:
        return ResourceRefused(what=_LIMITS[error.errno])
    if error.errno is None or not isinstance(error.filename, str | bytes | os.PathLike):
        return None
    return PathUnusable(
        path=os.fsdecode(error.filename),
        reason=error.strerror or str(error),
        _home=environ.get("HOME", "").strip() or None,
    )

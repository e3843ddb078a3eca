"""Marks folders as in use: users of a folder share a lock on it, and whoever removes it needs the lock alone.

The kernel gives a lock back when its holder dies, however it dies. File systems without locks (some network ones) let
everybody through, as if nobody else were there.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def using(folder: Path) -> Iterator[None]:
    """Keep others from removing what is in the folder; wait for a removal to end. Without the folder, lock nothing."""
    with _locked(folder, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def alone_with(folder: Path) -> Iterator[bool]:
    """Keep others from using the folder if nobody uses it now; yield whether nobody does."""
    try:
        with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield True
    except _InUse:
        yield False


class _InUse(Exception):
    """Somebody else holds a lock."""


@contextlib.contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    try:
        descriptor = os.open(folder, _FOLDER)
    except OSError:
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, kind)
        except BlockingIOError:
            raise _InUse from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)

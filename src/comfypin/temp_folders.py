"""Makes temporary folders of which none stays: each is locked while its process lives, and unlocked ones are removed.

A process that is killed with -9 leaves its folders, with inputs and outputs of jobs in them. Age does not tell which
ones are in use (an engine runs for weeks), and a process id means nothing after a container has been started again. A
lock on the folder itself does: the kernel gives it back when its holder dies, however it dies.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

from comfypin.atomic_files import is_local_folder
from comfypin.errors import ConfigError, declare
from comfypin.machine_errors import is_full, reason_of

_PREFIX = "comfypin-"
# Only folders that are made locked have it: an older comfypin's, or somebody else's, are not judged.
_SUFFIX = ".held"
# O_NOFOLLOW: in a shared /tmp somebody could put a link in the folder's place.
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@declare
class NoTempFolder(ConfigError):
    """Raised when this machine has no folder for temporary files, or no room in it."""

    template = "This machine has no place for temporary files ({reason})."
    command_hint = "{make_room}et {variable} to a writable folder."
    reason: str
    _folder: Path | None = None
    variable: str = "TMPDIR"

    @property
    def make_room(self) -> str:
        """Return the first words of the hint: the folder that was tried, if one was found."""
        return f"Make room in {self._folder}, or s" if self._folder else "S"


@contextlib.contextmanager
def temp_folder(purpose: str, *, keep: bool = False) -> Iterator[Path]:
    """Make a private temporary folder, `comfypin-PURPOSE-*`; it is removed when the block ends, unless `keep`.

    Raises `NoTempFolder`, also for a write of the block that the full disk refused and nobody told.
    """
    if keep:
        yield _make_folder(purpose, suffix="")
        return
    folder, lock_descriptor = _make_locked_folder(purpose)
    try:
        with _name_full_disk(folder):
            yield folder
    finally:
        # What an engine still writes at its end must not fail a job that is done; the next sweep gets it.
        shutil.rmtree(folder, ignore_errors=True)
        if lock_descriptor is not None:
            os.close(lock_descriptor)


class SharedTempFolder:
    """One locked temporary folder for all jobs of a process, made when the first job needs it.

    A folder of its own for each job took 2 to 4 ms of it, half of which the kernel needs to remove one.
    """

    def __init__(self, purpose: str) -> None:
        self._purpose = purpose
        self._lock = threading.Lock()
        self._root: Path | None = None
        self._stack = contextlib.ExitStack()
        # With its owner, or with the process.
        weakref.finalize(self, self._stack.close)

    def root(self) -> Path:
        """Return the folder, which jobs share: use unique names in it. Raises `NoTempFolder`."""
        with self._lock:
            # Whoever tidies /tmp may have removed it.
            if self._root is None or not self._root.is_dir():
                self._root = self._stack.enter_context(temp_folder(self._purpose))
            return self._root

    @contextlib.contextmanager
    def part(self) -> Iterator[Path]:
        """Give a path in it for a folder that the block makes if it needs one, and that is removed with the block.

        Raises `NoTempFolder` as `temp_folder` does.
        """
        folder = self.root() / secrets.token_hex(8)
        try:
            with _name_full_disk(folder):
                yield folder
        finally:
            if folder.exists():
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _name_full_disk(folder: Path) -> Iterator[None]:
    """Raise `NoTempFolder` for a write into the folder that a full disk refused."""
    try:
        yield
    except OSError as exc:
        if is_full(exc) and (exc.filename is None or Path(os.fsdecode(exc.filename)).is_relative_to(folder)):
            raise NoTempFolder(reason=reason_of(exc), _folder=folder.parent) from exc
        raise


def temp_root() -> Path:
    """Return the folder for temporary files (TMPDIR). Raises `NoTempFolder`."""
    try:
        return Path(tempfile.gettempdir())
    except OSError as exc:
        raise NoTempFolder(reason=reason_of(exc)) from exc


def sweep_temp_folders(temp_root_folder: Path | None = None) -> list[Path]:
    """Remove the folders that killed processes left in `temp_root_folder` (default: TMPDIR); returns them."""
    temp_root_folder = temp_root() if temp_root_folder is None else temp_root_folder
    # On a network volume another machine's lock may not be seen here.
    if not is_local_folder(temp_root_folder):
        return []
    return [folder for folder in sorted(temp_root_folder.glob(f"{_PREFIX}*{_SUFFIX}")) if _remove_if_left(folder)]


def _make_folder(purpose: str, *, suffix: str) -> Path:
    temp_root_folder = temp_root()
    try:
        return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-", suffix=suffix, dir=temp_root_folder))
    except OSError as exc:
        raise NoTempFolder(reason=reason_of(exc), _folder=temp_root_folder) from exc


def _make_locked_folder(purpose: str) -> tuple[Path, int | None]:
    while True:
        folder = _make_folder(purpose, suffix=_SUFFIX)
        try:
            lock_descriptor = os.open(folder, _FOLDER)
        except FileNotFoundError:
            continue  # a sweep took it for a left one, before we locked it
        try:
            fcntl.flock(lock_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock_descriptor)
            continue
        except OSError:
            # A file system without locks: no sweep can lock it either, so none removes it.
            os.close(lock_descriptor)
            return folder, None
        if os.fstat(lock_descriptor).st_nlink and folder.is_dir():
            return folder, lock_descriptor
        os.close(lock_descriptor)


def _remove_if_left(folder: Path) -> bool:
    try:
        lock_descriptor = os.open(folder, _FOLDER)
    except OSError:
        return False
    try:
        status = os.fstat(lock_descriptor)
        # In a shared /tmp only our own folders, which nobody else can write to, are ours to remove.
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
            return False
        fcntl.flock(lock_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()
    except OSError:
        return False
    finally:
        os.close(lock_descriptor)

"""Watches a folder and tells what may be new: events where the kernel has them, scans where it has not.

Events are a hint, scanning is the truth. A thread reads inotify; folders that appear are watched first and scanned
then, so that nothing that was written in between is missed; an overflow of the kernel's queue, watches that ran out and
file systems whose writers are on other machines all come down to scanning again.
"""

import contextlib
import errno
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inotify_simple import Event, INotify, flags

from comfypin.atomic_files import is_local_folder
from comfypin.sync.scan import Fingerprint, files_in, fingerprint, folders_below

_POLL_S = 5.0
_RECONCILE_S = 600.0
_MISSING_POLL_S = 1.0
_WATCHED = (
    flags.CLOSE_WRITE
    | flags.MOVED_FROM
    | flags.MOVED_TO
    | flags.CREATE
    | flags.DELETE_SELF
    | flags.ONLYDIR
    | flags.DONT_FOLLOW
    | flags.EXCL_UNLINK
)
# The sysctl that is used up, by what the kernel answers; inotify(7) calls ENOSPC a limit, not a full disk.
_EXHAUSTED = {
    errno.EMFILE: "fs.inotify.max_user_instances",
    errno.ENFILE: "fs.inotify.max_user_instances",
    errno.ENOSPC: "fs.inotify.max_user_watches",
}


@dataclass(frozen=True, slots=True)
class Closed:
    """A file was closed after writing, or renamed into place: it is probably complete."""

    path: str


@dataclass(frozen=True, slots=True)
class Found:
    """A scan, or an event that does not say that anything is complete, came upon a file."""

    path: str
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class Scanned:
    """A scan of the whole folder has ended; `first` tells the one at the start."""

    first: bool


@dataclass(frozen=True, slots=True)
class Notice:
    """Something people should know, in one sentence."""

    text: str


Sighting = Closed | Found | Scanned | Notice


class Watch:
    """Tells `tell` of every sighting, from a thread of its own, until `stop`."""

    def __init__(self, root: Path, tell: Callable[[Sighting], None], *, poll_s: float = _POLL_S) -> None:
        self._root = os.fspath(root)
        self._tell = tell
        self._poll_s = poll_s
        self._folders: dict[int, str] = {}
        self._polled: set[str] = set()
        self._warned: set[str] = set()
        self._inotify: INotify | None = None
        self._wake_out, self._wake_in = os.pipe()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch; the first scan is told like everything else, and ends with `Scanned(first=True)`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what it has read is told first."""
        os.write(self._wake_in, b"x")
        self._thread.join()
        os.close(self._wake_in)
        os.close(self._wake_out)

    def _run(self) -> None:
        try:
            self._inotify = INotify()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._warn_exhausted(_EXHAUSTED[error.errno])
        if not is_local_folder(Path(self._root)):
            # inotify sees only the writers of this machine there.
            self._polled.add("")
        self._take_in("")
        self._tell(Scanned(first=True))
        self._loop()
        if self._inotify is not None:
            self._drain(self._inotify)
            self._inotify.close()

    def _loop(self) -> None:
        poll = select.poll()
        poll.register(self._wake_out, select.POLLIN)
        if self._inotify is not None:
            poll.register(self._inotify, select.POLLIN)
        next_poll = time.monotonic() + self._poll_s
        next_reconcile = time.monotonic() + _RECONCILE_S
        while True:
            due = min(next_reconcile, next_poll) if self._polled else next_reconcile
            ready = {descriptor for descriptor, _ in poll.poll(max(0.0, due - time.monotonic()) * 1000)}
            if self._wake_out in ready:
                return
            if self._inotify is not None and self._inotify.fileno() in ready:
                self._drain(self._inotify)
            now = time.monotonic()
            if self._polled and now >= next_poll:
                for folder in sorted(self._polled):
                    self._scan(folder)
                self._tell(Scanned(first=False))
                next_poll = time.monotonic() + self._poll_s
            if now >= next_reconcile:
                self._take_in("")
                next_reconcile = time.monotonic() + _RECONCILE_S

    def _drain(self, inotify: INotify) -> None:
        while events := inotify.read(timeout=0):
            for event in events:
                self._hear(event)

    def _hear(self, event: Event) -> None:
        if event.mask & flags.Q_OVERFLOW:
            self._warn(
                "overflow",
                "more happened than the kernel could queue; the whole folder is scanned again. "
                "Raise fs.inotify.max_queued_events if this comes often.",
            )
            self._take_in("")
            return
        folder = self._folders.get(event.wd)
        if event.mask & flags.IGNORED:
            self._folders.pop(event.wd, None)
            if folder == "":
                self._await_root()
            return
        if folder is None or event.mask & flags.DELETE_SELF:
            return
        path = f"{folder}/{event.name}" if folder else event.name
        if event.mask & flags.ISDIR:
            if event.mask & (flags.CREATE | flags.MOVED_TO):
                self._take_in(path)
            elif event.mask & flags.MOVED_FROM:
                self._let_go(path)
        elif event.mask & (flags.CLOSE_WRITE | flags.MOVED_TO):
            self._tell(Closed(path))
        elif event.mask & flags.CREATE:
            # A file linked into place has no close event of its own.
            self._tell_file(path)

    def _tell_file(self, path: str) -> None:
        if (mark := fingerprint(self._root, path)) is not None:
            self._tell(Found(path, mark))

    def _take_in(self, relative: str) -> None:
        """Watch a folder and all below it, each before it is scanned: what is written in between is seen twice."""
        for folder in folders_below(self._root, relative):
            self._add_watch(folder)
            for path, mark in files_in(self._root, folder):
                self._tell(Found(path, mark))

    def _scan(self, relative: str) -> None:
        for folder in folders_below(self._root, relative):
            for path, mark in files_in(self._root, folder):
                self._tell(Found(path, mark))

    def _add_watch(self, folder: str) -> None:
        if self._inotify is None or folder in self._polled:
            self._polled.add("" if self._inotify is None else folder)
            return
        try:
            watch = self._inotify.add_watch(os.path.join(self._root, folder), _WATCHED)
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                return  # gone again, or closed to us; its parent tells when that changes
            self._warn_exhausted(_EXHAUSTED[error.errno])
            self._polled.add(folder)
        else:
            self._folders[watch] = folder

    def _let_go(self, relative: str) -> None:
        """A folder was moved away: its watches must not speak of files that are elsewhere now."""
        inside = [
            watch for watch, folder in self._folders.items() if folder == relative or folder.startswith(f"{relative}/")
        ]
        for watch in inside:
            del self._folders[watch]
            if self._inotify is not None:
                with contextlib.suppress(OSError):  # it went with its folder already
                    self._inotify.rm_watch(watch)

    def _await_root(self) -> None:
        self._warn("gone", f"{self._root} is gone; it is watched again as soon as it is back.")
        while not Path(self._root).is_dir():
            ready, _, _ = select.select([self._wake_out], [], [], _MISSING_POLL_S)
            if ready:
                return
        self._warned.discard("gone")
        self._take_in("")

    def _warn_exhausted(self, setting: str) -> None:
        self._warn(
            setting,
            f"{setting} is used up; the rest of the folder is scanned every {self._poll_s:g} s instead. "
            f"Raise it: sysctl {setting}=524288",
        )

    def _warn(self, subject: str, text: str) -> None:
        if subject not in self._warned:
            self._warned.add(subject)
            self._tell(Notice(text))

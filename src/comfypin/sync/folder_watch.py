"""Watches a folder and reports what may be new: by events if the kernel has them, else by scans.

Events are a hint, scanning is the truth. A thread reads inotify. New folders are watched first and scanned then, so
that nothing written in between is missed. It scans again after an overflow of the kernel's queue, if watches run out,
and on file systems whose writers are on other machines.
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
from comfypin.sync.folder_scan import Fingerprint, list_files, read_fingerprint, walk_folders

# For file systems that send no events; a file is waited for longer than that anyway.
_POLL_S = 5.0
# A full scan now and then, since events are only a hint.
_RECONCILE_S = 600.0
# A folder that does not exist yet is made by a program that is starting.
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
# The limit that is used up, by the kernel's error; inotify(7) calls ENOSPC a limit, not a full disk.
_EXHAUSTED = {
    errno.EMFILE: "fs.inotify.max_user_instances",
    errno.ENFILE: "fs.inotify.max_user_instances",
    errno.ENOSPC: "fs.inotify.max_user_watches",
}


@dataclass(frozen=True, slots=True)
class FileClosed:
    """Reports a file that was closed after writing, or renamed into place: it is probably complete."""

    path: str


@dataclass(frozen=True, slots=True)
class FileFound:
    """Reports a file found by a scan, or by an event that does not say that it is complete."""

    path: str
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class ScanEnded:
    """Reports the end of a scan of the whole folder; `first` marks the one at the start."""

    first: bool


@dataclass(frozen=True, slots=True)
class SyncNotice:
    """Reports something people should know, in one sentence."""

    text: str


Sighting = FileClosed | FileFound | ScanEnded | SyncNotice


class FolderWatcher:
    """Reports every sighting from its own thread until `stop`."""

    def __init__(self, root_folder: Path, tell: Callable[[Sighting], None], *, poll_s: float = _POLL_S) -> None:
        self._root = os.fspath(root_folder)
        self._report = tell
        self._poll_s = poll_s
        self._folders: dict[int, str] = {}
        self._polled: set[str] = set()
        self._warned: set[str] = set()
        self._inotify: INotify | None = None
        # A pipe, because `poll` can wait for it together with inotify.
        self._wake_out, self._wake_in = os.pipe()
        self._thread = threading.Thread(target=self._watch_folder, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch; the first scan ends with `ScanEnded(first=True)`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after it has reported what it has read."""
        os.write(self._wake_in, b"x")
        self._thread.join()
        os.close(self._wake_in)
        os.close(self._wake_out)

    def _watch_folder(self) -> None:
        try:
            self._inotify = INotify()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._warn_exhausted(_EXHAUSTED[error.errno])
        if not is_local_folder(Path(self._root)):
            # inotify sees only the writers of this machine there.
            self._polled.add("")
        self._watch_tree("")
        self._report(ScanEnded(first=True))
        self._watch_events()
        if self._inotify is not None:
            self._drain_events(self._inotify)
            self._inotify.close()

    def _watch_events(self) -> None:
        # Not `select.select`, which fails for descriptors above 1023.
        file_poll = select.poll()
        file_poll.register(self._wake_out, select.POLLIN)
        if self._inotify is not None:
            file_poll.register(self._inotify, select.POLLIN)
        next_poll_s = time.monotonic() + self._poll_s
        next_reconcile_s = time.monotonic() + _RECONCILE_S
        while True:
            next_due_s = min(next_reconcile_s, next_poll_s) if self._polled else next_reconcile_s
            ready_descriptors = {
                descriptor for descriptor, _ in file_poll.poll(max(0.0, next_due_s - time.monotonic()) * 1000)
            }
            if self._wake_out in ready_descriptors:
                return
            if self._inotify is not None and self._inotify.fileno() in ready_descriptors:
                self._drain_events(self._inotify)
            now_s = time.monotonic()
            if self._polled and now_s >= next_poll_s:
                for subfolder in sorted(self._polled):
                    self._scan_tree(subfolder)
                self._report(ScanEnded(first=False))
                next_poll_s = time.monotonic() + self._poll_s
            if now_s >= next_reconcile_s:
                self._watch_tree("")
                next_reconcile_s = time.monotonic() + _RECONCILE_S

    def _drain_events(self, inotify: INotify) -> None:
        while inotify_events := inotify.read(timeout=0):
            for inotify_event in inotify_events:
                self._handle_event(inotify_event)

    def _handle_event(self, inotify_event: Event) -> None:
        if inotify_event.mask & flags.Q_OVERFLOW:
            self._warn_once(
                "overflow",
                "More changed than the kernel could queue, so the whole folder is scanned again. "
                "Raise fs.inotify.max_queued_events if this happens often.",
            )
            self._watch_tree("")
            return
        subfolder = self._folders.get(inotify_event.wd)
        if inotify_event.mask & flags.IGNORED:
            self._folders.pop(inotify_event.wd, None)
            if subfolder == "":
                self._await_root()
            return
        if subfolder is None or inotify_event.mask & flags.DELETE_SELF:
            return
        relative_path = f"{subfolder}/{inotify_event.name}" if subfolder else inotify_event.name
        if inotify_event.mask & flags.ISDIR:
            if inotify_event.mask & (flags.CREATE | flags.MOVED_TO):
                self._watch_tree(relative_path)
            elif inotify_event.mask & flags.MOVED_FROM:
                self._forget_tree(relative_path)
        elif inotify_event.mask & (flags.CLOSE_WRITE | flags.MOVED_TO):
            self._report(FileClosed(relative_path))
        elif inotify_event.mask & flags.CREATE:
            # A file linked into place has no close event of its own.
            self._report_file(relative_path)

    def _report_file(self, relative_path: str) -> None:
        if (fingerprint := read_fingerprint(self._root, relative_path)) is not None:
            self._report(FileFound(relative_path, fingerprint))

    def _watch_tree(self, top_folder: str) -> None:
        """Watch a folder and all below it, each before it is scanned: what is written in between is seen twice."""
        for subfolder in walk_folders(self._root, top_folder):
            self._add_watch(subfolder)
            for relative_path, fingerprint in list_files(self._root, subfolder):
                self._report(FileFound(relative_path, fingerprint))

    def _scan_tree(self, top_folder: str) -> None:
        for subfolder in walk_folders(self._root, top_folder):
            for relative_path, fingerprint in list_files(self._root, subfolder):
                self._report(FileFound(relative_path, fingerprint))

    def _add_watch(self, subfolder: str) -> None:
        if self._inotify is None or subfolder in self._polled:
            self._polled.add("" if self._inotify is None else subfolder)
            return
        try:
            watch_id = self._inotify.add_watch(os.path.join(self._root, subfolder), _WATCHED)
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                return  # gone again, or closed to us; its parent tells when that changes
            self._warn_exhausted(_EXHAUSTED[error.errno])
            self._polled.add(subfolder)
        else:
            self._folders[watch_id] = subfolder

    def _forget_tree(self, moved_folder: str) -> None:
        """Drop the watches of a folder that was moved away: its files are elsewhere now."""
        moved_watches = [
            watch_id
            for watch_id, subfolder in self._folders.items()
            if subfolder == moved_folder or subfolder.startswith(f"{moved_folder}/")
        ]
        for watch_id in moved_watches:
            del self._folders[watch_id]
            if self._inotify is not None:
                with contextlib.suppress(OSError):  # it went with its folder already
                    self._inotify.rm_watch(watch_id)

    def _await_root(self) -> None:
        self._warn_once("gone", f"{self._root} is gone; it will be watched again when it is back.")
        while not Path(self._root).is_dir():
            ready_descriptors, _, _ = select.select([self._wake_out], [], [], _MISSING_POLL_S)
            if ready_descriptors:
                return
        self._warned.discard("gone")
        self._watch_tree("")

    def _warn_exhausted(self, sysctl_name: str) -> None:
        self._warn_once(
            sysctl_name,
            f"{sysctl_name} is used up; the rest of the folder is scanned every {self._poll_s:g} s instead. "
            f"Raise it: sysctl {sysctl_name}=524288",
        )

    def _warn_once(self, warning_key: str, notice_text: str) -> None:
        if warning_key not in self._warned:
            self._warned.add(warning_key)
            self._report(SyncNotice(notice_text))

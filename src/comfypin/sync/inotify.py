"""Linux's inotify, as thin as it can be: watches, batches of events, and the two ways in which it fails loudly.

ctypes rather than a library: those measured lose the overflow event or the close event (docs/architecture.md).
Source: inotify(7).
"""

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

CLOSE_WRITE = 0x00000008
MOVED_FROM = 0x00000040
MOVED_TO = 0x00000080
CREATE = 0x00000100
DELETE_SELF = 0x00000400
Q_OVERFLOW = 0x00004000
IGNORED = 0x00008000
ISDIR = 0x40000000
_ONLYDIR = 0x01000000
_DONT_FOLLOW = 0x02000000
_EXCL_UNLINK = 0x04000000
_WATCHED = CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE_SELF | _ONLYDIR | _DONT_FOLLOW | _EXCL_UNLINK
_HEADER = struct.Struct("iIII")
_BUFFER_BYTES = 256 << 10


class WatchesExhausted(Exception):
    """The user's inotify watches or instances are used up; `setting` is the sysctl to raise."""

    def __init__(self, setting: str) -> None:
        super().__init__(setting)
        self.setting = setting


@dataclass(frozen=True, slots=True)
class Event:
    """One event: the watch it came from, its mask, and the name in that folder (empty for the folder itself)."""

    watch: int
    mask: int
    name: str


class Inotify:
    """An inotify instance. `fileno()` is readable when `read()` has events."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0:
            code = ctypes.get_errno()
            if code in (errno.EMFILE, errno.ENFILE):
                raise WatchesExhausted("fs.inotify.max_user_instances")
            raise OSError(code, os.strerror(code))

    def fileno(self) -> int:
        """The descriptor, for poll."""
        return int(self._descriptor)

    def add(self, folder: str) -> int:
        """Watch a folder and return the watch's number; the same folder always has the same one.

        Raises `WatchesExhausted`, or `OSError` (it is gone, is no folder, may not be read).
        """
        watch = self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _WATCHED)
        if watch < 0:
            code = ctypes.get_errno()
            if code == errno.ENOSPC:
                raise WatchesExhausted("fs.inotify.max_user_watches")
            raise OSError(code, os.strerror(code), folder)
        return int(watch)

    def remove(self, watch: int) -> None:
        """Stop watching; a watch that is gone already is fine."""
        self._libc.inotify_rm_watch(self._descriptor, watch)

    def read(self) -> list[Event]:
        """All events that are there now; empty when there are none."""
        try:
            data = os.read(self._descriptor, _BUFFER_BYTES)
        except BlockingIOError:
            return []
        events, offset = [], 0
        while offset < len(data):
            watch, mask, _cookie, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            events.append(Event(watch, mask, name))
        return events

    def close(self) -> None:
        """Give the instance back, with its watches."""
        os.close(self._descriptor)

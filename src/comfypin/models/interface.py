"""Defines what pulling a model needs from its source: a source opens a file, and the file reads ranges."""

import threading
import urllib.parse
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from comfypin.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedFile:
    """What the lock says about the bytes; None if it says nothing."""

    sha256: Digest | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """What a source says about a file without giving it: an address that never changes, a name, a digest, a size."""

    uri: str
    filename: str
    sha256: Digest | None = None
    size_bytes: int | None = None
    folder: str | None = None


def hide_secrets(address: str) -> str:
    """Return an address without what may be secret in it: credentials, query, fragment."""
    if "://" not in address:
        return address
    try:
        parts = urllib.parse.urlsplit(address)
    # Not even a URL, so everything that could be a query is cut off.
    except ValueError:
        return address.partition("?")[0]
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class RangeReader(Protocol):
    """Reads the bytes of one range, in order."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill part of the buffer and return how much; 0 at the end of the range. Raises `SourceFailed`."""


class RemoteFile(Protocol):
    """One version of one file at a source.

    `size_bytes` is None if the source does not say; `ranged` says whether `read` may begin anywhere; `validator` names
    the version (an ETag) if the source has such a name; `part_bytes` is the length of a range that is worth asking for.
    """

    part_bytes: int

    @property
    def size_bytes(self) -> int | None: ...

    @property
    def ranged(self) -> bool: ...

    @property
    def validator(self) -> str | None: ...

    def read(self, start: int, length: int | None) -> AbstractContextManager[RangeReader]:
        """Read the bytes from `start`; `length` None means to the end. Raises `SourceFailed`."""

    def abort(self) -> None:
        """End every read in progress, from another thread: reads fail at once instead of waiting for bytes."""

    def close(self) -> None:
        """Release what opening took (a connection with an unread response). Repeatable."""


class ModelSource(Protocol):
    """A kind of source for models, such as the Hugging Face hub or a bucket."""

    def accepts(self, address: str) -> bool:
        """Return whether this source understands the address."""

    def open(self, address: str, expected: ExpectedFile, *, start: int = 0, length: int | None = None) -> RemoteFile:
        """Open the file. `start` and `length` say what will be read first, so that opening can already ask for it.

        Raises `SourceFailed`, or its subclass `SourceUnavailable` if trying again may help.
        """

    def facts(self, address: str) -> SourceFacts:
        """Return what the source says about the file. Raises `SourceFailed`."""


@runtime_checkable
class CachedSource(Protocol):
    """A source that keeps some of its files on this machine, where nobody changes them."""

    def cached(self, address: str, expected: ExpectedFile) -> Path | None:
        """Return the file's path on this machine, or None. Raises `UnknownSource`."""


class PullWatcher(Protocol):
    """Shows how a pull goes; called from many threads."""

    def plan_files(self, sizes: Mapping[str, int | None]) -> None:
        """Show the files that will be looked at, with their sizes if known, before the first one starts."""

    def start_file(self, file_name: str, total_bytes: int | None, resumed_bytes: int) -> None: ...

    def advance_file(self, file_name: str, count: int) -> None: ...

    def end_file(self, file_name: str, outcome: str) -> None: ...


class NullPullWatcher:
    """A watcher that shows nothing."""

    def plan_files(self, sizes: Mapping[str, int | None]) -> None:
        """Do nothing."""

    def start_file(self, file_name: str, total_bytes: int | None, resumed_bytes: int) -> None:
        """Do nothing."""

    def advance_file(self, file_name: str, count: int) -> None:
        """Do nothing."""

    def end_file(self, file_name: str, outcome: str) -> None:
        """Do nothing."""


@dataclass(slots=True)
class StopSwitch:
    """Ends all the work of one pull."""

    _event: threading.Event = field(default_factory=threading.Event)

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)

"""What pulling a model needs to know of where it comes from: a source opens a file, and the file reads ranges."""

import threading
import urllib.parse
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from comfypin.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the lock says of the bytes, as far as it does."""

    sha256: Digest | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """What a source says of a file without giving it: an address that never changes, a name, a digest, a size."""

    uri: str
    filename: str
    sha256: Digest | None = None
    size_bytes: int | None = None
    folder: str | None = None


def shown(uri: str) -> str:
    """An address without what may be secret in it: credentials, query, fragment."""
    if "://" not in uri:
        return uri
    try:
        parts = urllib.parse.urlsplit(uri)
    except ValueError:
        return uri.partition("?")[0]
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class Reader(Protocol):
    """The bytes of one range, in order."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of the buffer and say how much; 0 at the end of the range. Raises `SourceFailed`."""


class RemoteFile(Protocol):
    """One version of one file at a source.

    `size_bytes` is None where the source does not say; `ranged` says whether `read` may begin anywhere; `validator`
    names the version (an ETag) where the source has such a name; `part_bytes` is the length of a range that is worth
    asking for.
    """

    part_bytes: int

    @property
    def size_bytes(self) -> int | None: ...

    @property
    def ranged(self) -> bool: ...

    @property
    def validator(self) -> str | None: ...

    def read(self, start: int, length: int | None) -> AbstractContextManager[Reader]:
        """The bytes from `start`; `length` None means to the end. Raises `SourceFailed`."""

    def abort(self) -> None:
        """End every read that is going on, from another thread: they fail at once instead of waiting for bytes."""

    def close(self) -> None:
        """Give back what opening took (a connection with an answer that nobody read). Repeatable."""


class ModelSource(Protocol):
    """A kind of place that models come from."""

    def accepts(self, uri: str) -> bool:
        """Whether this source understands the address."""

    def open(self, uri: str, wanted: Wanted, *, start: int = 0, length: int | None = None) -> RemoteFile:
        """Open the file. `start` and `length` say what will be read first, so that opening can already ask for it.

        Raises `SourceFailed`; its subclass `SourceUnavailable` where trying again may help.
        """

    def facts(self, uri: str) -> SourceFacts:
        """What the source says of the file. Raises `SourceFailed`."""


@runtime_checkable
class CachedSource(Protocol):
    """A source that keeps some of its files on this machine, where nobody changes them."""

    def cached(self, uri: str, wanted: Wanted) -> Path | None:
        """Where the file lies here, or None. Raises `UnknownSource`."""


class Watcher(Protocol):
    """Who is told how a pull goes; called from many threads."""

    def plan_files(self, sizes: Mapping[str, int | None]) -> None:
        """The files that will be looked at, with their sizes where those are known, before the first is started."""

    def start_file(self, name: str, total_bytes: int | None, resumed_bytes: int) -> None: ...

    def advance_file(self, name: str, count: int) -> None: ...

    def end_file(self, name: str, outcome: str) -> None: ...


class Unwatched:
    """A watcher for when nobody looks."""

    def plan_files(self, sizes: Mapping[str, int | None]) -> None:
        """Nothing to do."""

    def start_file(self, name: str, total_bytes: int | None, resumed_bytes: int) -> None:
        """Nothing to do."""

    def advance_file(self, name: str, count: int) -> None:
        """Nothing to do."""

    def end_file(self, name: str, outcome: str) -> None:
        """Nothing to do."""


@dataclass(slots=True)
class Stop:
    """A switch that ends all the work of one pull."""

    _event: threading.Event = field(default_factory=threading.Event)

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)

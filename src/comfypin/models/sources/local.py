"""Files of this machine as sources: `file://` and plain paths."""

import contextlib
import os
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from comfypin.models.errors import SourceFailed, SourceMissing
from comfypin.models.interface import Reader, SourceFacts, Wanted


class _Range:
    """The bytes of one range of an open file."""

    def __init__(self, descriptor: int, position: int, end: int, uri: str) -> None:
        self._descriptor = descriptor
        self._position = position
        self._end = end
        self._uri = uri

    def readinto(self, buffer: memoryview) -> int:
        wanted = min(len(buffer), self._end - self._position)
        if wanted <= 0:
            return 0
        try:
            count = os.preadv(self._descriptor, [buffer[:wanted]], self._position)
        except OSError as error:
            raise SourceFailed(uri=self._uri, reason=f"it cannot be read ({error.strerror})") from error
        if count == 0:
            raise SourceFailed(uri=self._uri, reason="it became shorter while it was read")
        self._position += count
        return count


class LocalFile:
    """A file of this machine, opened."""

    ranged = True
    part_bytes = 16 << 20

    def __init__(self, path: Path, uri: str) -> None:
        self._path = path
        self._uri = uri
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise SourceMissing(uri=uri, reason="there is no such file here") from error
        except OSError as error:
            raise SourceFailed(uri=uri, reason=f"it cannot be read ({error.strerror})") from error
        if not path.is_file():
            raise SourceFailed(uri=uri, reason="it is not a file")
        self.size_bytes: int | None = status.st_size
        self.validator: str | None = f"{status.st_mtime_ns}-{status.st_size}"

    @contextlib.contextmanager
    def read(self, start: int, length: int | None) -> Iterator[Reader]:
        end = (self.size_bytes or 0) if length is None else start + length
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceFailed(uri=self._uri, reason=f"it cannot be read ({error.strerror})") from error
        try:
            yield _Range(descriptor, start, end, self._uri)
        finally:
            os.close(descriptor)

    def abort(self) -> None:
        """Reads end by themselves soon enough."""

    def close(self) -> None:
        """Nothing is held between reads."""


class LocalSource:
    """`file:///path`, `/path` and `relative/path` (from the current folder)."""

    def accepts(self, uri: str) -> bool:
        return uri.lower().startswith("file:") or "://" not in uri

    def open(self, uri: str, wanted: Wanted, *, start: int = 0, length: int | None = None) -> LocalFile:
        return LocalFile(_path(uri), uri)

    def facts(self, uri: str) -> SourceFacts:
        path = _path(uri).absolute()
        return SourceFacts(uri=str(path), filename=path.name, size_bytes=LocalFile(path, uri).size_bytes)


def _path(uri: str) -> Path:
    if not uri.lower().startswith("file:"):
        return Path(uri).expanduser()
    parts = urllib.parse.urlsplit(uri)
    if parts.netloc not in {"", "localhost"}:
        raise SourceFailed(uri=uri, reason=f"it names another machine ({parts.netloc})")
    return Path(urllib.request.url2pathname(parts.path))

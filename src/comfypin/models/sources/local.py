"""Reads files of this machine as models: `file://` and plain paths."""

import contextlib
import os
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from comfypin.models.errors import SourceFailed, SourceMissing
from comfypin.models.interface import ExpectedFile, RangeReader, SourceFacts


class _FileRange:
    """The bytes of one range of an open file."""

    def __init__(self, descriptor: int, position: int, end: int, address: str) -> None:
        self._descriptor = descriptor
        self._position = position
        self._end = end
        self._uri = address

    def readinto(self, buffer: memoryview) -> int:
        wanted_bytes = min(len(buffer), self._end - self._position)
        if wanted_bytes <= 0:
            return 0
        try:
            # preadv needs no shared position, so several fetchers may read one file.
            byte_count = os.preadv(self._descriptor, [buffer[:wanted_bytes]], self._position)
        except OSError as error:
            raise SourceFailed(uri=self._uri, reason=f"it cannot be read ({error.strerror})") from error
        if byte_count == 0:
            raise SourceFailed(uri=self._uri, reason="it became shorter while it was read")
        self._position += byte_count
        return byte_count


class LocalModelFile:
    """A file of this machine, opened."""

    ranged = True
    part_bytes = 16 << 20

    def __init__(self, file_path: Path, address: str) -> None:
        self._path = file_path
        self._uri = address
        try:
            file_status = file_path.stat()
        except FileNotFoundError as error:
            raise SourceMissing(uri=address, reason="there is no such file here") from error
        except OSError as error:
            raise SourceFailed(uri=address, reason=f"it cannot be read ({error.strerror})") from error
        if not file_path.is_file():
            raise SourceFailed(uri=address, reason="it is not a file")
        self.size_bytes: int | None = file_status.st_size
        # A local file has no ETag; its times and size serve as one.
        self.validator: str | None = f"{file_status.st_mtime_ns}-{file_status.st_size}"

    @contextlib.contextmanager
    def read(self, start: int, length: int | None) -> Iterator[RangeReader]:
        end = (self.size_bytes or 0) if length is None else start + length
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceFailed(uri=self._uri, reason=f"it cannot be read ({error.strerror})") from error
        try:
            yield _FileRange(descriptor, start, end, self._uri)
        finally:
            os.close(descriptor)

    def abort(self) -> None:
        """Reads end by themselves soon enough."""

    def close(self) -> None:
        """Nothing is held between reads."""


class LocalSource:
    """`file:///path`, `/path` and `relative/path` (from the current folder)."""

    def accepts(self, address: str) -> bool:
        return address.lower().startswith("file:") or "://" not in address

    def open(
        self, address: str, expected_file: ExpectedFile, *, start: int = 0, length: int | None = None
    ) -> LocalModelFile:
        return LocalModelFile(_path_of_uri(address), address)

    def facts(self, address: str) -> SourceFacts:
        file_path = _path_of_uri(address).absolute()
        return SourceFacts(
            uri=str(file_path), filename=file_path.name, size_bytes=LocalModelFile(file_path, address).size_bytes
        )


def _path_of_uri(address: str) -> Path:
    if not address.lower().startswith("file:"):
        return Path(address).expanduser()
    url_parts = urllib.parse.urlsplit(address)
    # file://host/path would be read from this machine although it names another.
    if url_parts.netloc not in {"", "localhost"}:
        raise SourceFailed(uri=address, reason=f"it names another machine ({url_parts.netloc})")
    return Path(urllib.request.url2pathname(url_parts.path))

"""A file whose reader is told of every piece: to slow an upload down, or to show how far it is."""

from collections.abc import Callable
from typing import BinaryIO


class Paced:
    """As much of a file as an upload needs. `failure` is what the pace raised, which obstore does not pass on."""

    def __init__(self, file: BinaryIO, pace: Callable[[int], None]) -> None:
        self._file = file
        self._pace = pace
        self.failure: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        """The next bytes, after the pace was told of them."""
        chunk = self._file.read(size)
        if chunk:
            try:
                self._pace(len(chunk))
            except BaseException as exc:
                self.failure = exc
                raise
        return chunk

    def seek(self, offset: int, whence: int = 0) -> int:
        """Where the next read begins."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Where the next read begins."""
        return self._file.tell()

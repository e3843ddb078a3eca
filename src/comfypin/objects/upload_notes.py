"""What this machine has begun to upload in parts: the next delivery of a key aborts what a killed one left behind.

Nobody else could tell: listing unfinished uploads costs money, and a permission that many keys do not have.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_LONGEST_ID_BYTES = 4096


class Note:
    """The note of one key, held by one process. `left` is the upload that another one did not bring to its end."""

    def __init__(self, file: BinaryIO | None) -> None:
        self._file = file
        self.left = file.read(_LONGEST_ID_BYTES).decode(errors="replace") if file else ""
        self.is_owed = False

    def begun(self, upload_id: str) -> None:
        """Write down an upload that is begun now."""
        self.is_owed = True
        self._write(upload_id)

    def ended(self) -> None:
        """Joined or aborted: nothing is left behind."""
        self.is_owed = False

    def _write(self, text: str) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk is no reason to fail: the note is a courtesy
                self._file.seek(0)
                self._file.truncate()
                self._file.write(text.encode())


class UploadNotes:
    """The notes of a machine, in a folder of its local disk; without one, nothing is noted."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @contextmanager
    def of(self, place: str) -> Iterator[Note]:
        """The note of an object's place. One that another process holds, which therefore lives, is left alone."""
        path = None if self._folder is None else self._folder / hashlib.sha256(place.encode()).hexdigest()[:32]
        with _held(path) as file:
            note = Note(file)
            try:
                yield note
            finally:
                if path is not None and file is not None and not note.is_owed:
                    path.unlink(missing_ok=True)


@contextmanager
def _held(path: Path | None) -> Iterator[BinaryIO | None]:
    """The note's file, which is ours alone until we end, however that is; None where it cannot be had."""
    try:
        file = _opened(path) if path is not None else None
    except OSError:
        file = None
    if file is None:
        yield None
        return
    with file:
        yield file


def _opened(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file

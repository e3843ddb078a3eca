"""What this machine has begun to upload in parts: the next upload to a bucket aborts what killed ones left there.

Nobody else could tell: listing unfinished uploads costs money, and a permission that many keys do not have. A note is
locked as long as its process lives.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_LONGEST_NOTE_BYTES = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """An upload that nobody will bring to its end."""

    key: str
    upload_id: str


class Note:
    """The note of one key, held by one process."""

    def __init__(self, file: BinaryIO | None, store: str, key: str) -> None:
        self._file = file
        self._facts = {"store": store, "key": key, "host": os.uname().nodename, "pid": os.getpid()}
        self.is_owed = False

    def begun(self, upload_id: str) -> None:
        """Write down an upload that is begun now."""
        self.is_owed = True
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk is no reason to fail: the note is a courtesy
                self._file.seek(0)
                self._file.truncate()
                self._file.write(json.dumps({**self._facts, "upload_id": upload_id}).encode())

    def ended(self) -> None:
        """Joined or aborted: nothing is left behind."""
        self.is_owed = False


class UploadNotes:
    """The notes of a machine, in a folder of its local disk; without one, nothing is noted."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @contextmanager
    def of(self, store: str, key: str) -> Iterator[Note]:
        """The note of a key for as long as it is uploaded. One that another process holds is left alone."""
        name = hashlib.sha256(f"{store} {key}".encode()).hexdigest()[:32]
        path = None if self._folder is None else self._folder / name
        with _held(path, create=True) as file:
            note = Note(file, store, key)
            try:
                yield note
            finally:
                if path is not None and file is not None and not note.is_owed:
                    path.unlink(missing_ok=True)

    def clear(self, store: str, abort: Callable[[Left], bool]) -> None:
        """Have all uploads aborted that killed processes left in a store; forget those of which `abort` says so."""
        try:
            paths = sorted(self._folder.iterdir()) if self._folder is not None else []
        except OSError:
            return
        for path in paths:
            with _held(path, create=False) as file:
                if file is None:
                    continue
                facts = _read(file)
                if facts is None or (_is_left(facts, store) and abort(_left(facts))):
                    path.unlink(missing_ok=True)


def _read(file: BinaryIO) -> dict[str, object] | None:
    """What a note says; None where it was not written to its end."""
    try:
        facts = json.loads(file.read(_LONGEST_NOTE_BYTES))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and {"store", "key", "host", "pid", "upload_id"} <= facts.keys() else None


def _is_left(facts: dict[str, object], store: str) -> bool:
    """Whether a note's upload was to this store, and its process is no more.

    Its lock says so already, but not on some network file systems, where other machines' notes may lie too.
    """
    if (facts["store"], facts["host"]) != (store, os.uname().nodename):
        return False
    pid = facts["pid"]
    return pid == os.getpid() or not Path(f"/proc/{pid}").exists()


def _left(facts: dict[str, object]) -> Left:
    return Left(key=str(facts["key"]), upload_id=str(facts["upload_id"]))


@contextmanager
def _held(path: Path | None, *, create: bool) -> Iterator[BinaryIO | None]:
    """The note's file, which is ours alone until we end, however that is; None where it cannot be had."""
    try:
        file = _locked(path, create=create) if path is not None else None
    except OSError:
        file = None
    if file is None:
        yield None
        return
    with file:
        yield file


def _locked(path: Path, *, create: bool) -> BinaryIO:
    if create:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    file = os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it may have removed it meanwhile; another one may be in its place.
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise FileNotFoundError(path)
    except OSError:
        file.close()
        raise
    return file

"""Notes this machine's multipart uploads, so that the next upload can abort those that killed processes left.

The bucket could list unfinished uploads, but that costs money and takes a permission that many keys do not have. A
note is locked while its process lives.
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

# A note of ours is a few hundred bytes.
_LONGEST_NOTE_BYTES = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedUpload:
    """An upload that nobody will finish."""

    key: str
    upload_id: str


class UploadNote:
    """Holds the note of one key for one process."""

    def __init__(self, note_file: BinaryIO | None, store_name: str, key: str) -> None:
        self._file = note_file
        self._facts = {"store": store_name, "key": key, "host": os.uname().nodename, "pid": os.getpid()}
        self.is_owed = False

    def note_begun(self, upload_id: str) -> None:
        """Write down an upload that starts now."""
        self.is_owed = True
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk is no reason to fail: the note is a courtesy
                self._file.seek(0)
                self._file.truncate()
                self._file.write(json.dumps({**self._facts, "upload_id": upload_id}).encode())

    def note_ended(self) -> None:
        """Record that the upload was completed or aborted: nothing is left to clean up."""
        self.is_owed = False


class UploadNotes:
    """Keeps a machine's notes in a folder of its local disk; without a folder, it keeps none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @contextmanager
    def open_note(self, store_name: str, key: str) -> Iterator[UploadNote]:
        """Hold the note of a key while it is uploaded. A note that another process holds is left alone."""
        note_name = hashlib.sha256(f"{store_name} {key}".encode()).hexdigest()[:32]
        note_path = None if self._folder is None else self._folder / note_name
        with _hold_note(note_path, create=True) as note_file:
            upload_note = UploadNote(note_file, store_name, key)
            try:
                yield upload_note
            finally:
                if note_path is not None and note_file is not None and not upload_note.is_owed:
                    note_path.unlink(missing_ok=True)

    def abort_unfinished(self, store_name: str, abort: Callable[[UnfinishedUpload], bool]) -> None:
        """Abort what killed processes left in a store; remove the notes for which `abort` returns True."""
        try:
            note_paths = sorted(self._folder.iterdir()) if self._folder is not None else []
        except OSError:
            return
        for note_path in note_paths:
            with _hold_note(note_path, create=False) as note_file:
                if note_file is None:
                    continue
                note_facts = _read_note(note_file)
                if note_facts is None or (_is_abandoned(note_facts, store_name) and abort(_to_unfinished(note_facts))):
                    note_path.unlink(missing_ok=True)


def _read_note(note_file: BinaryIO) -> dict[str, object] | None:
    """Return a note's content; None if it was not written completely."""
    try:
        note_facts = json.loads(note_file.read(_LONGEST_NOTE_BYTES))
    except (OSError, ValueError):
        return None
    return (
        note_facts
        if isinstance(note_facts, dict) and {"store", "key", "host", "pid", "upload_id"} <= note_facts.keys()
        else None
    )


def _is_abandoned(note_facts: dict[str, object], store_name: str) -> bool:
    """Return whether a note's upload was to this store, and its process is dead.

    The lock proves that already, but not on some network file systems, and other machines' notes may be there too.
    """
    if (note_facts["store"], note_facts["host"]) != (store_name, os.uname().nodename):
        return False
    pid = note_facts["pid"]
    # A container's process often gets the same id each time.
    return pid == os.getpid() or not Path(f"/proc/{pid}").exists()


def _to_unfinished(note_facts: dict[str, object]) -> UnfinishedUpload:
    return UnfinishedUpload(key=str(note_facts["key"]), upload_id=str(note_facts["upload_id"]))


@contextmanager
def _hold_note(note_path: Path | None, *, create: bool) -> Iterator[BinaryIO | None]:
    """Yield the note's file, locked for this process until the block ends; None if another holds it."""
    try:
        note_file = _open_locked(note_path, create=create) if note_path is not None else None
    except OSError:
        note_file = None
    if note_file is None:
        yield None
        return
    with note_file:
        yield note_file


def _open_locked(note_path: Path, *, create: bool) -> BinaryIO:
    if create:
        note_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # A child that outlives us must not inherit the lock.
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    note_file = os.fdopen(os.open(note_path, flags, 0o600), "r+b", buffering=0)
    try:
        # The system drops the lock when the process dies, however it dies.
        fcntl.flock(note_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it may have removed it meanwhile; another one may be in its place.
        if not os.path.samestat(os.fstat(note_file.fileno()), note_path.stat()):
            raise FileNotFoundError(note_path)
    except OSError:
        note_file.close()
        raise
    return note_file

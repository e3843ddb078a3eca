"""Keeps an unfinished file: its bytes, and a journal of what arrived, which survives `kill -9` at any moment.

The journal is never believed. It says which parts were written, and what the sha256 of everything before a part's end
was when the bytes arrived (the running hash at that moment, so it costs nothing). Whoever resumes hashes all bytes
again from the disk, compares at every part, and fetches only the parts that do not agree. Parts that were written ahead
of the running hash are used again only by a process of the same boot of the same machine, whose page cache survives.
"""

import contextlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.lease import this_machine

# A journal of another format is not understood, so its file is fetched anew.
FORMAT = 1


@dataclass(slots=True)
class TransferJournal:
    """What a journal says: the file's size, the part size, the parts written, and sha256s of prefixes by their end."""

    size_bytes: int
    part_bytes: int
    validator: str | None = None
    source: str | None = None
    written: set[int] = field(default_factory=set)
    prefixes: dict[int, str] = field(default_factory=dict)


class PartialFile:
    """One unfinished file's folder, `data` and `journal`. One process at a time has it, under a lease."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._journal_path = folder / "journal"
        self._journal: int | None = None
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """Return the open data file's descriptor."""
        if self._descriptor is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        return self._descriptor

    def load_journal(self) -> TransferJournal | None:
        """Return what an earlier process left, or None if there is nothing to continue."""
        try:
            journal_bytes = self._journal_path.read_bytes()
            size = self.data.stat().st_size
        except OSError:
            return None
        # A line without its end was being written when the process died.
        whole_lines = journal_bytes[: journal_bytes.rfind(b"\n") + 1]
        journal = _parse_journal(whole_lines)
        if journal is None or size != journal.size_bytes:
            return None
        if len(whole_lines) != len(journal_bytes):
            # Cut off, or the next line would be glued to the torn one.
            os.truncate(self._journal_path, len(whole_lines))
        return journal

    def begin_session(self, journal: TransferJournal, *, fresh: bool) -> None:
        """Start a session: size the data file, and write whose session it is to the journal."""
        if fresh:
            self.forget_bytes()
            os.ftruncate(self.descriptor, journal.size_bytes)
        self._journal = os.open(self._journal_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        # Each session says on which machine it runs; see `_forget_foreign_parts`.
        self._append_line(
            {
                "format": FORMAT,
                "size": journal.size_bytes,
                "part": journal.part_bytes,
                "machine": this_machine(),
                "validator": journal.validator,
                "source": journal.source,
            }
        )

    @property
    def has_journal(self) -> bool:
        """Return whether another process could continue."""
        return self._journal_path.exists()

    def record_part(self, part_number: int) -> None:
        """Record that a part's bytes are all in the file."""
        self._append_line({"wrote": part_number})

    def record_prefix(self, end: int, prefix: str) -> None:
        """Record the sha256 of all bytes before `end_offset`."""
        self._append_line({"end": end, "sha256": prefix})

    def forget_bytes(self) -> None:
        """Forget everything that was fetched."""
        self.close_files()
        for path in (self._journal_path, self.data):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def close_files(self) -> None:
        """Close the files and keep them."""
        for descriptor in (self._journal, self._descriptor):
            if descriptor is not None:
                os.close(descriptor)
        self._journal = self._descriptor = None

    def discard(self) -> None:
        """Remove the folder and everything in it."""
        self.close_files()
        shutil.rmtree(self.folder, ignore_errors=True)

    def allocated_bytes(self) -> int:
        """Return how many bytes the unfinished file already takes on the disk."""
        try:
            # st_blocks counts what is allocated: the file is sparse, so its size says nothing.
            return self.data.stat().st_blocks * 512
        except OSError:
            return 0

    def _append_line(self, line: dict[str, object]) -> None:
        if self._journal is not None:
            os.write(self._journal, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def _parse_journal(journal_bytes: bytes) -> TransferJournal | None:
    journal: TransferJournal | None = None
    for line_text in journal_bytes.splitlines():
        try:
            journal_line = json.loads(line_text)
            if "format" in journal_line:
                journal = _next_session(journal, journal_line)
            elif journal is not None and "wrote" in journal_line:
                journal.written.add(int(journal_line["wrote"]))
            elif journal is not None:
                journal.prefixes[int(journal_line["end"])] = str(journal_line["sha256"])
        # A journal that makes no sense costs a download, a wrong belief would cost more.
        except (ValueError, KeyError, TypeError):
            return None
    if journal is not None:
        _forget_foreign_parts(journal, journal_bytes)
    return journal


def _next_session(earlier_journal: TransferJournal | None, journal_line: dict[str, object]) -> TransferJournal | None:
    if journal_line["format"] != FORMAT:
        raise ValueError("another format")
    size_bytes, part_index = journal_line["size"], journal_line["part"]
    # Written by us, but a volume is shared and a disk may lie.
    if not isinstance(size_bytes, int) or not isinstance(part_index, int) or size_bytes < 0 or part_index < 1:
        raise ValueError("no sizes")
    if earlier_journal is not None and (earlier_journal.size_bytes, earlier_journal.part_bytes) == (
        size_bytes,
        part_index,
    ):
        return earlier_journal
    validator, source = journal_line.get("validator"), journal_line.get("source")
    return TransferJournal(
        size_bytes=size_bytes,
        part_bytes=part_index,
        validator=str(validator) if validator else None,
        source=str(source) if source else None,
    )


def _forget_foreign_parts(journal: TransferJournal, raw: bytes) -> None:
    """Forget parts that are not hashed, unless their writer shared this machine's page cache."""
    sessions = [json.loads(journal_line) for journal_line in raw.splitlines() if b'"format"' in journal_line]
    this_machine_name = this_machine()
    if this_machine_name and all(session.get("machine") == this_machine_name for session in sessions):
        return
    hashed_bytes = max(journal.prefixes, default=0)
    journal.written = {
        part_index for part_index in journal.written if (part_index + 1) * journal.part_bytes <= hashed_bytes
    }
    if hashed_bytes == journal.size_bytes and hashed_bytes:
        journal.written.add((hashed_bytes - 1) // journal.part_bytes)

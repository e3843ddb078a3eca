"""A file that is not whole yet: its bytes, and a journal of what arrived, which survives `kill -9` at any moment.

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

FORMAT = 1


@dataclass(slots=True)
class Journal:
    """What a journal says: the whole size, the part size, parts that were written, digests of prefixes by their end."""

    size_bytes: int
    part_bytes: int
    validator: str | None = None
    source: str | None = None
    written: set[int] = field(default_factory=set)
    prefixes: dict[int, str] = field(default_factory=dict)


class Partial:
    """The folder of one unfinished file: `data` and `journal`. One process at a time has it, under a lease."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._journal_path = folder / "journal"
        self._journal: int | None = None
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """The open data file."""
        if self._descriptor is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        return self._descriptor

    def load(self) -> Journal | None:
        """What an earlier process left, or None where there is nothing to go on with."""
        try:
            raw = self._journal_path.read_bytes()
            size = self.data.stat().st_size
        except OSError:
            return None
        # A line without its end was being written when the process died.
        whole = raw[: raw.rfind(b"\n") + 1]
        journal = _parse(whole)
        if journal is None or size != journal.size_bytes:
            return None
        if len(whole) != len(raw):
            os.truncate(self._journal_path, len(whole))
        return journal

    def begin(self, journal: Journal, *, fresh: bool) -> None:
        """Start a session: the data file gets its size, the journal says whose session it is."""
        if fresh:
            self.reset()
            os.ftruncate(self.descriptor, journal.size_bytes)
        self._journal = os.open(self._journal_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._append(
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
        """Whether another process could go on."""
        return self._journal_path.exists()

    def wrote(self, part: int) -> None:
        """A part's bytes are all in the file."""
        self._append({"wrote": part})

    def hashed(self, end: int, prefix: str) -> None:
        """The sha256 of all bytes before `end`."""
        self._append({"end": end, "sha256": prefix})

    def reset(self) -> None:
        """Forget everything that was fetched."""
        self.close()
        for path in (self._journal_path, self.data):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def close(self) -> None:
        """Close the files and keep them."""
        for descriptor in (self._journal, self._descriptor):
            if descriptor is not None:
                os.close(descriptor)
        self._journal = self._descriptor = None

    def discard(self) -> None:
        """Remove the folder with all that is in it."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def allocated_bytes(self) -> int:
        """What the unfinished file already takes on the disk."""
        try:
            return self.data.stat().st_blocks * 512
        except OSError:
            return 0

    def _append(self, line: dict[str, object]) -> None:
        if self._journal is not None:
            os.write(self._journal, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def _parse(raw: bytes) -> Journal | None:
    journal: Journal | None = None
    for text in raw.splitlines():
        try:
            line = json.loads(text)
            if "format" in line:
                journal = _next_session(journal, line)
            elif journal is not None and "wrote" in line:
                journal.written.add(int(line["wrote"]))
            elif journal is not None:
                journal.prefixes[int(line["end"])] = str(line["sha256"])
        except (ValueError, KeyError, TypeError):
            return None
    if journal is not None:
        _forget_foreign_parts(journal, raw)
    return journal


def _next_session(before: Journal | None, line: dict[str, object]) -> Journal | None:
    if line["format"] != FORMAT:
        raise ValueError("another format")
    size, part = line["size"], line["part"]
    if not isinstance(size, int) or not isinstance(part, int) or size < 0 or part < 1:
        raise ValueError("no sizes")
    if before is not None and (before.size_bytes, before.part_bytes) == (size, part):
        return before
    validator, source = line.get("validator"), line.get("source")
    return Journal(
        size_bytes=size,
        part_bytes=part,
        validator=str(validator) if validator else None,
        source=str(source) if source else None,
    )


def _forget_foreign_parts(journal: Journal, raw: bytes) -> None:
    """Without a digest, only parts whose writer shared this machine's page cache are worth reading again."""
    sessions = [json.loads(line) for line in raw.splitlines() if b'"format"' in line]
    machine = this_machine()
    if machine and all(session.get("machine") == machine for session in sessions):
        return
    hashed = max(journal.prefixes, default=0)
    journal.written = {part for part in journal.written if (part + 1) * journal.part_bytes <= hashed}
    if hashed == journal.size_bytes and hashed:
        journal.written.add((hashed - 1) // journal.part_bytes)

"""Keeps what an engine prints: the last lines in memory, everything in a file of bounded size."""

import asyncio
import logging
import os
import re
from collections import deque
from pathlib import Path

# What the engine prints, line by line, for those who ask for it with --verbose.
log = logging.getLogger("comfypin.engine.log")

# Enough for a traceback through torch with its frames, and little memory.
_RING_LINES = 400
# Some nodes print a whole prompt, or base64, in one line.
_LINE_CHARACTERS = 2000
# With its predecessor `.1` at most 64 MB of disk for each engine.
_FILE_BYTES = 32 << 20
# What a pipe holds on Linux: one read empties it.
_READ_BYTES = 1 << 16
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# tqdm overwrites its line with \r: only the last state of a progress bar is worth keeping.
_LINE_ENDS = re.compile(r"(\r\n|\n|\r)")


class EngineLog:
    """Keeps the log of one engine, over all its restarts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: deque[str] = deque(maxlen=_RING_LINES)
        self._partial = ""
        self._overwriting = False
        self._unwritable = False

    def last_lines(self, count: int = 20) -> tuple[str, ...]:
        """Return the last lines, oldest first, without colours; of a progress bar only its last state."""
        lines = [*self._lines, self._partial] if self._partial.strip() else [*self._lines]
        return tuple(lines[-count:])

    def clear_lines(self) -> None:
        """Forget the lines in memory, because the engine starts anew."""
        self._lines.clear()
        self._partial, self._overwriting = "", False

    async def follow_pipe(self, descriptor: int) -> None:
        """Read a pipe until its last writer has closed it, then close the descriptor."""
        reader = asyncio.StreamReader(limit=_READ_BYTES)
        stream = os.fdopen(descriptor, "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), stream
        )
        try:
            while chunk := await reader.read(_READ_BYTES):
                self._append_chunk(chunk)
                self._remember_lines(chunk.decode(errors="replace"))
        finally:
            transport.close()

    def _append_chunk(self, chunk: bytes) -> None:
        """Append to the file; a full one becomes `.1`, which replaces the one before.

        A full disk must not stop the reading: an engine blocked in a print would hang.
        """
        try:
            with self.path.open("ab") as file:
                file.write(chunk)
                size_bytes = file.tell()
            if size_bytes > _FILE_BYTES:
                self.path.replace(self.path.with_name(self.path.name + ".1"))
        except OSError as exc:
            # Once: a full disk would otherwise fill the console.
            if not self._unwritable:
                self._unwritable = True
                log.warning("the engine's log cannot be written to %s: %s", self.path, exc.strerror)

    def _remember_lines(self, log_text: str) -> None:
        pieces = _LINE_ENDS.split(_COLOURS.sub("", self._partial + log_text))
        for line, end in zip(pieces[:-1:2], pieces[1::2], strict=True):
            # A line that ended in \r is replaced by the next one, as on a terminal.
            if self._overwriting and self._lines:
                self._lines.pop()
            self._lines.append(line[:_LINE_CHARACTERS])
            self._overwriting = end == "\r"
            if not self._overwriting and line.strip():
                log.info("%s", line[:_LINE_CHARACTERS], extra={"action": "engine_said"})
        # Kept short too: a node may print megabytes without a line end.
        self._partial = pieces[-1][-_LINE_CHARACTERS:]

"""Recognises pickles under any name, by how far a pickle machine would get, without running one."""

import contextlib
import io
import os
import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO, BinaryIO, cast

# Enough for the first entry of a zip and the header of a tar archive.
_HEAD_BYTES = 4096
_SHORT_BYTES = 256  # Python writes no number of more than some thousand digits out
# Opcodes of protocol 0 take a line as their argument; no name is as long as this.
_LONGEST_LINE_BYTES = 16 << 20
# What imports a name or calls something. Random bytes can be a few opcodes, but hardly an import of an identifier.
_IMPORT = re.compile(r": (c|\(?i) +(GLOBAL|INST) +'[A-Za-z_][\w.]* [A-Za-z_][\w.]*'|STACK_GLOBAL|REDUCE|NEWOBJ")
# So many opcodes in a row that fit each other are not an accident.
_OPCODES_ENOUGH = 8


def is_pickle(file_path: Path) -> bool:
    """Return whether a file is a pickle, or an archive of torch around one. Raises `OSError`."""
    with file_path.open("rb") as pickle_file:
        head_bytes = pickle_file.read(_HEAD_BYTES)
        pickle_file.seek(0)
        runs = _runs_as_pickle(pickle_file)
    # torch.save writes a zip since torch 1.6, with the pickle inside.
    if head_bytes.startswith(b"PK\x03\x04"):
        return b".pkl" in head_bytes or _archive_has_pickle(file_path)
    # Tar archives were torch's first format.
    if head_bytes[257:262] == b"ustar":
        return b"pickle" in head_bytes or b".pkl" in head_bytes
    return runs


def _archive_has_pickle(path: Path) -> bool:
    with contextlib.suppress(zipfile.BadZipFile, NotImplementedError, ValueError), zipfile.ZipFile(path) as archive:
        return any(member_name.lower().endswith((".pkl", ".pickle")) for member_name in archive.namelist())
    return False


def _runs_as_pickle(pickle_file: BinaryIO) -> bool:
    """Return whether a pickle machine gets anywhere with this file: to an import, far enough, or to the end.

    Some loaders read several pickles in a row. A few opcodes before an end occur in many files by chance: `N.` is a
    pickle of None.
    """
    size_bytes = os.fstat(pickle_file.fileno()).st_size
    opcodes = 0
    while pickle_file.tell() < size_bytes:
        opcode_lines, did_end = _OpcodeLines(), True
        try:
            # Checks the stack and the memo at every opcode, and stops where the machine would.
            pickletools.dis(cast("IO[bytes]", _SkippingReader(pickle_file, size_bytes)), opcode_lines)
        except Exception:  # noqa: BLE001 - what foreign bytes do to the disassembler is not written down anywhere
            did_end = False
        # The last line is the one that does not fit, or a summary.
        disassembled = opcode_lines.getvalue().splitlines()[:-1]
        opcodes += len(disassembled)
        if (
            opcodes >= _OPCODES_ENOUGH
            or any(map(_IMPORT.search, disassembled))
            or (did_end and " PROTO " in disassembled[0])
        ):
            return True
        if not did_end:
            return False
    return size_bytes > 0


class _SkippingReader:
    """Reads a file for the disassembler, and skips the bytes of long arguments.

    An import may follow a text of any length.
    """

    def __init__(self, pickle_file: BinaryIO, size_bytes: int) -> None:
        self._file = pickle_file
        self._size = size_bytes
        self.tell = pickle_file.tell

    def read(self, byte_count: int) -> bytes:
        if byte_count <= _SHORT_BYTES:
            return self._file.read(byte_count)
        if byte_count > self._size - self._file.tell():
            return b""
        self._file.seek(byte_count, os.SEEK_CUR)
        return _SkippedBytes(byte_count)

    def readline(self) -> bytes:
        return self._file.readline(_LONGEST_LINE_BYTES)


class _SkippedBytes(bytes):
    """Stands for a skipped argument: has its length and none of its bytes."""

    _length: int

    def __new__(cls, length: int) -> "_SkippedBytes":
        passed = super().__new__(cls)
        passed._length = length
        return passed

    def __len__(self) -> int:
        return self._length


class _OpcodeLines(io.StringIO):
    """Collects the disassembler's lines, and stops it when there are enough."""

    def write(self, text: str) -> int:
        written = super().write(text)
        if text == "\n" and self.getvalue().count("\n") > _OPCODES_ENOUGH:
            raise EOFError
        return written

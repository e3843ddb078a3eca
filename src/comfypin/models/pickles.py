"""Pickles under whatever name they come: told by how far a pickle machine would get, without running one."""

import contextlib
import io
import pickletools
import re
import zipfile
from pathlib import Path

_HEAD_BYTES = 4096
# What imports a name or calls something. Random bytes can be a few opcodes, but hardly an import of an identifier.
_IMPORT = re.compile(r": (c|\(?i) +(GLOBAL|INST) +'[A-Za-z_][\w.]* [A-Za-z_][\w.]*'|STACK_GLOBAL|REDUCE|NEWOBJ")
# So many opcodes in a row that fit each other are no accident.
_OPCODES_ENOUGH = 8


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, or an archive of torch around one. Raises `OSError`."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(b"PK\x03\x04"):
        return b".pkl" in head or _archive_has_pickle(path)
    # Tar archives were torch's first format.
    if head[257:262] == b"ustar":
        return b"pickle" in head or b".pkl" in head
    return _runs(head)


def _archive_has_pickle(path: Path) -> bool:
    with contextlib.suppress(zipfile.BadZipFile, NotImplementedError, ValueError), zipfile.ZipFile(path) as archive:
        return any(name.lower().endswith((".pkl", ".pickle")) for name in archive.namelist())
    return False


def _runs(head: bytes) -> bool:
    """Whether a pickle machine gets anywhere with these bytes: to an import, far enough, or to the end of it all.

    Some loaders read several pickles in a row. A mere few opcodes before the end of one are in many a file by chance:
    `N.` is a pickle of None.
    """
    stream = io.BytesIO(head)
    opcodes = 0
    while stream.tell() < len(head):
        said, ended = io.StringIO(), True
        try:
            # Checks the stack and the memo at every opcode, and stops where the machine would.
            pickletools.dis(stream, said)
        except Exception:  # noqa: BLE001 - what foreign bytes do to the disassembler is not written down anywhere
            ended = False
        # The last line is the one that does not fit, or a summary.
        lines = said.getvalue().splitlines()[:-1]
        opcodes += len(lines)
        if opcodes >= _OPCODES_ENOUGH or any(map(_IMPORT.search, lines)) or (ended and " PROTO " in lines[0]):
            return True
        if not ended:
            return False
    return 0 < len(head) < _HEAD_BYTES

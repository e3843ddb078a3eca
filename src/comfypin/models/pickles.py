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
    """Whether a pickle machine gets anywhere with these bytes: to their end, to an import, or far enough."""
    said = io.StringIO()
    try:
        # Checks the stack and the memo at every opcode, and stops where the machine would.
        pickletools.dis(head, said)
    except Exception:  # noqa: BLE001 - what foreign bytes do to the disassembler is not written down anywhere
        # The last line may be the one that does not fit.
        lines = said.getvalue().splitlines()[:-1]
        return len(lines) >= _OPCODES_ENOUGH or any(map(_IMPORT.search, lines))
    return True

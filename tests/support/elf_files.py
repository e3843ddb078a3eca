"""The smallest ELF files that name the libraries which they need."""

import struct
from collections.abc import Sequence

_HEADER_BYTES, _SEGMENT_BYTES = 64, 56


def elf_file(needs: Sequence[str], *, names_at_end: bool = False, filler_bytes: int = 0) -> bytes:
    """Return a shared object of 64 bits; `names_at_end` is what patchelf makes of one, with X in the old place."""
    names, offsets = b"\0", []
    for name in needs:
        offsets.append(len(names))
        names += name.encode() + b"\0"
    names += b"a_symbol\0"
    first_at = _HEADER_BYTES + 2 * _SEGMENT_BYTES
    filler = b"\x90" * filler_bytes
    dynamic_at = first_at + len(names) + len(filler)
    dynamic_bytes = 16 * (len(needs) + 2)
    table_at = dynamic_at + dynamic_bytes if names_at_end else first_at
    dynamic = b"".join(struct.pack("<qQ", 1, offset) for offset in offsets)
    dynamic += struct.pack("<qQ", 5, table_at) + struct.pack("<qQ", 0, 0)
    body = (b"X" * len(names) if names_at_end else names) + filler + dynamic + (names if names_at_end else b"")
    size = first_at + len(body)
    segments = _segment(1, 0, size) + _segment(2, dynamic_at, dynamic_bytes)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, _HEADER_BYTES, 0, 0, _HEADER_BYTES, _SEGMENT_BYTES, 2, 0, 0, 0)
    return header + segments + body


def _segment(kind: int, offset: int, size: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, 4, offset, offset, offset, size, size, 1)

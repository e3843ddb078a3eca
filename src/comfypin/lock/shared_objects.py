"""Reads from ELF files which libraries the dynamic linker must find for them (pure).

https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.dynamic.html
"""

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO

# The list of names is at the beginning of a file that nobody changed after it was linked.
HEADS_BYTES = (256 << 10, 4 << 20)
_MAX_BYTES = 512 << 20
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB = 1, 5
_LIBRARY = re.compile(rb"[A-Za-z0-9_+.-]+\.so(?:\.[0-9]+)*")
# Whatever links to the C library has its name in its table of names.
_KNOWN_NAME = b"\0libc.so.6\0"
_NAMES = re.compile(rb"[\x20-\x7e\0]*")
_EXTENSION_MODULE = re.compile(r"\.(?:cpython-\d+[a-z]*(?:-[\w-]+)?|abi3)\.so$")


def read_needs(file: IO[bytes], size_bytes: int) -> frozenset[str]:
    """Return the names of the libraries that a shared object needs; no more is read than that takes.

    Raises `ValueError` for what is no ELF file of 64 bits, or damaged, or too large.
    """
    head = b""
    for head_bytes in HEADS_BYTES:
        head += file.read(min(size_bytes, head_bytes) - len(head))
        if len(head) >= size_bytes:
            break
        # Decompressing all of a library of 180 MB for twenty names is slow. What patchelf has changed has its names at
        # the end, and X in their old place.
        if head[:4] == b"\x7fELF" and (names := _find_name_table(head)):
            # The file's own name stands there as well; no library is called like a module.
            return frozenset(
                library_name.decode()
                for library_name in names.split(b"\0")
                if library_name[:3] == b"lib" and _LIBRARY.fullmatch(library_name)
            )
    if size_bytes > _MAX_BYTES:
        raise ValueError("a shared object larger than any wheel's")
    head += file.read()
    try:
        return frozenset(_needed_names(head))
    except (struct.error, IndexError) as error:
        raise ValueError(f"not a whole ELF file: {error}") from error


def external_needs(needs_by_path: Mapping[str, Iterable[str]], provided: frozenset[str]) -> frozenset[str]:
    """Return the libraries that importing a wheel needs from elsewhere.

    `provided` are the names of all libraries that wheels bring. Plug-ins that nothing links to are not counted: a
    program may never load them.
    """
    needs_by_name = {path.rpartition("/")[2]: frozenset(needs) for path, needs in needs_by_path.items()}
    waiting = [path.rpartition("/")[2] for path in find_roots(needs_by_path)]
    seen: set[str] = set()
    external: set[str] = set()
    while waiting:
        library_name = waiting.pop()
        if library_name in seen:
            continue
        seen.add(library_name)
        if library_name in needs_by_name:
            waiting += needs_by_name[library_name]
        elif library_name not in provided:
            external.add(library_name)
    return frozenset(external)


def find_roots(paths: Iterable[str]) -> Sequence[str]:
    """Return the shared objects of a wheel that Python loads: its extension modules; without any, all of them."""
    all_paths = sorted(paths)
    modules = [path for path in all_paths if _EXTENSION_MODULE.search(path)]
    # A wheel without modules is loaded by ctypes or by another package, and nobody can see which of its files.
    return modules or all_paths


def has_modules(paths: Iterable[str]) -> bool:
    """Return whether extension modules of Python's are among these files."""
    return any(_EXTENSION_MODULE.search(path) for path in paths)


def is_shared_object(path: str) -> bool:
    """Return whether a file's name is that of a shared object: `x.so`, `libx.so.1.2`."""
    return _LIBRARY.fullmatch(path.rpartition("/")[2].encode()) is not None


def _find_name_table(head: bytes) -> bytes:
    """Return the table of names around a name that nearly every object has, or empty bytes."""
    found_at = head.find(_KNOWN_NAME)
    if found_at < 0:
        return b""
    # Matched from its middle to both ends: a search over zeros by the megabyte would try every beginning.
    before, after = _NAMES.match(head[found_at::-1]), _NAMES.match(head, found_at)
    assert before is not None
    assert after is not None
    # At the end of what was read the table may go on.
    if after.end() == len(head):
        return b""
    return before[0][:0:-1] + after[0]


def _needed_names(content: bytes) -> Iterator[str]:
    if content[:5] != b"\x7fELF\x02":
        raise ValueError("not an ELF file of 64 bits")
    order = "<" if content[5] == 1 else ">"
    (headers_at,) = struct.unpack_from(f"{order}Q", content, 32)
    header_bytes, header_count = struct.unpack_from(f"{order}HH", content, 54)
    segments = [
        struct.unpack_from(f"{order}IIQQQQ", content, headers_at + index * header_bytes)
        for index in range(header_count)
    ]
    dynamic = [
        struct.unpack_from(f"{order}qQ", content, file_offset + at)
        for kind, _, file_offset, _, _, file_bytes in segments
        if kind == _PT_DYNAMIC
        for at in range(0, file_bytes - 15, 16)
    ]
    table_address = next((value for tag, value in dynamic if tag == _DT_STRTAB), None)
    # A static object names no libraries.
    if table_address is None:
        return
    table_at = next(
        table_address - address + file_offset
        for kind, _, file_offset, address, _, file_bytes in segments
        if kind == _PT_LOAD and address <= table_address < address + file_bytes
    )
    for tag, value in dynamic:
        if tag == _DT_NEEDED:
            end = content.index(b"\0", table_at + value)
            yield content[table_at + value : end].decode("ascii", errors="replace")

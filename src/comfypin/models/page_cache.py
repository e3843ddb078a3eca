"""Reads model files ahead into the page cache, in parallel, while the engine still imports its packages.

ComfyUI maps its models into memory and reads them page by page when they are used: from a network volume each fault
waits for the network, one after the other. Whoever has read the file before turns that into a copy from memory.
"""

import contextlib
import ctypes
import mmap
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# A volume answers after milliseconds: so many requests at once hide that at some hundred MB/s.
_THREADS = 8
# Large enough for a network disk's read-ahead, small enough for eight threads at once.
_CHUNK_BYTES = 4 << 20
_MAP_FAILED = ctypes.c_void_p(-1).value


def _load_libc() -> ctypes.CDLL:
    # Python's own mmap does not tell the address.
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    return libc


_LIBC = _load_libc()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAhead:
    """Says what was read: bytes that came from the disk, bytes that memory had already, and the seconds it took."""

    read_bytes: int = 0
    cached_bytes: int = 0
    seconds: float = 0.0


class PageCacheReader:
    """Reads whole files, in the order given, until the budget is used up. Nobody waits for its threads.

    A file that cannot be read is left out: whoever needs it gets the error.
    """

    def __init__(self, file_paths: Sequence[Path], *, budget_bytes: int) -> None:
        """Read these files, at most `budget_bytes` of them in all; `start` begins."""
        self._lock = threading.Lock()
        self._chunks = _list_chunks(file_paths, budget_bytes)
        self._stopped = threading.Event()
        self._began_s = time.monotonic()
        self._ended_s: float | None = None
        self._read_bytes = self._cached_bytes = 0
        # Daemons: a volume that hangs must not keep the process from ending.
        self._threads = [
            threading.Thread(target=self._read_chunks, name=f"read ahead {number}", daemon=True)
            for number in range(_THREADS)
        ]

    def start(self) -> "PageCacheReader":
        """Begin to read."""
        self._began_s = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Read no further; does not wait for the reads that are on their way."""
        self._stopped.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all is read, and return whether it is."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def progress(self) -> ReadAhead:
        """Return what was read so far."""
        with self._lock:
            ended_s = self._ended_s or time.monotonic()
            return ReadAhead(
                read_bytes=self._read_bytes, cached_bytes=self._cached_bytes, seconds=ended_s - self._began_s
            )

    def _read_chunks(self) -> None:
        buffer = bytearray(_CHUNK_BYTES)
        # One descriptor a thread: the kernel keeps its guess of what is read next with the open file.
        with contextlib.ExitStack() as stack:
            open_file: tuple[Path, int] | None = None
            while not self._stopped.is_set() and (chunk := self._next_chunk()) is not None:
                file_path, offset, size_bytes = chunk
                try:
                    if open_file is None or open_file[0] != file_path:
                        stack.close()
                        open_file = (file_path, os.open(file_path, os.O_RDONLY | os.O_CLOEXEC))
                        stack.callback(os.close, open_file[1])
                    is_cached = _is_cached(open_file[1], offset, size_bytes)
                    if not is_cached:
                        _read_chunk(open_file[1], offset, memoryview(buffer)[:size_bytes])
                except OSError:
                    continue
                with self._lock:
                    self._read_bytes += 0 if is_cached else size_bytes
                    self._cached_bytes += size_bytes if is_cached else 0
                    self._ended_s = time.monotonic()

    def _next_chunk(self) -> tuple[Path, int, int] | None:
        with self._lock:
            return next(self._chunks, None)


def _list_chunks(file_paths: Sequence[Path], budget_bytes: int) -> Iterator[tuple[Path, int, int]]:
    """Yield (file, offset, size) for all that the budget covers, file by file: the first is needed first."""
    for file_path in dict.fromkeys(file_paths):
        try:
            file_bytes = file_path.stat().st_size
        except OSError:
            continue
        for offset in range(0, min(file_bytes, budget_bytes), _CHUNK_BYTES):
            yield file_path, offset, min(_CHUNK_BYTES, file_bytes - offset, budget_bytes - offset)
        budget_bytes -= min(file_bytes, budget_bytes)


def _is_cached(descriptor: int, offset: int, size_bytes: int) -> bool:
    """Return whether every page of a chunk is in memory; False if the system cannot say."""
    file_status = os.fstat(descriptor)
    # To others than these mincore says yes to everything, and they must not learn what is in memory.
    if os.geteuid() not in (0, file_status.st_uid):
        return False
    address = _LIBC.mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, offset)
    if address in (None, _MAP_FAILED):
        return False
    pages = (ctypes.c_ubyte * -(-size_bytes // mmap.PAGESIZE))()
    try:
        return _LIBC.mincore(address, size_bytes, pages) == 0 and all(page & 1 for page in pages)
    finally:
        _LIBC.munmap(address, size_bytes)


def _read_chunk(descriptor: int, offset: int, space: memoryview) -> None:
    # All of its pages are asked for at once; without this the kernel asks for 128 KiB after 128 KiB.
    os.posix_fadvise(descriptor, offset, len(space), os.POSIX_FADV_WILLNEED)
    done_bytes = 0
    while done_bytes < len(space) and (read_bytes := os.preadv(descriptor, [space[done_bytes:]], offset + done_bytes)):
        done_bytes += read_bytes

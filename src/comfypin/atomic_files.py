"""Files that are whole or absent: written beside their place, flushed, then renamed into it."""

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO


@contextlib.contextmanager
def atomic_file(path: Path, *, durable: bool = True, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its place when the block ends well.

    `durable` flushes the bytes and the folder to the disk first; without it only readers, not power cuts, see whole
    files. An exception inside the block leaves nothing behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        fsync_folder(path.parent)


def write_atomically(path: Path, data: bytes, *, durable: bool = True, mode: int = 0o644) -> None:
    """Write the whole content of a file, or leave what was there."""
    with atomic_file(path, durable=durable, mode=mode) as file:
        file.write(data)


_BLOCK_BYTES = 256 * 1024
_OF_THREAD = threading.local()


def reading_buffer() -> memoryview:
    """This thread's one buffer for reading files: whoever has it must be done before the thread reads another file.

    A buffer for each file would be mapped, zeroed and unmapped each time, which costs more than hashing a picture.
    """
    buffer: memoryview | None = getattr(_OF_THREAD, "buffer", None)
    if buffer is None:
        buffer = _OF_THREAD.buffer = memoryview(bytearray(_BLOCK_BYTES))
    return buffer


SETTLED_S = 0.1  # file systems round times, to 10 ms or so where they are local


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What changes when a file's bytes do: so that they need not be read again to know that they are the same."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, descriptor: int) -> "FileStamp":
        """The stamp of an open file."""
        facts = os.fstat(descriptor)
        return cls(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)

    def settled(self, now_ns: int) -> bool:
        """Whether a change at `now_ns` or later would show: one right after another may leave the same times."""
        return max(self.mtime_ns, self.ctime_ns) + SETTLED_S * 1e9 < now_ns


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable. File systems that cannot (some network ones) are left as they are."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def contained_path(root: Path, relative: str | PurePosixPath) -> Path:
    """Join a relative name to `root`; `ValueError` where it is absolute, holds a NUL or `..`, or a link leads out."""
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\0" in str(pure) or pure == PurePosixPath("."):
        raise ValueError(f"{str(relative)!r} does not stay inside {root}")
    path = root / pure
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{str(relative)!r} leaves {root} through a link")
    return path


def link_stays_inside(path: str, target: str) -> bool:
    """Whether a link at the relative `path` leads to a place inside the same tree, judged by names alone.

    `..` may only stand at the beginning of the target: after a name it could climb out of where another link led.
    """
    parts = target.split("/")
    climbing = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    if not target or target.startswith("/") or "\0" in target or ".." in parts[climbing:]:
        return False
    return climbing <= path.count("/")


def free_bytes(path: Path) -> int:
    """Free space, in bytes, for this user on the file system that holds `path` or its nearest existing parent."""
    while not path.exists():
        path = path.parent
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


# File systems on which every writer is on this machine, so that events and locks tell the truth.
_LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "overlay", "tmpfs", "zfs", "f2fs", "bcachefs"})


def is_local(folder: Path) -> bool:
    """Whether the folder lies on a file system of this machine alone (False for network volumes and FUSE)."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    kinds = [line.partition(" - ")[2].split()[0] for line in lines if line.split()[2] == wanted]
    return bool(kinds) and kinds[-1] in _LOCAL

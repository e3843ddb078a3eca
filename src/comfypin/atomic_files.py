"""Writes files that are complete or absent: beside their place, flushed, then renamed into it."""

import contextlib
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO


@contextlib.contextmanager
def atomic_file(file_path: Path, *, durable: bool = True, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a temporary file beside `file_path` that takes its place when the block ends well.

    `durable` flushes the bytes and the folder to the disk first; without it only readers, not power cuts, see whole
    files. An exception inside the block leaves nothing behind.
    """
    file_path.parent.mkdir(parents=True, exist_ok=True)
    # The target's name is cut, so that the temporary one does not exceed 255 bytes.
    temp_path = file_path.with_name(f".{file_path.name[:40]}.{secrets.token_hex(6)}.tmp")
    # O_EXCL: a file of that name, put there by somebody else, is never written to.
    descriptor = os.open(temp_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temp_path.replace(file_path)
    except BaseException:
        with contextlib.suppress(OSError):
            temp_path.unlink()
        raise
    if durable:
        fsync_folder(file_path.parent)


def write_atomically(path: Path, data: bytes, *, durable: bool = True, mode: int = 0o644) -> None:
    """Write the whole content of a file, or leave what was there."""
    with atomic_file(path, durable=durable, mode=mode) as file:
        file.write(data)


def list_leftovers(file_path: Path) -> list[Path]:
    """Return the temporary files of `file_path` that are there: of killed writes, or of one that goes on now."""
    temp_name = re.compile(re.escape(f".{file_path.name[:40]}.") + r"[0-9a-f]{12}\.tmp")
    return [found_path for found_path in file_path.parent.iterdir() if temp_name.fullmatch(found_path.name)]


# Large enough that calls cost nothing beside the copying, small enough to be noticed by nobody's memory.
_BLOCK_BYTES = 256 * 1024
_THREAD_LOCAL = threading.local()


def thread_buffer() -> memoryview:
    """Return this thread's one buffer for reading files; be done with it before the thread reads another file.

    A buffer for each file would be mapped, zeroed and unmapped each time, which costs more than hashing a picture.
    """
    buffer: memoryview | None = getattr(_THREAD_LOCAL, "buffer", None)
    if buffer is None:
        buffer = _THREAD_LOCAL.buffer = memoryview(bytearray(_BLOCK_BYTES))
    return buffer


SETTLED_S = 0.1  # file systems round times; local ones to 10 ms or so


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What changes when a file's bytes change, so that they need not be read again."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, descriptor: int) -> "FileStamp":
        """Return the stamp of an open file."""
        file_status = os.fstat(descriptor)
        return cls(
            file_status.st_dev,
            file_status.st_ino,
            file_status.st_size,
            file_status.st_mtime_ns,
            file_status.st_ctime_ns,
        )

    def is_settled(self, now_ns: int) -> bool:
        """Return whether a change at `now_ns` or later would show: one right after another may leave the same times."""
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
    """Join a relative name to `root`; `ValueError` if it is absolute, holds a NUL or `..`, or a link leads out."""
    relative_path = PurePosixPath(relative)
    if (
        relative_path.is_absolute()
        or ".." in relative_path.parts
        or "\0" in str(relative_path)
        or relative_path == PurePosixPath(".")
    ):
        raise ValueError(f"{str(relative)!r} does not stay inside {root}")
    file_path = root / relative_path
    if not file_path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{str(relative)!r} leaves {root} through a link")
    return file_path


def link_stays_inside(path: str, target: str) -> bool:
    """Return whether a link at the relative `path` leads to a path inside the same tree, judged by names alone.

    `..` may only be at the beginning of the target: after a name it could climb out of another link's target.
    """
    target_parts = target.split("/")
    climbing = next((number for number, part in enumerate(target_parts) if part != ".."), len(target_parts))
    if not target or target.startswith("/") or "\0" in target or ".." in target_parts[climbing:]:
        return False
    return climbing <= path.count("/")


def free_bytes(file_path: Path) -> int:
    """Return the free space, in bytes, for this user on the file system that holds the path or its nearest parent."""
    # What is about to be made does not exist yet.
    while not file_path.exists():
        file_path = file_path.parent
    volume_status = os.statvfs(file_path)
    return volume_status.f_bavail * volume_status.f_frsize


# File systems on which every writer is on this machine, so that events and locks tell the truth.
_LOCAL_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "overlay", "tmpfs", "zfs", "f2fs", "bcachefs"})


def is_local_folder(folder: Path) -> bool:
    """Return whether the folder is on a file system of this machine alone (False for network volumes and FUSE)."""
    device = folder.stat().st_dev
    device_number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    file_system_types = [
        mount_line.partition(" - ")[2].split()[0] for mount_line in lines if mount_line.split()[2] == device_number
    ]
    # Of several mounts at one device the last one hides the others.
    return bool(file_system_types) and file_system_types[-1] in _LOCAL_FILE_SYSTEMS

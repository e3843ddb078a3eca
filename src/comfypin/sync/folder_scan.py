"""Reads what is in a folder now: regular files with their fingerprints, and folders; does not follow links."""

import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Holds what changes when a file does: size in bytes, mtime in nanoseconds, inode."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def from_stat(cls, file_status: os.stat_result) -> "Fingerprint":
        """Return the fingerprint in a stat result."""
        return cls(file_status.st_size, file_status.st_mtime_ns, file_status.st_ino)


def read_fingerprint(root_folder: str, relative_path: str) -> Fingerprint | None:
    """Return the fingerprint of a regular file, or None if it is missing or a link."""
    try:
        # `lstat`: a link could lead out of the folder, to files that nobody wanted in a bucket.
        file_status = os.lstat(os.path.join(root_folder, relative_path))
    except OSError:
        return None
    return Fingerprint.from_stat(file_status) if stat.S_ISREG(file_status.st_mode) else None


def walk_folders(root_folder: str, relative_path: str = "") -> Iterator[str]:
    """Yield the folder itself and all below it, parents first, as paths relative to the root."""
    pending_folders = [relative_path]
    while pending_folders:
        subfolder = pending_folders.pop()
        yield subfolder
        try:
            with os.scandir(os.path.join(root_folder, subfolder)) as directory_entries:
                pending_folders += [
                    _join_path(subfolder, directory_entry.name)
                    for directory_entry in directory_entries
                    if directory_entry.is_dir(follow_symlinks=False)
                ]
        except OSError:
            continue  # deleted or closed to us meanwhile; what is in it comes back with the next scan


def list_files(root_folder: str, subfolder: str) -> Iterator[tuple[str, Fingerprint]]:
    """Yield the regular files of one folder (not below it), with their fingerprints."""
    try:
        with os.scandir(os.path.join(root_folder, subfolder)) as directory_entries:
            for directory_entry in directory_entries:
                if directory_entry.is_file(follow_symlinks=False):
                    try:
                        yield (
                            _join_path(subfolder, directory_entry.name),
                            Fingerprint.from_stat(directory_entry.stat(follow_symlinks=False)),
                        )
                    except OSError:
                        continue
    except OSError:
        return


def is_being_written(root_folder: str, relative_path: str) -> bool:
    """Return whether somebody on this machine has the file open for writing, as far as the kernel can tell.

    The kernel grants a read lease only if nobody has. SIGURG, which is ignored by default, replaces SIGIO, whose
    default would end us if a writer came in that very moment. Source: fcntl(2), "Leases".
    """
    try:
        descriptor = os.open(os.path.join(root_folder, relative_path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        import signal

        fcntl.fcntl(descriptor, 10, signal.SIGURG)  # F_SETSIG, which the fcntl module does not name
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False  # not our file, or a file system without leases: the settle time decides
    finally:
        os.close(descriptor)
    return False


def _join_path(subfolder: str, file_name: str) -> str:
    return f"{subfolder}/{file_name}" if subfolder else file_name

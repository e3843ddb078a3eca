"""Hashes what uv has unpacked while it is still at work on other packages.

uv unpacks each wheel aside, renames the folder into its cache, and hard-links its files into the env when all are
there. A file of the env that is the same inode, of the same size and time of change, needs no second reading. Where uv
copies, or keeps its cache in another way, nothing is found ahead and everything is hashed later.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from comfypin.env.manifest import Hashed, Inode, hash_open

_POLL_S = 0.02


class Ahead:
    """While entered, a thread follows uv's cache; `hashed` is what it has come to, complete after leaving."""

    def __init__(self, uv_cache: Path, unpacked: Callable[[str], None] = lambda _: None) -> None:
        """`unpacked` is told of each new folder."""
        self._unpacked = unpacked
        self.hashed: dict[Inode, Hashed] = {}
        self._archives = str(uv_cache / "archive-v0")
        self._seen: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="hash-ahead", daemon=True)

    def __enter__(self) -> "Ahead":
        self._seen.update(_folders(self._archives))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        changed = 0
        while not self._over.wait(_POLL_S):
            # Listed only when something came: a cache that many projects share can hold thousands of wheels.
            before, changed = changed, _changed(self._archives)
            for name in _folders(self._archives) if changed != before else ():
                if name not in self._seen:
                    self._seen.add(name)
                    self._unpacked(f"{self._archives}/{name}")
                    self._hash_folder(f"{self._archives}/{name}")

    def _hash_folder(self, folder: str) -> None:
        for path in _files(folder):
            if self._over.is_set():
                return
            with contextlib.suppress(OSError):
                self._hash(path)

    def _hash(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            status = os.fstat(descriptor)
            sha256 = hash_open(descriptor, status.st_size)
        finally:
            os.close(descriptor)
        self.hashed[status.st_dev, status.st_ino] = Hashed(status.st_size, status.st_mtime_ns, sha256)


def _folders(parent: str) -> list[str]:
    try:
        return os.listdir(parent)  # noqa: PTH208  (names, many times a second)
    except OSError:
        return []


def _changed(parent: str) -> int:
    try:
        return os.stat(parent).st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0


def _files(folder: str) -> Iterator[str]:
    waiting = [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    yield entry.path

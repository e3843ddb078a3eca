"""What was hashed before: digests by (path, size, mtime, inode), so that verifying again reads no model's bytes.

One file of lines that is only appended to, because a volume is shared and has no database: a line that was torn or
written by a newer version is ignored, and a missing line only costs hashing once more.
"""

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from comfypin.digest import Digest
from comfypin.lease import this_machine
from comfypin.models.temp_files import TempFiles

COMPACT_ABOVE_LINES = 2_000


@dataclass(frozen=True, slots=True)
class Known:
    """A file as it was when it was hashed. `machine` is set while its bytes may be in that machine's memory only."""

    size_bytes: int
    mtime_ns: int
    inode: int
    sha256: Digest
    machine: str | None = None


class Ledger:
    """The digests that are known. Safe for threads; processes share it by appending."""

    def __init__(self, path: Path, scratch: TempFiles) -> None:
        self._path = path
        self._root = path.parent
        self._scratch = scratch
        self._known: dict[str, Known] = {}
        self._lines = 0
        self._read: tuple[int, int] = (0, 0)
        self._lock = threading.Lock()

    def digest_of(self, path: Path, status: os.stat_result) -> Digest | None:
        """The digest of a file that has not changed since it was hashed, or None."""
        key = self._key(path)
        with self._lock:
            known = self._known.get(key)
            if known is None or (known.size_bytes, known.mtime_ns, known.inode) != _identity(status):
                # Another process may have hashed it meanwhile.
                known = self._refreshed().get(key)
        if known is None or (known.size_bytes, known.mtime_ns, known.inode) != _identity(status):
            return None
        if known.machine is not None and known.machine != this_machine():
            return None
        return known.sha256

    def record(self, path: Path, status: os.stat_result, digest: Digest, *, on_disk: bool = True) -> None:
        """Remember a digest. `on_disk` False says that a power cut could still take the bytes away."""
        known = Known(*_identity(status), digest, None if on_disk else this_machine())
        key = self._key(path)
        with self._lock:
            table = self._refreshed()
            if table.get(key) == known:
                return
            table[key] = known
            self._lines += 1
            if self._lines > COMPACT_ABOVE_LINES and self._lines > 2 * len(table):
                self._compact(table)
            else:
                self._append(_line(key, known))

    def _append(self, line: bytes) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # One write of less than a page, so that lines of several processes do not mix; begins with a newline
            # because the line before may be torn.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            # A volume that is read only can still be verified, only without memory.
            return
        try:
            os.write(descriptor, b"\n" + line)
        except OSError:
            return
        finally:
            os.close(descriptor)

    def _compact(self, table: dict[str, Known]) -> None:
        live = {key: known for key, known in table.items() if (self._root / key).exists()}
        self._known, self._lines, self._read = live, len(live), (0, 0)
        self._scratch.write_file(self._path, b"\n".join(_line(key, known) for key, known in live.items()))

    def _refreshed(self) -> dict[str, Known]:
        """What is known, with the lines that any process has added since the last look."""
        try:
            status = self._path.stat()
            inode, offset = self._read
            if status.st_ino != inode or status.st_size < offset:
                offset, self._known, self._lines = 0, {}, 0
            if status.st_size > offset:
                with self._path.open("rb") as file:
                    file.seek(offset)
                    self._take(file.read())
                    offset = file.tell()
            self._read = (status.st_ino, offset)
        except OSError:
            # There is none yet, or it cannot be read: files are hashed instead.
            pass
        return self._known

    def _take(self, lines: bytes) -> None:
        for line in lines.split(b"\n"):
            self._lines += 1
            parsed = _parse(line)
            if parsed is not None:
                self._known[parsed[0]] = parsed[1]

    def _key(self, path: Path) -> str:
        # Relative, because one volume has two names: /workspace on a pod, /runpod-volume on serverless.
        return os.path.relpath(path, self._root)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _line(key: str, known: Known) -> bytes:
    values = [key, known.size_bytes, known.mtime_ns, known.inode, known.sha256.hex, known.machine]
    return json.dumps(values, separators=(",", ":")).encode()


def _parse(line: bytes) -> tuple[str, Known] | None:
    if not line.startswith(b"["):
        return None
    try:
        key, size, mtime, inode, digest, machine = json.loads(line)
        return str(key), Known(int(size), int(mtime), int(inode), Digest(digest), machine)
    except (ValueError, TypeError):
        return None

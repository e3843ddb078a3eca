"""Digests of large files, remembered by path, size, mtime and inode, so that no file is hashed twice unchanged."""

import json
import threading
from pathlib import Path

from comfypin.atomic_files import write_atomically
from comfypin.digest import Digest


class DigestCache:
    """A file of digests. Damaged, it is an empty one: it only saves time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}
        try:
            known = json.loads(path.read_bytes())
            self._known = {str(key): str(value) for key, value in known.items()}
        except (OSError, ValueError, AttributeError):
            self._known = {}

    def digest_of(self, path: Path) -> Digest:
        """The sha256 of a file; of a file that changes while it is read, that of what was read."""
        before = path.stat()
        key = f"{path.resolve()}|{before.st_size}|{before.st_mtime_ns}|{before.st_ino}"
        with self._lock:
            known = self._known.get(key)
        if known is not None:
            try:
                return Digest(known)
            except ValueError:
                pass
        digest = Digest.of_file(path)
        after = path.stat()
        if (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
            with self._lock:
                self._known[key] = digest.hex
        return digest

    def save(self) -> None:
        """Write what was learned."""
        with self._lock:
            data = json.dumps(self._known, sort_keys=True).encode()
        write_atomically(self._path, data, durable=False)

"""Remembers digests by (path, size, mtime, inode), so that an unchanged file is not hashed twice.

One file of lines that is only appended to, because a volume is shared and has no database. It only saves time: a line
that was torn or written by a newer version is ignored, and a missing line costs hashing once more.

Two more places are asked, each optional: a spare cache elsewhere, which is written to while the first one is read-only,
and receipts, which travel with files to other machines, as in the layers of an image. Files have other inodes there, so
a receipt holds for the path with its size and mtime.
"""

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from comfypin.atomic_files import write_atomically
from comfypin.digest import Digest
from comfypin.lease import this_machine

# Each change adds a line; rewriting on every change would cost more than hashing small files.
COMPACT_ABOVE_LINES = 2_000
FileIdentity = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A file as it was when it was hashed. `machine` is set while its bytes may be only in that machine's memory."""

    size_bytes: int
    mtime_ns: int
    inode: int
    sha256: Digest
    machine: str | None = None

    @property
    def identity(self) -> FileIdentity:
        """Return what `identify_file` said of the file."""
        return self.size_bytes, self.mtime_ns, self.inode


def write_quickly(path: Path, content: bytes) -> None:
    """Write a whole file without waiting for the disk."""
    write_atomically(path, content, durable=False)


class DigestCache:
    """The known digests, in one file. Safe for threads; processes share the file by appending to it."""

    def __init__(
        self,
        path: Path,
        *,
        write_file: Callable[[Path, bytes], None] = write_quickly,
        root: Path | None = None,
        spare: "DigestCache | None" = None,
        receipts: Path | None = None,
    ) -> None:
        """Use the cache at `path`; `write_file` replaces it as a whole, once it has grown too long.

        Paths are noted relative to `root`, by default the cache's folder. `receipts` is a folder of `write_receipt`.
        """
        self._path = path
        self._root = path.parent if root is None else root
        self._write_file = write_file
        self._spare = spare
        self._receipts_folder = receipts
        self._receipts: dict[str, HashedFile] | None = None
        self._known: dict[str, HashedFile] = {}
        self._lines = 0
        self._read_to: tuple[int, int] = (0, 0)
        self._lock = threading.Lock()

    def digest_of(self, file_path: Path, *, read_all_bytes: bool = False) -> Digest:
        """Return a file's digest, hashing it if it is unknown or `read_all_bytes` is set. Raises `OSError`.

        The digest of a file that changes while it is read is that of what was read.
        """
        status_before = file_path.stat()
        if not read_all_bytes and (known_digest := self.known_digest(file_path, status_before)) is not None:
            return known_digest
        digest = Digest.of_file(file_path)
        status_after = file_path.stat()
        if identify_file(status_before) == identify_file(status_after):
            self.record_digest(file_path, status_after, digest)
        return digest

    def known_digest(self, file_path: Path, file_status: os.stat_result) -> Digest | None:
        """Return the digest of a file that has not changed since it was hashed, or None."""
        key, identity = self._key_of(file_path), identify_file(file_status)
        with self._lock:
            hashed_file = self._known.get(key)
            if hashed_file is None or hashed_file.identity != identity:
                # Another process may have hashed it meanwhile.
                hashed_file = self._refresh().get(key)
        # Bytes that were never flushed may look different to another machine, or after a power cut.
        if (
            hashed_file is not None
            and hashed_file.identity == identity
            and hashed_file.machine in (None, this_machine())
        ):
            return hashed_file.sha256
        spare_digest = None if self._spare is None else self._spare.known_digest(file_path, file_status)
        return spare_digest or self._receipt_digest(key, identity)

    def record_digest(
        self, file_path: Path, file_status: os.stat_result, digest: Digest, *, on_disk: bool = True
    ) -> None:
        """Remember a digest. `on_disk` False says that a power cut could still take the bytes away."""
        hashed_file = HashedFile(*identify_file(file_status), digest, None if on_disk else this_machine())
        key = self._key_of(file_path)
        with self._lock:
            table = self._refresh()
            if table.get(key) == hashed_file:
                return
            table[key] = hashed_file
            self._lines += 1
            is_long = self._lines > COMPACT_ABOVE_LINES and self._lines > 2 * len(table)
            if is_long and self._compact(table):
                return
            is_written = self._append_line(_format_line(key, hashed_file))
        if not is_written and self._spare is not None:
            self._spare.record_digest(file_path, file_status, digest, on_disk=on_disk)

    def _receipt_digest(self, key: str, identity: FileIdentity) -> Digest | None:
        with self._lock:
            if self._receipts is None:
                # Read once: they were there before this process.
                self._receipts = _read_receipts(self._receipts_folder)
            receipt = self._receipts.get(key)
        return receipt.sha256 if receipt is not None and receipt.identity[:2] == identity[:2] else None

    def _append_line(self, line: bytes) -> bool:
        """Add a line; return False if the cache cannot be written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # One write of less than a page, so that lines of several processes do not mix; begins with a newline
            # because the line before may be torn.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            # A read-only volume can still be verified.
            return False
        try:
            os.write(descriptor, b"\n" + line)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _compact(self, table: dict[str, HashedFile]) -> bool:
        """Write the file anew without what is gone; return False if it cannot be written."""
        living = {key: hashed_file for key, hashed_file in table.items() if (self._root / key).exists()}
        content = b"\n".join(_format_line(key, hashed_file) for key, hashed_file in living.items())
        try:
            self._write_file(self._path, content)
        except OSError:
            # A read-only volume can still be verified, and a full one.
            return False
        self._known, self._lines, self._read_to = living, len(living), (0, 0)
        return True

    def _refresh(self) -> dict[str, HashedFile]:
        """Return what is known, with the lines that any process has added since the last look."""
        try:
            status = self._path.stat()
            inode, offset = self._read_to
            # Another process has compacted the file: begin anew.
            if status.st_ino != inode or status.st_size < offset:
                offset, self._known, self._lines = 0, {}, 0
            if status.st_size > offset:
                with self._path.open("rb") as file:
                    file.seek(offset)
                    self._take_lines(file.read())
                    offset = file.tell()
            self._read_to = (status.st_ino, offset)
        except OSError:
            # It does not exist yet, or cannot be read: files are hashed instead.
            pass
        return self._known

    def _take_lines(self, content: bytes) -> None:
        for line in content.split(b"\n"):
            self._lines += 1
            parsed = _parse_line(line)
            if parsed is not None:
                key, hashed_file = parsed
                self._known[key] = hashed_file

    def _key_of(self, file_path: Path) -> str:
        # Relative, because one volume has two names: /workspace on a pod, /runpod-volume on serverless.
        return os.path.relpath(file_path, self._root)


def identify_file(file_status: os.stat_result) -> FileIdentity:
    """Return what changes when a file is written or replaced."""
    return file_status.st_size, file_status.st_mtime_ns, file_status.st_ino


def write_receipt(folder: Path, file_path: Path, digest: Digest, *, root: Path) -> Path:
    """Write the receipt of a file that was hashed and will not change any more, its mtime included; return its path."""
    file_status = file_path.stat()
    # Its inode is another one wherever the file is unpacked.
    hashed_file = HashedFile(file_status.st_size, file_status.st_mtime_ns, 0, digest)
    receipt_path = folder / digest.hex
    folder.mkdir(parents=True, exist_ok=True)
    write_quickly(receipt_path, _format_line(os.path.relpath(file_path, root), hashed_file) + b"\n")
    return receipt_path


def _read_receipts(folder: Path | None) -> dict[str, HashedFile]:
    known: dict[str, HashedFile] = {}
    try:
        receipt_paths = [] if folder is None else list(folder.iterdir())
        for receipt_path in receipt_paths:
            if (parsed := _parse_line(receipt_path.read_bytes().strip())) is not None:
                known[parsed[0]] = parsed[1]
    except OSError:
        # There are none, or they cannot be read: files are hashed instead.
        pass
    return known


def _format_line(key: str, hashed_file: HashedFile) -> bytes:
    values = [key, *hashed_file.identity, hashed_file.sha256.hex, hashed_file.machine]
    return json.dumps(values, separators=(",", ":")).encode()


def _parse_line(line: bytes) -> tuple[str, HashedFile] | None:
    if not line.startswith(b"["):
        return None
    try:
        key, size_bytes, mtime_ns, inode, sha256, machine = json.loads(line)
        return str(key), HashedFile(int(size_bytes), int(mtime_ns), int(inode), Digest(sha256), machine)
    except (ValueError, TypeError):
        return None

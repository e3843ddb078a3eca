"""Bytes by their blake3 hash in a folder: whole or absent, whatever is killed meanwhile."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from comfypin.atomic_files import fsync_folder

_HASH_PREFIX = "blake3:"
_HEX_DIGITS = 64
# Uploads are hashed while they come; one block of each is in memory.
_READ_BYTES = 1 << 20
_INCOMING = "incoming"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """Bytes that have arrived, flushed to the disk, and not yet under their name."""

    path: Path
    hash: str
    size_bytes: int


class IncomingFile:
    """A file that grows while bytes come, hashed on the way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb"
        )
        self._hasher = blake3()
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """Add bytes. Raises `OSError`."""
        self._hasher.update(data)
        self._file.write(data)
        self.size_bytes += len(data)

    def finish(self) -> Incoming:
        """Flush all of it to the disk. Raises `OSError`."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return Incoming(path=self._path, hash=f"{_HASH_PREFIX}{self._hasher.hexdigest()}", size_bytes=self.size_bytes)

    def discard(self) -> None:
        """Remove the file, if it has not been given its place."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()


class BlobFolder:
    """The folder. All of it blocks, so it is meant for threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        (root / _INCOMING).mkdir(parents=True, exist_ok=True, mode=0o700)
        # All now, so that none need be flushed into this folder when the first bytes come into it.
        for number in range(256):
            (root / f"{number:02x}").mkdir(exist_ok=True, mode=0o700)
        fsync_folder(root)

    def open(self) -> IncomingFile:
        """Begin a new file. Raises `OSError`."""
        return IncomingFile(self._root / _INCOMING / secrets.token_hex(12))

    def copy(self, source: Path) -> Incoming:
        """Bring a file's bytes in. Raises `OSError`."""
        incoming = self.open()
        try:
            with source.open("rb", buffering=0) as file:
                while chunk := file.read(_READ_BYTES):
                    incoming.write(chunk)
            return incoming.finish()
        except BaseException:
            incoming.discard()
            raise

    def place(self, incoming: Incoming) -> bool:
        """Give bytes their name; returns whether they are new here. Raises `OSError`."""
        path = self.path(incoming.hash)
        is_new = not path.exists()
        if is_new:
            incoming.path.replace(path)
            fsync_folder(path.parent)
        else:
            incoming.path.unlink(missing_ok=True)
        return is_new

    def place_all(self, arrived: Sequence[Incoming]) -> None:
        """Give the bytes of several files their names. Raises `OSError`."""
        for incoming in arrived:
            self.place(incoming)

    def path(self, hash_: str) -> Path:
        """Return where the bytes of this hash are, if they are here."""
        digits = hash_.removeprefix(_HASH_PREFIX)
        return self._root / digits[:2] / digits

    def keep_only(self, hashes: set[str]) -> int:
        """Remove all other bytes; returns how many files that were. What is still coming in stays."""
        kept_hashes = {hash_.removeprefix(_HASH_PREFIX) for hash_ in hashes}
        removed = 0
        for path in self._root.glob("??/*"):
            if path.name not in kept_hashes:
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed += 1
        return removed

    def forget_incoming(self) -> None:
        """Remove what was coming in when the last server ended."""
        for path in (self._root / _INCOMING).iterdir():
            with contextlib.suppress(OSError):
                path.unlink()

    def read(self, hash_: str) -> Iterator[bytes]:
        """Read the bytes of a hash in pieces. Raises `OSError`."""
        with self.path(hash_).open("rb", buffering=0) as file:
            while chunk := file.read(_READ_BYTES):
                yield chunk


def is_hash(hash_text: str) -> bool:
    """Return whether a text is `blake3:` and 64 lower-case hexadecimal digits."""
    digits = hash_text.removeprefix(_HASH_PREFIX)
    is_hex = len(digits) == _HEX_DIGITS and all(digit in "0123456789abcdef" for digit in digits)
    return hash_text.startswith(_HASH_PREFIX) and is_hex

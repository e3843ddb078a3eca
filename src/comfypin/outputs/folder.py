"""Outputs as files on this machine: by their own names in a folder, or under one name that the user gave."""

import asyncio
import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from comfypin.atomic_files import atomic_file, contained_path, fsync_folder
from comfypin.digest import CHUNK_BYTES, Digest
from comfypin.outputs.errors import FolderUnusable, OutputChanged, OutputNotWritten, OutputUnreadable, not_written
from comfypin.outputs.file_names import candidates, safe_name
from comfypin.outputs.interface import Delivery, JobFacts, Output


class FolderSink:
    """Writes every output by its name into a folder, replacing nothing that holds other bytes.

    A name that is taken by other bytes counts on as ComfyUI's own names do. The same bytes under the same name are
    left as they are, so that a delivery can be repeated.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @classmethod
    def usable(cls, root: Path) -> "FolderSink":
        """A sink for a folder that is there, or can be made, and takes files. Raises `FolderUnusable`."""
        _require_folder(root, flag="--out-dir", named=root)
        return cls(root)

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        """Write the outputs. Raises `OutputNotWritten`, `OutputUnreadable`, `OutputChanged`."""
        return await asyncio.to_thread(self._write_all, outputs)

    def _write_all(self, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        taken: set[Path] = set()
        deliveries: list[Delivery] = []
        for output in outputs:
            delivered = tuple(str(delivery.uri) for delivery in deliveries)
            with _failures_named(output, self._root, delivered):
                path = self._write(output, taken)
            taken.add(path)
            deliveries.append(Delivery(output=output, uri=str(path)))
        return tuple(deliveries)

    def _write(self, output: Output, taken: set[Path]) -> Path:
        wanted = self._place_for(output)
        wanted.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_copy(output, wanted) as temporary:
            for name in candidates(PurePosixPath(wanted.name)):
                path = wanted.with_name(name.name)
                if path not in taken and _holds(path, output):
                    return path
                with contextlib.suppress(FileExistsError):
                    _place(temporary, path)
                    fsync_folder(path.parent)
                    return path
        raise AssertionError("candidates never end")

    def _place_for(self, output: Output) -> Path:
        name = safe_name(output.filename, output.subfolder)
        try:
            return contained_path(self._root, name)
        except ValueError as exc:
            # A link in the folder that leads elsewhere: whoever made it did not mean our names.
            reason = "a symbolic link there leads out of the folder"
            advice = "Remove the link, or choose another --out-dir."
            raise OutputNotWritten(
                filename=str(name), folder=self._root, reason=reason, advice=advice, delivered=()
            ) from exc


class FileSink:
    """Writes the first output to one file, and any further ones beside it as `NAME-2`, `NAME-3`, ...

    The user named the file, so what was there is replaced; further outputs keep their own suffixes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def usable(cls, path: Path) -> "FileSink":
        """A sink for a file that can be made. Raises `FolderUnusable`."""
        if path.is_dir():
            raise FolderUnusable(
                path=path, flag="--out-file", reason="it is a folder (--output file --out-dir takes one)"
            )
        _require_folder(path.parent, flag="--out-file", named=path)
        return cls(path)

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        """Write the outputs. Raises `OutputNotWritten`, `OutputUnreadable`, `OutputChanged`."""
        return await asyncio.to_thread(self._write_all, outputs)

    def _write_all(self, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        deliveries: list[Delivery] = []
        for position, output in enumerate(outputs):
            path = self._path if position == 0 else self._further(position + 1, output)
            delivered = tuple(str(delivery.uri) for delivery in deliveries)
            with _failures_named(output, path.parent, delivered), atomic_file(path) as file:
                _copy_verified(output, file)
            deliveries.append(Delivery(output=output, uri=str(path)))
        return tuple(deliveries)

    def _further(self, number: int, output: Output) -> Path:
        suffix = PurePosixPath(safe_name(output.filename).name).suffix
        return self._path.with_name(f"{self._path.stem}-{number}{suffix}")


def _require_folder(folder: Path, *, flag: str, named: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".comfypin-{secrets.token_hex(6)}.tmp"
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        probe.unlink()
    except OSError as exc:
        # A full disk is told at the write, with the output's name; here only the place is judged.
        reason = (exc.strerror or str(exc)).lower()
        if isinstance(exc, FileExistsError | NotADirectoryError):
            reason = "a file is in the way"
        raise FolderUnusable(path=named, flag=flag, reason=reason) from exc


@contextlib.contextmanager
def _failures_named(output: Output, folder: Path, delivered: tuple[str, ...]) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise not_written(exc, filename=output.filename, folder=folder, delivered=delivered) from exc


@contextlib.contextmanager
def _temporary_copy(output: Output, wanted: Path) -> Iterator[Path]:
    """The output's verified bytes, flushed, beside the place they are wanted at; gone when the block ends."""
    temporary = wanted.with_name(f".{wanted.name[:40]}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _copy_verified(output, file)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _copy_verified(output: Output, file: BinaryIO) -> None:
    hasher = hashlib.sha256()
    try:
        source = output.path.open("rb", buffering=0)
    except OSError as exc:
        raise OutputUnreadable(filename=output.filename, node_id=output.node_id, reason=str(exc)) from exc
    with source:
        while chunk := source.read(CHUNK_BYTES):
            hasher.update(chunk)
            file.write(chunk)
    if (actual := hasher.hexdigest()) != output.sha256.hex:
        raise OutputChanged(filename=output.filename, expected=output.sha256.hex, actual=actual)


def _holds(path: Path, output: Output) -> bool:
    try:
        return path.is_file() and path.stat().st_size == output.size_bytes and Digest.of_file(path) == output.sha256
    except OSError:
        return False


def _place(temporary: Path, path: Path) -> None:
    """Give the file its name, atomically, without replacing anything. Raises `FileExistsError`."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links: the best it offers is to look first.
        if path.exists() or path.is_symlink():
            raise FileExistsError(path) from None
        temporary.replace(path)

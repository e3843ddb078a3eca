"""Delivers outputs as files on this machine: by their own names in a folder, or under one name that the user gave."""

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
from comfypin.outputs.errors import (
    FolderUnusable,
    OutputChanged,
    OutputNotWritten,
    OutputUnreadable,
    not_written,
    reason_without_path,
)
from comfypin.outputs.file_names import candidate_names, safe_name
from comfypin.outputs.interface import Delivery, JobFacts, Output


class FolderSink:
    """Writes every output by its name into a folder, replacing nothing that holds other bytes.

    If other bytes have the name, the next free number is added, as in ComfyUI's own names. The same bytes under
    the same name are left as they are, so that a delivery can be repeated.
    """

    def __init__(self, root_folder: Path) -> None:
        self._root = root_folder

    @classmethod
    def open_usable(cls, root_folder: Path, *, flag: str = "--out-dir") -> "FolderSink":
        """Return a sink for a folder that exists, or can be made, and takes files. Raises `FolderUnusable`."""
        _require_folder(root_folder, flag=flag, named_path=root_folder)
        return cls(root_folder)

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        """Write the outputs. Raises `OutputNotWritten`, `OutputUnreadable`, `OutputChanged`."""
        return await asyncio.to_thread(self._write_all, outputs)

    def _write_all(self, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        taken_paths: set[Path] = set()
        deliveries: list[Delivery] = []
        for output in outputs:
            delivered_uris = tuple(str(delivery.uri) for delivery in deliveries)
            with _translate_failures(output, self._root, delivered_uris):
                file_path = self._write_output(output, taken_paths)
            taken_paths.add(file_path)
            deliveries.append(Delivery(output=output, uri=str(file_path)))
        return tuple(deliveries)

    def _write_output(self, output: Output, taken_paths: set[Path]) -> Path:
        wanted_path = self._target_path(output)
        wanted_path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_copy(output, wanted_path) as temporary_path:
            for candidate in candidate_names(PurePosixPath(wanted_path.name)):
                file_path = wanted_path.with_name(candidate.name)
                # The same bytes are there already: a repeated delivery changes nothing.
                if file_path not in taken_paths and _holds_output(file_path, output):
                    return file_path
                with contextlib.suppress(FileExistsError):
                    _link_into_place(temporary_path, file_path)
                    fsync_folder(file_path.parent)
                    return file_path
        raise AssertionError("candidates never end")

    def _target_path(self, output: Output) -> Path:
        relative_path = safe_name(output.filename, output.subfolder)
        try:
            return contained_path(self._root, relative_path)
        except ValueError as exception:
            # A symbolic link in the folder leads out of it.
            reason = "a symbolic link there leads out of the folder"
            advice = "Remove the link, or choose another folder."
            raise OutputNotWritten(
                filename=str(relative_path), folder=self._root, reason=reason, advice=advice, delivered=()
            ) from exception


class FileSink:
    """Writes the first output to one file, and any further ones beside it as `NAME-2`, `NAME-3`, ...

    The user named the file, so what was there is replaced; further outputs keep their own suffixes.
    """

    def __init__(self, file_path: Path) -> None:
        self._path = file_path

    @classmethod
    def open_usable(cls, file_path: Path) -> "FileSink":
        """Return a sink for a file that can be made. Raises `FolderUnusable`."""
        if file_path.is_dir():
            advice = "Name a file in it, or give the folder with --out-dir"
            raise FolderUnusable(path=file_path, flag="--out-file", reason="it is a folder", _advice=advice)
        _require_folder(file_path.parent, flag="--out-file", named_path=file_path)
        return cls(file_path)

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        """Write the outputs. Raises `OutputNotWritten`, `OutputUnreadable`, `OutputChanged`."""
        return await asyncio.to_thread(self._write_all, outputs)

    def _write_all(self, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        deliveries: list[Delivery] = []
        for position, output in enumerate(outputs):
            file_path = self._path if position == 0 else self._numbered_path(position + 1, output)
            delivered_uris = tuple(str(delivery.uri) for delivery in deliveries)
            with _translate_failures(output, file_path.parent, delivered_uris), atomic_file(file_path) as target_file:
                _copy_verified(output, target_file)
            deliveries.append(Delivery(output=output, uri=str(file_path)))
        return tuple(deliveries)

    def _numbered_path(self, number: int, output: Output) -> Path:
        suffix = PurePosixPath(safe_name(output.filename).name).suffix
        return self._path.with_name(f"{self._path.stem}-{number}{suffix}")


def _require_folder(folder: Path, *, flag: str, named_path: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Only writing shows whether a folder takes files: its mode knows nothing of mount options and quotas.
        probe_path = folder / f".comfypin-{secrets.token_hex(6)}.tmp"
        os.close(os.open(probe_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        probe_path.unlink()
    except OSError as exception:
        # A full disk is reported at the write, with the output's name; only the folder is checked here.
        reason = (exception.strerror or str(exception)).lower()
        if isinstance(exception, FileExistsError | NotADirectoryError):
            reason = "a file is in the way"
        raise FolderUnusable(path=named_path, flag=flag, reason=reason) from exception


@contextlib.contextmanager
def _translate_failures(output: Output, folder: Path, delivered_uris: tuple[str, ...]) -> Iterator[None]:
    try:
        yield
    except OSError as exception:
        raise not_written(exception, filename=output.filename, folder=folder, delivered=delivered_uris) from exception


@contextlib.contextmanager
def _temporary_copy(output: Output, wanted_path: Path) -> Iterator[Path]:
    """Yield the path of a verified, flushed copy beside the wanted path; it is removed when the block ends."""
    # The name may be as long as file systems take, so only its beginning is used.
    temporary_path = wanted_path.with_name(f".{wanted_path.name[:40]}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(temporary_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as target_file:
            _copy_verified(output, target_file)
            target_file.flush()
            # After a power cut no name may lead to an empty file.
            os.fsync(target_file.fileno())
        yield temporary_path
    finally:
        with contextlib.suppress(OSError):
            temporary_path.unlink()


def _copy_verified(output: Output, target_file: BinaryIO) -> None:
    hasher = hashlib.sha256()
    try:
        output_file = output.path.open("rb", buffering=0)
    except OSError as exception:
        raise OutputUnreadable(
            filename=output.filename, node_id=output.node_id, reason=reason_without_path(exception)
        ) from exception
    with output_file:
        while chunk := output_file.read(CHUNK_BYTES):
            hasher.update(chunk)
            target_file.write(chunk)
    if (actual := hasher.hexdigest()) != output.sha256.hex:
        raise OutputChanged(filename=output.filename, expected=output.sha256.hex, actual=actual)


def _holds_output(file_path: Path, output: Output) -> bool:
    try:
        return (
            file_path.is_file()
            and file_path.stat().st_size == output.size_bytes
            and Digest.of_file(file_path) == output.sha256
        )
    except OSError:
        return False


def _link_into_place(temporary_path: Path, file_path: Path) -> None:
    """Give the file its name, atomically, without replacing anything. Raises `FileExistsError`."""
    try:
        os.link(temporary_path, file_path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links: the best it offers is to look first.
        if file_path.exists() or file_path.is_symlink():
            raise FileExistsError(file_path) from None
        temporary_path.replace(file_path)

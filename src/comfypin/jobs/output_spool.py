"""Outputs brought from the engine to this machine's disk: hashed as they come, measured, never held whole in memory."""

import asyncio
import contextlib
import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from comfypin.atomic_files import FileStamp, reading_buffer
from comfypin.digest import Digest
from comfypin.engine.interface import EngineOutput
from comfypin.outputs.errors import OutputUnreadable, not_written
from comfypin.outputs.interface import Output
from comfypin.outputs.media_types import HEAD_BYTES, identify_file, picture_size

_AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An engine's output, and the name and subfolder under which the user will know it."""

    found: EngineOutput
    filename: str
    subfolder: str


class Spool:
    """A folder for outputs that must pass through this machine; made when the first one needs it."""

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent
        self._folder: Path | None = None

    def place(self, index: int) -> Path:
        """Where output number `index` is to be written."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="comfypin-", dir=self._parent))
        return self._folder / str(index)

    def remove(self) -> None:
        """Remove what was spooled."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def spool_folder(parent: Path | None = None) -> Iterator[Spool]:
    """A spool that is gone when the block ends, however it ends."""
    spool = Spool(parent)
    try:
        yield spool
    finally:
        spool.remove()


async def collect(wanted: Sequence[Wanted], spool: Spool) -> tuple[Output, ...]:
    """Bring all outputs, in order; a few at a time. Raises `OutputUnreadable`, `OutputNotWritten`, `EngineError`."""
    outputs: dict[int, Output] = {}
    waiting = iter(enumerate(wanted))

    async def bring_some() -> None:
        for index, item in waiting:
            outputs[index] = await _bring(item, index, spool)

    tasks = [asyncio.ensure_future(bring_some()) for _ in range(min(_AT_ONCE, len(wanted)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return tuple(outputs[index] for index in range(len(wanted)))


async def _bring(wanted: Wanted, index: int, spool: Spool) -> Output:
    """One output: a file of this machine is measured by a thread, another is written as it comes."""
    if wanted.found.path is not None:
        return await asyncio.to_thread(_measure_local, wanted, index, wanted.found.path)
    try:
        return await _stream(wanted, index, spool.place(index))
    except OSError as exc:
        folder = Path(tempfile.gettempdir())
        raise not_written(exc, filename=wanted.filename, folder=folder) from exc


def _measure_local(wanted: Wanted, index: int, path: Path) -> Output:
    try:
        return _measure(wanted, index, path)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise OutputUnreadable(filename=wanted.filename, node_id=wanted.found.node_id, reason=reason) from exc


def _measure(wanted: Wanted, index: int, path: Path) -> Output:
    hasher, buffer, head, size = hashlib.sha256(), reading_buffer(), b"", 0
    with path.open("rb", buffering=0) as file:
        stamp = FileStamp.of(file.fileno())
        known = stamp if stamp.settled(time.time_ns()) else None
        while count := file.readinto(buffer):
            head = head or bytes(buffer[: min(count, HEAD_BYTES)])
            size += count
            hasher.update(buffer[:count])
    return _output(wanted, index, path, head=head, size_bytes=size, sha256=Digest(hasher.hexdigest()), stamp=known)


async def _stream(wanted: Wanted, index: int, path: Path) -> Output:
    hasher = hashlib.sha256()
    head, size = b"", 0
    with path.open("wb") as file:
        async for chunk in wanted.found.read():
            if len(head) < HEAD_BYTES:
                head = (head + chunk)[:HEAD_BYTES]
            size += len(chunk)
            hasher.update(chunk)
            file.write(chunk)
        file.flush()
        stamp = FileStamp.of(file.fileno())  # nobody else writes here
    return _output(wanted, index, path, head=head, size_bytes=size, sha256=Digest(hasher.hexdigest()), stamp=stamp)


def _output(
    wanted: Wanted, index: int, path: Path, *, head: bytes, size_bytes: int, sha256: Digest, stamp: FileStamp | None
) -> Output:
    media = identify_file(wanted.filename, head)
    width, height = picture_size(path, media, head) or (None, None)
    return Output(
        index=index,
        node_id=wanted.found.node_id,
        kind=media.kind,
        filename=wanted.filename,
        subfolder=wanted.subfolder,
        media_type=media.media_type,
        size_bytes=size_bytes,
        sha256=sha256,
        path=path,
        temporary=wanted.found.folder != "output",
        width=width,
        height=height,
        stamp=stamp,
    )

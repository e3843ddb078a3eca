"""Outputs brought from the engine to this machine's disk: hashed as they come, measured, never held whole in memory."""

import asyncio
import contextlib
import hashlib
import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from comfypin.digest import Digest
from comfypin.engine.interface import EngineOutput
from comfypin.errors.output import OutputUnreadable, not_written
from comfypin.files import SETTLED_S, FileStamp, reading_buffer
from comfypin.outputs.interface import Output
from comfypin.outputs.media import HEAD_BYTES, identify, picture_size

_SMALL_BYTES = 1 << 20
_AHEAD_BYTES = 4 << 20
_AWAITED_BYTES = 256 << 20  # hashing this again, for want of a stamp, takes longer than the file takes to settle
_AT_ONCE = 4
_MOST_TOGETHER = 32


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
    most = max(1, min(_MOST_TOGETHER, len(wanted) // (2 * _AT_ONCE)))

    async def bring_some() -> None:
        """Whatever is next. Many small files are measured in one go: a hop to a thread costs half of hashing one."""
        while batch := list(itertools.islice(waiting, most)):
            outputs.update(await _bring_all(batch, spool))

    tasks = [asyncio.ensure_future(bring_some()) for _ in range(min(_AT_ONCE, len(wanted)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return tuple(outputs[index] for index in range(len(wanted)))


async def _bring_all(batch: Sequence[tuple[int, Wanted]], spool: Spool) -> dict[int, Output]:
    """A few outputs: files on this machine by a thread, others as they come."""
    local = [(index, item, item.found.path) for index, item in batch if item.found.path is not None]

    def measured() -> dict[int, Output]:
        return {index: _measure_local(item, index, path) for index, item, path in local}

    few = not local or (len(local) == 1 and _is_small(local[0][2]))
    outputs = measured() if few else await asyncio.to_thread(measured)
    for index, item in batch:
        if item.found.path is None:
            outputs[index] = await _bring(item, index, spool)
    return outputs


def _is_small(path: Path) -> bool:
    """Whether hashing it costs less than a thread."""
    try:
        return path.stat().st_size <= _SMALL_BYTES
    except OSError:
        return True  # it will be named when it is read


async def _bring(wanted: Wanted, index: int, spool: Spool) -> Output:
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
    with path.open("rb", buffering=0) as file:
        stamp = FileStamp.of(file.fileno())
        settled = stamp.settled(time.time_ns())
        if not settled and stamp.size_bytes >= _AWAITED_BYTES:
            time.sleep(SETTLED_S)
            stamp = FileStamp.of(file.fileno())
            settled = stamp.settled(time.time_ns())
        read = _read_ahead if stamp.size_bytes > _AHEAD_BYTES else _read
        hasher, head, size = hashlib.sha256(), b"", 0
        for piece in read(file):
            head = head or bytes(piece[:HEAD_BYTES])
            size += len(piece)
            hasher.update(piece)
    known = stamp if settled else None
    return _output(wanted, index, path, head=head, size_bytes=size, sha256=Digest(hasher.hexdigest()), stamp=known)


def _read(file: FileIO) -> Iterator[memoryview]:
    """The file's bytes, each piece valid until the next."""
    buffer = reading_buffer()
    while count := file.readinto(buffer):
        yield buffer[:count]


def _read_ahead(file: FileIO) -> Iterator[memoryview]:
    """The same, read by another thread: of hashing a large file, a sixth is reading it."""
    filled, free = (memoryview(bytearray(_AHEAD_BYTES)) for _ in range(2))
    with ThreadPoolExecutor(1, thread_name_prefix="comfypin-read") as pool:
        coming = pool.submit(file.readinto, filled)
        while count := coming.result():
            coming = pool.submit(file.readinto, free)
            yield filled[:count]
            filled, free = free, filled


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
    media = identify(wanted.filename, head)
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

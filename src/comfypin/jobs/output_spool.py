"""Brings outputs from the engine to this machine's disk: hashed as they come, measured, never whole in memory."""

import asyncio
import contextlib
import hashlib
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from comfypin.atomic_files import FileStamp, thread_buffer
from comfypin.digest import Digest
from comfypin.engine.interface import EngineOutput
from comfypin.jobs.saved_metadata import clear_mark
from comfypin.outputs.errors import OutputUnreadable, not_written
from comfypin.outputs.interface import Output
from comfypin.outputs.media_types import HEAD_BYTES, identify_file, picture_size

# ComfyUI serves files from one thread, so more at once would only wait there.
_OUTPUTS_AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedOutput:
    """One output in the engine, and the name and subfolder that the user will see.

    `mark` is the mark of our submission if it is in the name that the engine knows: then it is in the metadata, too.
    """

    engine_output: EngineOutput
    filename: str
    subfolder: str
    mark: str | None = None


class Spool:
    """Holds outputs that must pass through this machine: in a folder that jobs share, or in one of their own.

    One of its own is made when the first output needs it.
    """

    def __init__(self, shared_folder: Path | None = None) -> None:
        self._shared_folder = shared_folder
        self._own_folder: Path | None = None
        self._name = secrets.token_hex(8)
        self._shared_paths: list[Path] = []

    def output_path(self, output_index: int) -> Path:
        """Return the path for output number `output_index`."""
        if self._shared_folder is not None:
            self._shared_paths.append(self._shared_folder / f"{self._name}-{output_index}")
            return self._shared_paths[-1]
        if self._own_folder is None:
            self._own_folder = Path(tempfile.mkdtemp(prefix="comfypin-"))
        return self._own_folder / str(output_index)

    def remove_files(self) -> None:
        """Remove what was spooled."""
        for path in self._shared_paths:
            with contextlib.suppress(OSError):
                path.unlink()
        if self._own_folder is not None:
            shutil.rmtree(self._own_folder, ignore_errors=True)


@contextlib.contextmanager
def open_spool(shared_folder: Path | None = None) -> Iterator[Spool]:
    """Yield a spool whose files are removed when the block ends, however it ends."""
    spool = Spool(shared_folder)
    try:
        yield spool
    finally:
        spool.remove_files()


async def collect_outputs(
    wanted_outputs: Sequence[WantedOutput],
    spool: Spool,
    *,
    on_mark_left: Callable[[WantedOutput], None] = lambda _: None,
) -> tuple[Output, ...]:
    """Bring all outputs, in order; a few at a time. Raises `OutputUnreadable`, `OutputNotWritten`, `EngineError`.

    The mark of the submission is taken out of their metadata; `on_mark_left` hears of those that keep it.
    """
    outputs: dict[int, Output] = {}
    # One iterator for all tasks: each takes the next output as soon as it is done with one.
    waiting = iter(enumerate(wanted_outputs))

    async def collect_some() -> None:
        for output_index, wanted_output in waiting:
            outputs[output_index], has_mark = await _collect_one(wanted_output, output_index, spool)
            if has_mark:
                on_mark_left(wanted_output)

    tasks = [asyncio.ensure_future(collect_some()) for _ in range(min(_OUTPUTS_AT_ONCE, len(wanted_outputs)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return tuple(outputs[output_index] for output_index in range(len(wanted_outputs)))


async def _collect_one(wanted_output: WantedOutput, output_index: int, spool: Spool) -> tuple[Output, bool]:
    """Measure an output that is a file on this machine already, or write it to disk as it arrives.

    Returns whether the mark is still in its metadata, too.
    """
    if wanted_output.engine_output.path is not None:
        return await asyncio.to_thread(_measure_local, wanted_output, output_index, wanted_output.engine_output.path)
    spool_path = spool.output_path(output_index)
    try:
        streamed = await _stream_to_disk(wanted_output, output_index, spool_path)
    except OSError as exc:
        folder = Path(tempfile.gettempdir())
        raise not_written(exc, filename=wanted_output.filename, folder=folder) from exc
    if wanted_output.mark is None:
        return streamed, False
    return await asyncio.to_thread(_measure_local, wanted_output, output_index, spool_path)


def _measure_local(wanted_output: WantedOutput, output_index: int, file_path: Path) -> tuple[Output, bool]:
    try:
        is_clear = wanted_output.mark is None or clear_mark(file_path, wanted_output.mark)
        return _measure_file(wanted_output, output_index, file_path), not is_clear
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise OutputUnreadable(
            filename=wanted_output.filename, node_id=wanted_output.engine_output.node_id, reason=reason
        ) from exc


def _measure_file(wanted_output: WantedOutput, output_index: int, file_path: Path) -> Output:
    hasher, buffer, first_bytes, size_bytes = hashlib.sha256(), thread_buffer(), b"", 0
    # Unbuffered, with a large buffer of our own: videos are read at the disk's speed.
    with file_path.open("rb", buffering=0) as open_file:
        stamp = FileStamp.of(open_file.fileno())
        # A file written a moment ago may change again within the same time stamp, which then proves nothing.
        known = stamp if stamp.is_settled(time.time_ns()) else None
        while count := open_file.readinto(buffer):
            first_bytes = first_bytes or bytes(buffer[: min(count, HEAD_BYTES)])
            size_bytes += count
            hasher.update(buffer[:count])
    return _make_output(
        wanted_output,
        output_index,
        file_path,
        head=first_bytes,
        size_bytes=size_bytes,
        sha256=Digest(hasher.hexdigest()),
        stamp=known,
    )


async def _stream_to_disk(wanted_output: WantedOutput, output_index: int, file_path: Path) -> Output:
    hasher = hashlib.sha256()
    first_bytes, size_bytes = b"", 0
    with file_path.open("wb") as open_file:
        async for chunk in wanted_output.engine_output.read():
            if len(first_bytes) < HEAD_BYTES:
                first_bytes = (first_bytes + chunk)[:HEAD_BYTES]
            size_bytes += len(chunk)
            hasher.update(chunk)
            open_file.write(chunk)
        open_file.flush()
        stamp = FileStamp.of(open_file.fileno())  # nobody else writes here
    return _make_output(
        wanted_output,
        output_index,
        file_path,
        head=first_bytes,
        size_bytes=size_bytes,
        sha256=Digest(hasher.hexdigest()),
        stamp=stamp,
    )


def _make_output(
    wanted_output: WantedOutput,
    output_index: int,
    file_path: Path,
    *,
    head: bytes,
    size_bytes: int,
    sha256: Digest,
    stamp: FileStamp | None,
) -> Output:
    media = identify_file(wanted_output.filename, head)
    # None for what has no size in pixels, or hides it.
    width, height = picture_size(file_path, media, head) or (None, None)
    return Output(
        index=output_index,
        node_id=wanted_output.engine_output.node_id,
        kind=media.kind,
        filename=wanted_output.filename,
        subfolder=wanted_output.subfolder,
        media_type=media.media_type,
        size_bytes=size_bytes,
        sha256=sha256,
        path=file_path,
        temporary=wanted_output.engine_output.folder != "output",
        width=width,
        height=height,
        stamp=stamp,
        reported_as=wanted_output.engine_output.key,
    )

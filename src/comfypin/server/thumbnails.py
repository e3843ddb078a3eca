"""Small pictures of outputs: made once, upright, of bounded size, and kept in a folder by the digest of the output."""

import asyncio
import contextlib
import io
import logging
import shutil
import subprocess
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.atomic_files import write_atomically
from comfypin.http.deadline import Deadline
from comfypin.jobs.handler import OpenSink
from comfypin.jobs.job_input import OutputWish, S3Wish
from comfypin.outputs.image_format import ConvertingSink
from comfypin.outputs.interface import Delivery, JobFacts, Output, OutputSink

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

# Twice the width of a tile in the gallery, for screens with two pixels a point.
EDGE_PIXELS = 448
MADE_OF = ("image", "video")
# A compromise for tiles of this size: twice the bytes would not be seen.
_QUALITY = 78
# A picture of 12,000 by 12,000 takes half a gigabyte while it is drawn smaller.
_MOST_PIXELS = 150_000_000
# Reading more from a disk takes longer than anybody looks at an empty tile.
_MOST_BYTES = 512 << 20
# Tens of thousands of thumbnails.
_KEPT_BYTES = 512 << 20
# So that a broken file is not opened again for each look at the gallery.
_REMEMBERED_FAILURES = 5000
# ffmpeg finds a first frame in a second; a damaged video can keep it busy for ever.
_POSTER_WITHIN_S = 20
# Drawing takes a processor and memory, which jobs need more.
_AT_ONCE = 2


class Thumbnails:
    """Makes and keeps the thumbnails of one server, two at a time at most."""

    def __init__(self, folder: Path, *, kept_bytes: int = _KEPT_BYTES) -> None:
        self._folder = folder
        self._kept_bytes = kept_bytes
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._unusable: OrderedDict[str, None] = OrderedDict()
        self._made_bytes = 0
        self._can_make_posters = shutil.which("ffmpeg") is not None

    def may_have(self, kind: str, media_type: str | None, sha256: str | None) -> bool:
        """Return whether an output may have one: a picture of pixels, or a video if this machine has ffmpeg."""
        if sha256 is None or sha256 in self._unusable or media_type == "image/svg+xml":
            return False
        return kind == "image" or (kind == "video" and self._can_make_posters)

    async def find(self, sha256: str) -> Path | None:
        """Return the thumbnail's file if it has been made."""
        path = self._path(sha256)
        return path if await asyncio.to_thread(path.is_file) else None

    async def find_or_make(self, sha256: str, kind: str, source: Callable[[], Path | bytes | None]) -> Path | None:
        """Return the thumbnail's file, made of `source` if it is not there yet; None if there cannot be one.

        `source` is called in a thread.
        """
        path = self._path(sha256)
        if await asyncio.to_thread(path.is_file):
            return path
        if sha256 in self._unusable:
            return None
        async with self._slots:
            return await asyncio.to_thread(self._make, path, sha256, kind, source)

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / f"{sha256}.webp"

    def _make(self, path: Path, sha256: str, kind: str, source: Callable[[], Path | bytes | None]) -> Path | None:
        if path.is_file():
            return path  # another request made it meanwhile
        original = source()
        if original is None:
            return None  # it is elsewhere; not a mistake of the file
        try:
            picture = _poster(original) if kind == "video" else original
            thumbnail = None if picture is None else draw_thumbnail(picture)
        except Exception as exc:  # noqa: BLE001 - Pillow raises whatever it likes for a broken file
            log.info("no thumbnail", extra={"action": "no_thumbnail", "sha256": sha256, "reason": str(exc)[:200]})
            thumbnail = None
        if thumbnail is None:
            self._unusable[sha256] = None
            if len(self._unusable) > _REMEMBERED_FAILURES:
                self._unusable.popitem(last=False)
            return None
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(path, thumbnail, durable=False, mode=0o600)
        except OSError:
            return None  # a full disk: the next request tries again
        self._made_bytes += len(thumbnail)
        if self._made_bytes > self._kept_bytes // 8:
            self._made_bytes = 0
            self._remove_oldest()
        return path

    def _remove_oldest(self) -> None:
        """Keep the folder below its limit."""
        with contextlib.suppress(OSError):
            thumbnails = [(thumbnail.stat(), thumbnail) for thumbnail in self._folder.glob("*/*.webp")]
            kept_bytes = 0
            for stat, thumbnail in sorted(thumbnails, key=lambda entry: -entry[0].st_mtime):
                kept_bytes += stat.st_size
                if kept_bytes > self._kept_bytes:
                    thumbnail.unlink(missing_ok=True)

    def wrap_opener(self, sink_for: OpenSink, folder: OutputSink) -> OpenSink:
        """Return sinks that make thumbnails of what leaves this machine, before it is gone.

        What stays in `folder` gets its thumbnail when somebody looks.
        """

        def open_sink(wish: OutputWish, s3: S3Wish | None, deadline: Deadline | None = None, /) -> OutputSink:
            return self._wrapped(sink_for(wish, s3, deadline), folder)

        return open_sink

    def _wrapped(self, sink: OutputSink, folder: OutputSink) -> OutputSink:
        if isinstance(sink, ConvertingSink):
            return ConvertingSink(self._wrapped(sink.sink, folder), sink.conversion)
        return sink if sink is folder else _ThumbnailSink(self, sink)


class _ThumbnailSink:
    def __init__(self, thumbnails: Thumbnails, sink: OutputSink) -> None:
        self._thumbnails = thumbnails
        self._sink = sink

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        making = asyncio.create_task(self._make_all(outputs))
        try:
            return await self._sink.deliver(job, outputs)
        finally:
            # The files go when the delivery ends.
            await asyncio.gather(making, return_exceptions=True)

    async def _make_all(self, outputs: tuple[Output, ...]) -> None:
        for output in outputs:
            sha256 = output.sha256.hex
            if self._thumbnails.may_have(output.kind, output.media_type, sha256):
                await self._thumbnails.find_or_make(sha256, output.kind, lambda path=output.path: path)  # type: ignore[misc]


def draw_thumbnail(original: Path | bytes) -> bytes | None:
    """Return a small WebP of a picture, upright as its EXIF says; None if it is too large to look at. Slow."""
    from PIL import Image as pillow
    from PIL import ImageOps

    size_bytes = len(original) if isinstance(original, bytes) else original.stat().st_size
    if size_bytes > _MOST_BYTES:
        return None
    with warnings.catch_warnings():
        # Our own limit is what counts.
        warnings.simplefilter("ignore", pillow.DecompressionBombWarning)
        with pillow.open(io.BytesIO(original) if isinstance(original, bytes) else original) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                return None
            # A JPEG is decoded at a fraction of its size.
            picture.draft("RGB", (EDGE_PIXELS * 2, EDGE_PIXELS * 2))
            upright: Image = ImageOps.exif_transpose(picture)
            has_alpha = "A" in upright.getbands() or "transparency" in upright.info
            if upright.mode.startswith(("I", "F")):
                upright = _to_eight_bits(upright)
            upright = upright.convert("RGBA" if has_alpha else "RGB")
            upright.thumbnail((EDGE_PIXELS, EDGE_PIXELS), pillow.Resampling.LANCZOS, reducing_gap=2.0)
            spool = io.BytesIO()
            upright.save(spool, "WEBP", quality=_QUALITY, method=3)
            return spool.getvalue()


def _to_eight_bits(picture: "Image") -> "Image":
    """Return a picture of 16 or 32 bits by its own range, which a plain conversion would cut off at 255."""
    low, high = (float(bound) for bound in picture.getextrema() if not isinstance(bound, tuple))
    scale = 255.0 / ((high - low) or 1.0)
    return picture.convert("F").point(lambda value: (value - low) * scale).convert("L")


def _poster(original: Path | bytes) -> bytes | None:
    """Return a frame of a video as PNG, or None if ffmpeg cannot read it."""
    source = f"file:{original}" if isinstance(original, Path) else "pipe:0"
    # A list of protocols, so that a playlist cannot make ffmpeg open addresses.
    command = [
        *("ffmpeg", "-v", "error", "-nostdin", "-protocol_whitelist", "file,pipe", "-i", source, "-frames:v", "1"),
        *("-vf", f"scale='min({EDGE_PIXELS * 2},iw)':-2", "-f", "image2pipe", "-c:v", "png", "pipe:1"),
    ]
    sent = b"" if isinstance(original, Path) else original
    ran = subprocess.run(command, input=sent, capture_output=True, timeout=_POSTER_WITHIN_S, check=False)
    return ran.stdout or None

"""PNG to JPEG or WebP, and the workflow that ComfyUI embeds: kept or dropped."""

import asyncio
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Literal

from comfypin.digest import Digest
from comfypin.outputs.errors import OutputUnreadable
from comfypin.outputs.interface import Delivery, JobFacts, Output, OutputSink
from comfypin.temp_folders import temp_folder

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

PictureFormat = Literal["png", "jpeg", "webp"]
_SUFFIXES: dict[PictureFormat, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_EMBEDDED = ("prompt", "workflow")
# Where ComfyUI's own nodes for WebP put them, and its page looks for them: Model and Make, as `name:json`.
_EXIF_TAGS = {"prompt": 0x0110, "workflow": 0x010F}
_JPEG_EXIF_BYTES = 65_533 - 6
_LONGEST_SIDE: dict[PictureFormat, int] = {"jpeg": 65_500, "webp": 16_383}
_PNG_START = b"\x89PNG\r\n\x1a\n"
# `comf` is where ComfyUI's node for animated PNGs writes.
_TEXT_CHUNKS = {b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"comf"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What becomes of PNG outputs. `quality` is 1 to 100; 100 makes WebP lossless."""

    format: PictureFormat = "png"
    quality: int = 90
    keep_workflow: bool = True

    @property
    def is_nothing(self) -> bool:
        """Whether outputs stay as they are."""
        return self.format == "png" and self.keep_workflow


class ConvertingSink:
    """Converts PNG outputs, then has them delivered; other outputs pass as they are."""

    def __init__(self, sink: OutputSink, conversion: Conversion) -> None:
        self.sink = sink
        self._conversion = conversion

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        """Deliver the converted outputs; they are what the deliveries name. Raises `OutputUnreadable`."""
        with temp_folder("convert") as folder:
            converted = [await asyncio.to_thread(convert, output, self._conversion, Path(folder)) for output in outputs]
            return await self.sink.deliver(job, tuple(converted))


def convert(output: Output, conversion: Conversion, folder: Path) -> Output:
    """The output in the wanted format, its file in `folder`; itself where it is no PNG. Raises `OutputUnreadable`."""
    if output.media_type != "image/png" or conversion.is_nothing:
        return output
    path = folder / str(output.index)
    format_ = conversion.format
    try:
        if format_ == "png" or not _encode(output.path, path, conversion):
            if conversion.keep_workflow:
                return output
            _drop_texts(output.path, path)
            format_ = "png"
    except (OSError, ValueError, SyntaxError, struct.error) as exc:
        if conversion.keep_workflow and output.path.exists():
            _stays(output.path, f"it could not be converted ({exc})")
            return output
        reason = f"it could not be converted to {conversion.format} ({exc})"
        raise OutputUnreadable(filename=output.filename, node_id=output.node_id, reason=reason) from exc
    name = PurePosixPath(output.filename)
    return replace(
        output,
        path=path,
        filename=str(name.with_suffix(_SUFFIXES[format_])),
        media_type=f"image/{format_}",
        size_bytes=path.stat().st_size,
        sha256=Digest.of_file(path),
        stamp=None,
    )


def _encode(source: Path, target: Path, conversion: Conversion) -> bool:
    """Write the picture; False, and nothing written, where the format cannot hold it or its workflow."""
    from PIL import Image

    try:
        # It warns of pictures that are half as large as those it refuses; this one was asked for.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(source)
    except Image.DecompressionBombError:
        return _stays(source, "it has too many pixels to be opened")
    with picture:
        if getattr(picture, "is_animated", False):
            return _stays(source, "it is animated")
        if max(picture.size) > _LONGEST_SIDE[conversion.format]:
            return _stays(source, f"it is too large for {conversion.format}")
        texts = {name: str(picture.info[name]) for name in _EMBEDDED if name in picture.info}
        exif = Image.Exif()
        if conversion.keep_workflow:
            for name, text in texts.items():
                exif[_EXIF_TAGS[name]] = f"{name}:{text}"
        if conversion.format == "jpeg" and len(exif.tobytes()) > _JPEG_EXIF_BYTES:
            return _stays(source, "the workflow is too long for a JPEG (OUTPUT_KEEP_WORKFLOW=false drops it)")
        exif_bytes = exif.tobytes() if texts and conversion.keep_workflow else b""
        profile = picture.info.get("icc_profile")
        if conversion.format == "jpeg":
            _flattened(picture).save(
                target, "JPEG", quality=conversion.quality, exif=exif_bytes, icc_profile=profile, subsampling=0
            )
        else:
            lossless = conversion.quality == 100
            mode = "RGBA" if "A" in picture.getbands() or "transparency" in picture.info else "RGB"
            _eight_bits(picture).convert(mode).save(
                target, "WEBP", quality=conversion.quality, lossless=lossless, exif=exif_bytes, icc_profile=profile
            )
    return True


def _stays(source: Path, reason: str) -> bool:
    log.warning("kept as PNG: %s", reason, extra={"action": "not_converted", "path": str(source)})
    return False


def _flattened(picture: "Image.Image") -> "Image.Image":
    """On white, because JPEG knows no transparency."""
    from PIL import Image

    if "A" not in picture.getbands() and "transparency" not in picture.info:
        plain = _eight_bits(picture)
        return plain if plain.mode in {"RGB", "L"} else plain.convert("RGB")
    clear = picture.convert("RGBA")
    ground = Image.new("RGBA", clear.size, (255, 255, 255, 255))
    return Image.alpha_composite(ground, clear).convert("RGB")


def _eight_bits(picture: "Image.Image") -> "Image.Image":
    """Pillow clips 16-bit greys where they should be scaled."""
    if not picture.mode.startswith("I"):
        return picture
    return picture.convert("I").point(lambda value: value / 257).convert("L")


def _drop_texts(source: Path, target: Path) -> None:
    """Copy a PNG without its texts; the pixels' bytes stay as they are."""
    with source.open("rb") as file, target.open("wb") as copy:
        if file.read(len(_PNG_START)) != _PNG_START:
            raise ValueError("it does not begin as a PNG does")
        copy.write(_PNG_START)
        for name, whole in _chunks(file):
            if name not in _TEXT_CHUNKS:
                copy.write(whole)
            if name == b"IEND":
                return
        raise ValueError("it ends before its end")


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    while head := file.read(8):
        length, name = struct.unpack(">I4s", head)
        data = file.read(length)
        check = file.read(4)
        if len(data) != length or struct.unpack(">I", check)[0] != zlib.crc32(data, zlib.crc32(name)):
            raise ValueError("one of its chunks is damaged")
        yield name, head + data + check

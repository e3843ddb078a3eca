"""Converts PNG outputs to JPEG or WebP, and keeps or drops the workflow that ComfyUI embeds."""

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
from comfypin.outputs.errors import OutputUnreadable, reason_without_path
from comfypin.outputs.interface import Delivery, JobFacts, Output, OutputSink
from comfypin.temp_folders import temp_folder

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

PictureFormat = Literal["png", "jpeg", "webp"]
_SUFFIXES: dict[PictureFormat, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_EMBEDDED = ("prompt", "workflow")
# ComfyUI's WebP nodes write them to these tags (Model and Make) as `name:json`, and its page reads them there.
_EXIF_TAGS = {"prompt": 0x0110, "workflow": 0x010F}
_JPEG_EXIF_BYTES = 65_533 - 6
_LONGEST_SIDE: dict[PictureFormat, int] = {"jpeg": 65_500, "webp": 16_383}
_PNG_START = b"\x89PNG\r\n\x1a\n"
# ComfyUI's node for animated PNGs writes to `comf`.
_TEXT_CHUNKS = {b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"comf"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConversion:
    """How PNG outputs are converted. `quality` is 1 to 100; 100 makes WebP lossless."""

    format: PictureFormat = "png"
    quality: int = 90
    keep_workflow: bool = True

    @property
    def is_identity(self) -> bool:
        """Return whether outputs stay as they are."""
        return self.format == "png" and self.keep_workflow


class ConvertingSink:
    """Converts PNG outputs, then has them delivered; other outputs pass as they are."""

    def __init__(self, sink: OutputSink, conversion: ImageConversion) -> None:
        self.sink = sink
        self.conversion = conversion

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        """Deliver the converted outputs; they are what the deliveries name. Raises `OutputUnreadable`."""
        with temp_folder("convert") as folder:
            converted = [
                await asyncio.to_thread(convert_output, output, self.conversion, Path(folder)) for output in outputs
            ]
            return await self.sink.deliver(job, tuple(converted))


def convert_output(output: Output, conversion: ImageConversion, folder: Path) -> Output:
    """Return the output in the wanted format, its file in `folder`; the output itself if it is not a PNG.

    Raises `OutputUnreadable`.
    """
    if output.media_type != "image/png" or conversion.is_identity:
        return output
    converted_path = folder / str(output.index)
    actual_format = conversion.format
    try:
        if actual_format == "png" or not _encode_picture(output.path, converted_path, conversion):
            if conversion.keep_workflow:
                return output
            _drop_texts(output.path, converted_path)
            actual_format = "png"
    except (OSError, ValueError, SyntaxError, struct.error) as exception:
        # A PNG that cannot be converted still is a result, unless the workflow in it must not leave.
        if conversion.keep_workflow and output.path.exists():
            _keep_as_png(output.path, f"it could not be converted ({exception})")
            return output
        problem = reason_without_path(exception) if isinstance(exception, OSError) else exception
        reason = f"it could not be converted to {conversion.format} ({problem})"
        raise OutputUnreadable(filename=output.filename, node_id=output.node_id, reason=reason) from exception
    original_name = PurePosixPath(output.filename)
    return replace(
        output,
        path=converted_path,
        filename=str(original_name.with_suffix(_SUFFIXES[actual_format])),
        media_type=f"image/{actual_format}",
        size_bytes=converted_path.stat().st_size,
        sha256=Digest.of_file(converted_path),
        stamp=None,
    )


def _encode_picture(source_path: Path, target_path: Path, conversion: ImageConversion) -> bool:
    """Write the picture; return False and write nothing if the format cannot hold it or its workflow."""
    from PIL import Image

    try:
        # Pillow warns at half the size that it refuses, but this picture is the user's own.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(source_path)
    except Image.DecompressionBombError:
        return _keep_as_png(source_path, "it has too many pixels to be opened")
    with picture:
        # JPEG and our WebP would keep only the first frame.
        if getattr(picture, "is_animated", False):
            return _keep_as_png(source_path, "it is animated")
        if max(picture.size) > _LONGEST_SIDE[conversion.format]:
            return _keep_as_png(source_path, f"it is too large for {conversion.format}")
        exif_bytes = _embedded_exif(picture) if conversion.keep_workflow else b""
        if conversion.format == "jpeg" and len(exif_bytes) > _JPEG_EXIF_BYTES:
            return _keep_as_png(
                source_path, "the workflow is too long for a JPEG (OUTPUT_KEEP_WORKFLOW=false drops it)"
            )
        _save_picture(picture, target_path, conversion, exif_bytes)
    return True


def _embedded_exif(picture: "Image.Image") -> bytes:
    """Return the prompt and workflow of a PNG as Exif data; empty if it has neither."""
    from PIL import Image

    exif = Image.Exif()
    for tag_name in _EMBEDDED:
        if tag_name in picture.info:
            exif[_EXIF_TAGS[tag_name]] = f"{tag_name}:{picture.info[tag_name]}"
    return exif.tobytes() if len(exif) else b""


def _save_picture(picture: "Image.Image", target_path: Path, conversion: ImageConversion, exif_bytes: bytes) -> None:
    options = {"quality": conversion.quality, "exif": exif_bytes, "icc_profile": picture.info.get("icc_profile")}
    if conversion.format == "jpeg":
        # With subsampling, thin coloured lines would blur.
        _flatten_alpha(picture).save(target_path, "JPEG", subsampling=0, **options)
        return
    # Pillow's quality 100 alone would still lose a little.
    is_lossless = conversion.quality == 100
    pixel_mode = "RGBA" if "A" in picture.getbands() or "transparency" in picture.info else "RGB"
    _to_eight_bits(picture).convert(pixel_mode).save(target_path, "WEBP", lossless=is_lossless, **options)


def _keep_as_png(source_path: Path, reason: str) -> bool:
    log.warning("kept as PNG: %s", reason, extra={"action": "not_converted", "path": str(source_path)})
    return False


def _flatten_alpha(picture: "Image.Image") -> "Image.Image":
    """Return the picture on white, because JPEG has no transparency."""
    from PIL import Image

    if "A" not in picture.getbands() and "transparency" not in picture.info:
        eight_bit_picture = _to_eight_bits(picture)
        return eight_bit_picture if eight_bit_picture.mode in {"RGB", "L"} else eight_bit_picture.convert("RGB")
    transparent = picture.convert("RGBA")
    white_ground = Image.new("RGBA", transparent.size, (255, 255, 255, 255))
    return Image.alpha_composite(white_ground, transparent).convert("RGB")


def _to_eight_bits(picture: "Image.Image") -> "Image.Image":
    """Return the picture with 8 bits a channel, scaled: Pillow would clip 16-bit greys."""
    if not picture.mode.startswith("I"):
        return picture
    return picture.convert("I").point(lambda grey_level: grey_level / 257).convert("L")


def _drop_texts(source_path: Path, target_path: Path) -> None:
    """Copy a PNG without its texts; the pixels' bytes stay as they are."""
    with source_path.open("rb") as png_file, target_path.open("wb") as target_file:
        if png_file.read(len(_PNG_START)) != _PNG_START:
            raise ValueError("it does not begin as a PNG does")
        target_file.write(_PNG_START)
        for chunk_name, whole_chunk in _read_png_chunks(png_file):
            if chunk_name not in _TEXT_CHUNKS:
                target_file.write(whole_chunk)
            # What follows the end chunk is not part of the picture.
            if chunk_name == b"IEND":
                return
        raise ValueError("it has no end chunk")


def _read_png_chunks(png_file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    while chunk_head := png_file.read(8):
        chunk_bytes, chunk_name = struct.unpack(">I4s", chunk_head)
        chunk_data = png_file.read(chunk_bytes)
        chunk_crc = png_file.read(4)
        if len(chunk_data) != chunk_bytes or struct.unpack(">I", chunk_crc)[0] != zlib.crc32(
            chunk_data, zlib.crc32(chunk_name)
        ):
            raise ValueError("one of its chunks is damaged")
        yield chunk_name, chunk_head + chunk_data + chunk_crc

"""Nodes that write pictures: outputs to keep, and previews."""

import json
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.atomic_files import atomic_file
from comfypin.digest import JsonValue
from comfypin.engine.embedded.arrays import PixelArray, to_bytes
from comfypin.engine.embedded.declare import (
    NodeClass,
    NodeContext,
    NodeInput,
    NodeResult,
    ShownResult,
    boolean_input,
    choice_input,
    float_input,
    image_input,
    integer_input,
)
from comfypin.engine.embedded.folders import find_save_location

if TYPE_CHECKING:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

# The compression levels of ComfyUI: files to keep are packed better than previews.
_SAVE_COMPRESSION = 4
_PREVIEW_COMPRESSION = 1
_PREVIEW_LETTERS = 5
# EXIF has no field for a prompt, so ComfyUI uses the camera's model and make.
_MODEL_TAG = 0x0110
_MAKE_TAG = 0x010F
_WEBP_METHODS = {"default": 4, "fastest": 0, "slowest": 6}


def save_image(context: NodeContext, *, images: PixelArray, filename_prefix: str = "ComfyUI") -> NodeResult:
    """Keep each picture as a PNG that carries the prompt and the workflow that made it."""
    return _save_each(context, images, filename_prefix, folder="output", compression=_SAVE_COMPRESSION)


def preview_image(context: NodeContext, *, images: PixelArray) -> NodeResult:
    """Write each picture to the temp folder."""
    return _save_each(context, images, _preview_prefix("ComfyUI"), folder="temp", compression=_PREVIEW_COMPRESSION)


def show_pictures(context: NodeContext, images: PixelArray, *, value: PixelArray | None = None) -> NodeResult:
    """Show pictures, and pass on them or another value, as ComfyUI's newer nodes do."""
    files = temporary_files(context, images, "ComfyUI")
    return ShownResult(ui={"images": files, "animated": (False,)}, values=(images if value is None else value,))


def temporary_files(context: NodeContext, images: PixelArray, prefix: str) -> Sequence[JsonValue]:
    """Write pictures, without metadata, to the temp folder; return how they are shown."""
    # Previews are shown and thrown away: metadata would only make them larger.
    bare = replace(context, metadata=False)
    name_prefix = _preview_prefix(prefix)
    return _save_each(bare, images, name_prefix, folder="temp", compression=_PREVIEW_COMPRESSION).ui["images"]


def save_animated_webp(
    context: NodeContext,
    *,
    images: PixelArray,
    filename_prefix: str,
    fps: float,
    lossless: bool,
    quality: int,
    method: str,
) -> NodeResult:
    """Keep the batch as one animated WebP; the prompt and the workflow go into its EXIF."""
    frames = list(_to_pictures(context, images))
    options = {"duration": int(1000.0 / fps), "lossless": lossless, "quality": quality, "method": _WEBP_METHODS[method]}
    exif = frames[0].getexif()
    if context.metadata:
        exif[_MODEL_TAG] = f"prompt:{json.dumps(context.graph)}"
        for tag, (text_name, value) in enumerate((context.extra_pnginfo or {}).items()):
            exif[_MAKE_TAG - tag] = f"{text_name}:{json.dumps(value)}"
    return _save_animation(context, images, filename_prefix, "webp", exif=exif, **options)


def save_animated_png(
    context: NodeContext, *, images: PixelArray, filename_prefix: str, fps: float, compress_level: int
) -> NodeResult:
    """Keep the batch as one animated PNG; the prompt and the workflow go into its text."""
    from PIL import PngImagePlugin

    texts = PngImagePlugin.PngInfo()
    if context.metadata:
        for text_name, value in metadata_texts(context):
            texts.add(b"comf", f"{text_name}\0{value}".encode("latin-1", "strict"), after_idat=True)
    duration = int(1000.0 / fps)
    return _save_animation(
        context, images, filename_prefix, "png", pnginfo=texts, compress_level=compress_level, duration=duration
    )


def _preview_prefix(prefix: str) -> str:
    letters = "".join(random.choices(string.ascii_lowercase, k=_PREVIEW_LETTERS))  # noqa: S311, only a file's name
    return f"{prefix}_temp_{letters}"


def write_picture(context: NodeContext, path: Path, values: PixelArray) -> None:
    """Write one picture as a PNG of 8 bits."""
    from PIL import Image

    levels = to_bytes(values)
    picture = Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)
    _write_file(path, picture, format="PNG", pnginfo=_png_info(context), compress_level=_SAVE_COMPRESSION)


def _save_each(context: NodeContext, images: PixelArray, prefix: str, *, folder: str, compression: int) -> ShownResult:
    root = context.folders.folder_of_type(folder)
    assert root is not None
    location = find_save_location(root, prefix, width=images.shape[2], height=images.shape[1])
    saved: list[JsonValue] = []
    for index, picture in enumerate(_to_pictures(context, images)):
        file_name = f"{location.stem.replace('%batch_num%', str(index))}_{location.counter + index:05}_.png"
        _write_file(
            location.folder / file_name, picture, format="PNG", pnginfo=_png_info(context), compress_level=compression
        )
        saved.append({"filename": file_name, "subfolder": location.subfolder, "type": folder})
    return ShownResult(ui={"images": saved}, values=(images,))


def _save_animation(
    context: NodeContext, images: PixelArray, prefix: str, suffix: str, **options: object
) -> NodeResult:
    location = find_save_location(context.folders.output, prefix, width=images.shape[2], height=images.shape[1])
    file_name = f"{location.stem}_{location.counter:05}_.{suffix}"
    first, *others = _to_pictures(context, images)
    _write_file(
        location.folder / file_name, first, format=suffix.upper(), save_all=True, append_images=others, **options
    )
    entry = {"filename": file_name, "subfolder": location.subfolder, "type": "output"}
    return ShownResult(ui={"images": [entry], "animated": (True,)}, values=(images,))


def _to_pictures(context: NodeContext, images: PixelArray) -> "Iterator[Image.Image]":
    from PIL import Image

    for values in images:
        context.check_interrupted()
        yield Image.fromarray(to_bytes(values))


def _write_file(path: Path, picture: "Image.Image", **options: object) -> None:
    # A client that polls the folder must never read half a picture.
    with atomic_file(path, durable=False) as file:
        picture.save(file, **options)  # type: ignore[arg-type]


def metadata_texts(context: NodeContext) -> Iterator[tuple[str, str]]:
    """Yield the prompt and the workflow as pictures carry them."""
    yield "prompt", json.dumps(context.graph)
    for text_name, value in (context.extra_pnginfo or {}).items():
        yield text_name, json.dumps(value)


def _png_info(context: NodeContext) -> "PngInfo | None":
    from PIL import PngImagePlugin

    if not context.metadata:
        return None
    info = PngImagePlugin.PngInfo()
    for text_name, value in metadata_texts(context):
        info.add_text(text_name, value)
    return info


HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
_PREFIX_HELP = (
    "The prefix for the file to save. This may include formatting information such as %date:yyyy-MM-dd% or "
    "%Empty Latent Image.width% to include values from nodes."
)
_PREFIX = NodeInput(name="filename_prefix", type="STRING", options={"default": "ComfyUI"})

CLASSES = (
    NodeClass(
        name="SaveImage",
        display_name="Save Image",
        description="Saves the input images to your ComfyUI output directory.",
        category="image",
        module="nodes",
        inputs=(
            image_input("images", tooltip="The images to save."),
            NodeInput(name="filename_prefix", type="STRING", options={"default": "ComfyUI", "tooltip": _PREFIX_HELP}),
        ),
        hidden=HIDDEN,
        is_output=True,
        run=save_image,
    ),
    NodeClass(
        name="PreviewImage",
        display_name="Preview Image",
        description="Saves the input images to your ComfyUI output directory.",
        category="image",
        module="nodes",
        inputs=(image_input("images"),),
        hidden=HIDDEN,
        is_output=True,
        run=preview_image,
    ),
    NodeClass(
        name="SaveAnimatedWEBP",
        display_name="SaveAnimatedWEBP",
        category="image/animation",
        module="comfy_extras.nodes_images",
        inputs=(
            image_input("images"),
            _PREFIX,
            float_input("fps", 6.0, 0.01, 1000.0, 0.01),
            boolean_input("lossless", default=True),
            integer_input("quality", 80, 0, 100, step=None),
            choice_input("method", *_WEBP_METHODS),
        ),
        hidden=HIDDEN,
        is_output=True,
        run=save_animated_webp,
    ),
    NodeClass(
        name="SaveAnimatedPNG",
        display_name="SaveAnimatedPNG",
        category="image/animation",
        module="comfy_extras.nodes_images",
        inputs=(
            image_input("images"),
            _PREFIX,
            float_input("fps", 6.0, 0.01, 1000.0, 0.01),
            integer_input("compress_level", 4, 0, 9, step=None),
        ),
        hidden=HIDDEN,
        is_output=True,
        run=save_animated_png,
    ),
)

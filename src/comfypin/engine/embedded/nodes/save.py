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
from comfypin.engine.embedded.arrays import Pixels, to_bytes
from comfypin.engine.embedded.declare import Call, Input, NodeClass, Result, Shown, choice, flag, image, number, whole
from comfypin.engine.embedded.folders import save_place

if TYPE_CHECKING:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

_SAVE_COMPRESSION = 4
_PREVIEW_COMPRESSION = 1
_PREVIEW_LETTERS = 5
_MODEL_TAG = 0x0110
_MAKE_TAG = 0x010F
_WEBP_METHODS = {"default": 4, "fastest": 0, "slowest": 6}


def save_image(call: Call, *, images: Pixels, filename_prefix: str = "ComfyUI") -> Result:
    """Keep each picture as a PNG that carries the prompt and the workflow that made it."""
    return _save_each(call, images, filename_prefix, folder="output", compression=_SAVE_COMPRESSION)


def preview_image(call: Call, *, images: Pixels) -> Result:
    """Write each picture to the folder that is emptied sometime."""
    return _save_each(call, images, _preview_prefix("ComfyUI"), folder="temp", compression=_PREVIEW_COMPRESSION)


def show_pictures(call: Call, images: Pixels, *, value: Pixels | None = None) -> Result:
    """Show pictures, and pass them on, or another value: what ComfyUI's newer nodes do."""
    files = temporary_files(call, images, "ComfyUI")
    return Shown(ui={"images": files, "animated": (False,)}, values=(images if value is None else value,))


def temporary_files(call: Call, images: Pixels, prefix: str) -> Sequence[JsonValue]:
    """Write pictures, without metadata, to the folder that is emptied sometime; return what is shown of them."""
    bare = replace(call, metadata=False)
    name = _preview_prefix(prefix)
    return _save_each(bare, images, name, folder="temp", compression=_PREVIEW_COMPRESSION).ui["images"]


def save_animated_webp(
    call: Call, *, images: Pixels, filename_prefix: str, fps: float, lossless: bool, quality: int, method: str
) -> Result:
    """Keep the batch as one animated WebP; the prompt and the workflow go into its EXIF."""
    frames = list(_pictures(call, images))
    options = {"duration": int(1000.0 / fps), "lossless": lossless, "quality": quality, "method": _WEBP_METHODS[method]}
    exif = frames[0].getexif()
    if call.metadata:
        exif[_MODEL_TAG] = f"prompt:{json.dumps(call.graph)}"
        for tag, (name, value) in enumerate((call.extra_pnginfo or {}).items()):
            exif[_MAKE_TAG - tag] = f"{name}:{json.dumps(value)}"
    return _save_animation(call, images, filename_prefix, "webp", exif=exif, **options)


def save_animated_png(call: Call, *, images: Pixels, filename_prefix: str, fps: float, compress_level: int) -> Result:
    """Keep the batch as one animated PNG; the prompt and the workflow go into its text."""
    from PIL import PngImagePlugin

    texts = PngImagePlugin.PngInfo()
    if call.metadata:
        for name, value in metadata_texts(call):
            texts.add(b"comf", f"{name}\0{value}".encode("latin-1", "strict"), after_idat=True)
    duration = int(1000.0 / fps)
    return _save_animation(
        call, images, filename_prefix, "png", pnginfo=texts, compress_level=compress_level, duration=duration
    )


def _preview_prefix(prefix: str) -> str:
    letters = "".join(random.choices(string.ascii_lowercase, k=_PREVIEW_LETTERS))  # noqa: S311, only a file's name
    return f"{prefix}_temp_{letters}"


def write_picture(call: Call, path: Path, values: Pixels) -> None:
    """Write one picture as a PNG of 8 bits."""
    from PIL import Image

    levels = to_bytes(values)
    picture = Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)
    _write(path, picture, format="PNG", pnginfo=_png_info(call), compress_level=_SAVE_COMPRESSION)


def _save_each(call: Call, images: Pixels, prefix: str, *, folder: str, compression: int) -> Shown:
    root = call.folders.named(folder)
    assert root is not None
    place = save_place(root, prefix, width=images.shape[2], height=images.shape[1])
    saved: list[JsonValue] = []
    for index, picture in enumerate(_pictures(call, images)):
        name = f"{place.stem.replace('%batch_num%', str(index))}_{place.counter + index:05}_.png"
        _write(place.folder / name, picture, format="PNG", pnginfo=_png_info(call), compress_level=compression)
        saved.append({"filename": name, "subfolder": place.subfolder, "type": folder})
    return Shown(ui={"images": saved}, values=(images,))


def _save_animation(call: Call, images: Pixels, prefix: str, suffix: str, **options: object) -> Result:
    place = save_place(call.folders.output, prefix, width=images.shape[2], height=images.shape[1])
    name = f"{place.stem}_{place.counter:05}_.{suffix}"
    first, *others = _pictures(call, images)
    _write(place.folder / name, first, format=suffix.upper(), save_all=True, append_images=others, **options)
    entry = {"filename": name, "subfolder": place.subfolder, "type": "output"}
    return Shown(ui={"images": [entry], "animated": (True,)}, values=(images,))


def _pictures(call: Call, images: Pixels) -> "Iterator[Image.Image]":
    from PIL import Image

    for values in images:
        call.check()
        yield Image.fromarray(to_bytes(values))


def _write(path: Path, picture: "Image.Image", **options: object) -> None:
    with atomic_file(path, durable=False) as file:
        picture.save(file, **options)  # type: ignore[arg-type]


def metadata_texts(call: Call) -> Iterator[tuple[str, str]]:
    """Yield the prompt and the workflow as pictures carry them."""
    yield "prompt", json.dumps(call.graph)
    for name, value in (call.extra_pnginfo or {}).items():
        yield name, json.dumps(value)


def _png_info(call: Call) -> "PngInfo | None":
    from PIL import PngImagePlugin

    if not call.metadata:
        return None
    info = PngImagePlugin.PngInfo()
    for name, value in metadata_texts(call):
        info.add_text(name, value)
    return info


HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
_PREFIX_HELP = (
    "The prefix for the file to save. This may include formatting information such as %date:yyyy-MM-dd% or "
    "%Empty Latent Image.width% to include values from nodes."
)
_PREFIX = Input(name="filename_prefix", type="STRING", options={"default": "ComfyUI"})

CLASSES = (
    NodeClass(
        name="SaveImage",
        display_name="Save Image",
        description="Saves the input images to your ComfyUI output directory.",
        category="image",
        module="nodes",
        inputs=(
            image("images", tooltip="The images to save."),
            Input(name="filename_prefix", type="STRING", options={"default": "ComfyUI", "tooltip": _PREFIX_HELP}),
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
        inputs=(image("images"),),
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
            image("images"),
            _PREFIX,
            number("fps", 6.0, 0.01, 1000.0, 0.01),
            flag("lossless", default=True),
            whole("quality", 80, 0, 100, step=None),
            choice("method", *_WEBP_METHODS),
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
            image("images"),
            _PREFIX,
            number("fps", 6.0, 0.01, 1000.0, 0.01),
            whole("compress_level", 4, 0, 9, step=None),
        ),
        hidden=HIDDEN,
        is_output=True,
        run=save_animated_png,
    ),
)

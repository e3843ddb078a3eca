"""Nodes that load pictures from files, or make them of one colour."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from comfypin.digest import Digest
from comfypin.engine.embedded.arrays import PixelArray, filled_array, from_bytes, reserve_memory
from comfypin.engine.embedded.declare import (
    MAX_SIDE,
    NodeClass,
    NodeContext,
    NodeInput,
    NodeResult,
    NodeValue,
    choice_input,
    float_input,
    integer_input,
)
from comfypin.engine.embedded.folders import EngineFolders

if TYPE_CHECKING:
    from PIL import Image

# ComfyUI gives pictures without alpha an empty mask of this size, whatever their own size.
_NO_MASK = (64, 64)
_COLOURS = ("red", "green", "blue")
_SIXTEEN_BIT = "I"
_GREY_FORMATS = ("PNG", "JPEG")
_GREY_MODES = ("L", "LA", "I", "I;16")
# A format whose further frames are other views of the same picture, not an animation.
_EYE_VIEWS = "MPO"


def load_image(context: NodeContext, *, image: str) -> tuple[PixelArray, PixelArray]:
    """Load every frame that has the first frame's size, and 1 - alpha as the mask."""
    pictures: list[PixelArray] = []
    masks: list[PixelArray] = []
    with _open_picture(context.folders, image) as opened_image:
        for frame in _iterate_frames(opened_image):
            context.check_interrupted()
            colours = frame.convert("RGB")
            # Frames of another size cannot be in the same batch: ComfyUI drops them.
            if pictures and colours.size != (pictures[0].shape[2], pictures[0].shape[1]):
                continue
            reserve_memory(colours.height, colours.width, 3)
            pictures.append(from_bytes(np.array(colours))[None])
            masks.append(_alpha_mask(frame)[None])
            if opened_image.format == _EYE_VIEWS:
                break
    return np.concatenate(pictures), np.concatenate(masks)


def load_image_mask(context: NodeContext, *, image: str, channel: str) -> NodeResult:
    """Load one channel of a file as a mask (alpha is inverted)."""
    with _open_picture(context.folders, image) as opened_image:
        picture = _turn_upright(opened_image)
        if picture.getbands() != ("R", "G", "B", "A"):
            picture = _to_eight_bits(picture).convert("RGBA")
        pixel_values = from_bytes(np.array(picture.getchannel(channel[0].upper())))
    return ((np.float32(1.0) - pixel_values if channel == "alpha" else pixel_values)[None],)


def load_image_newer(context: NodeContext, *, image: str) -> tuple[PixelArray, PixelArray]:
    """Load a file as ComfyUI 0.33 does, which decodes by FFmpeg: greys are another value than colours.

    A picture with a palette has a mask of its size in any case. A JPEG's colours differ a little from what Pillow
    decodes here (docs/embedded-engine.md).
    """
    pixels, masks = load_image(context, image=image)
    with _open_picture(context.folders, image) as opened_image:
        if opened_image.format in _GREY_FORMATS and opened_image.mode in _GREY_MODES:
            grey = _widen_grey(_turn_upright(opened_image))
            pixels = np.repeat(grey[None, ..., :1], 3, axis=3)
            masks = np.float32(1.0) - grey[None, ..., 1] if grey.shape[2] > 1 else masks
        elif opened_image.mode == "P" and masks.shape[1:] != pixels.shape[1:3]:
            masks = np.zeros(pixels.shape[:3], np.float32)
    return pixels, masks


def _widen_grey(picture: "Image.Image") -> PixelArray:
    """Return grey and alpha as FFmpeg does: 8 bits become 16 by a shift, so white is 65280 of 65535."""
    pixel_values = np.array(picture).astype(np.float32)
    if picture.mode in ("L", "LA"):
        pixel_values *= np.float32(256)
    return (pixel_values * np.float32(1 / 65535)).reshape(picture.height, picture.width, -1)


def load_image_mask_newer(context: NodeContext, *, image: str, channel: str) -> NodeResult:
    """Return the mask of what `load_image_newer` loads, or one of its colours: ComfyUI 0.33's form."""
    pixels, masks = load_image_newer(context, image=image)
    return (masks if channel == "alpha" else pixels[..., _COLOURS.index(channel)].copy(),)


def empty_image(context: NodeContext, *, width: int, height: int, batch_size: int = 1, color: int = 0) -> NodeResult:
    """Make pictures of one colour."""
    context.check_interrupted()
    shape = (batch_size, height, width, 1)
    bands = [filled_array(shape, ((color >> shift) & 0xFF) / 0xFF) for shift in (16, 8, 0)]
    reserve_memory(batch_size, height, width, 3)
    return (np.concatenate(bands, axis=-1),)


def solid_mask(context: NodeContext, *, value: float, width: int, height: int) -> NodeResult:
    """Make a mask of one value."""
    context.check_interrupted()
    return (filled_array((1, height, width), value),)


@contextlib.contextmanager
def _open_picture(folders: EngineFolders, file_name: str) -> "Iterator[Image.Image]":
    from PIL import Image

    path = folders.find_input(file_name)
    if path is None:
        raise FileNotFoundError(f"[Errno 2] No such file or directory: {file_name!r}")
    with Image.open(path) as opened_image:
        yield opened_image


def _iterate_frames(opened_image: "Image.Image") -> "Iterator[Image.Image]":
    from PIL import ImageSequence

    for frame in ImageSequence.Iterator(opened_image):
        yield _to_eight_bits(_turn_upright(frame))


def _turn_upright(picture: "Image.Image") -> "Image.Image":
    """Turn the picture as its EXIF orientation says; what a truncated file lacks stays black, as in ComfyUI."""
    from PIL import ImageFile, ImageOps

    try:
        return ImageOps.exif_transpose(picture)
    except (OSError, ValueError):
        # Pillow has only this global switch, so it is on for as short as possible.
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            return ImageOps.exif_transpose(picture)
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False


def _to_eight_bits(picture: "Image.Image") -> "Image.Image":
    # Divided by 255, not 256: that is how ComfyUI does it, and white becomes 257, cut off.
    return picture.point(lambda level: level * (1 / 255)) if picture.mode == _SIXTEEN_BIT else picture


def _alpha_mask(frame: "Image.Image") -> PixelArray:
    if "A" in frame.getbands():
        return np.float32(1.0) - from_bytes(np.array(frame.getchannel("A")))
    if frame.mode == "P" and "transparency" in frame.info:
        return np.float32(1.0) - from_bytes(np.array(frame.convert("RGBA").getchannel("A")))
    return np.zeros(_NO_MASK, np.float32)


def _file_digest(folders: EngineFolders, inputs: Mapping[str, NodeValue]) -> str:
    path = folders.find_input(str(inputs["image"]))
    if path is None:
        raise FileNotFoundError(str(inputs["image"]))
    return Digest.of_file(path).hex


def _missing_file(folders: EngineFolders, value: NodeValue) -> str | None:
    if not isinstance(value, str):  # a file name of another type crashes the validation of ComfyUI, in these words
        raise AttributeError(f"'{type(value).__name__}' object has no attribute 'endswith'")
    return f"Invalid image file: {value}" if folders.find_input(value) is None else None


_UPLOAD = {"image_upload": True}

CLASSES = (
    NodeClass(
        name="LoadImage",
        display_name="Load Image",
        category="image",
        module="nodes",
        inputs=(NodeInput(name="image", choices=EngineFolders.list_pictures, options=_UPLOAD),),
        outputs=("IMAGE", "MASK"),
        run=load_image,
        fingerprint=_file_digest,
        complaints={"image": _missing_file},
    ),
    NodeClass(
        name="LoadImageMask",
        display_name="Load Image (as Mask)",
        category="mask",
        module="nodes",
        inputs=(
            NodeInput(name="image", choices=EngineFolders.list_files, options=_UPLOAD),
            choice_input("channel", "alpha", "red", "green", "blue"),
        ),
        outputs=("MASK",),
        run=load_image_mask,
        fingerprint=_file_digest,
        complaints={"image": _missing_file},
    ),
    NodeClass(
        name="EmptyImage",
        display_name="EmptyImage",
        category="image",
        module="nodes",
        inputs=(
            integer_input("width", 512, 1, MAX_SIDE),
            integer_input("height", 512, 1, MAX_SIDE),
            integer_input("batch_size", 1, 1, 4096, step=None),
            integer_input("color", 0, 0, 0xFFFFFF, display="color"),
        ),
        outputs=("IMAGE",),
        run=empty_image,
    ),
    NodeClass(
        name="SolidMask",
        display_name="SolidMask",
        category="mask",
        module="comfy_extras.nodes_mask",
        inputs=(
            float_input("value", 1.0, 0.0, 1.0, 0.01),
            integer_input("width", 512, 1, MAX_SIDE),
            integer_input("height", 512, 1, MAX_SIDE),
        ),
        outputs=("MASK",),
        run=solid_mask,
    ),
)

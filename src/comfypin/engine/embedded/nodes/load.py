"""Nodes that bring pictures in: from files, or made of one colour."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from comfypin.digest import Digest
from comfypin.engine.embedded.arrays import Pixels, from_bytes, full, reserve
from comfypin.engine.embedded.declare import MAX_SIDE, Call, Input, NodeClass, Result, Value, choice, number, whole
from comfypin.engine.embedded.folders import Folders

if TYPE_CHECKING:
    from PIL import Image

_NO_MASK = (64, 64)
_COLOURS = ("red", "green", "blue")
_SIXTEEN_BIT = "I"
_GREY_FORMATS = ("PNG", "JPEG")
_GREY_MODES = ("L", "LA", "I", "I;16")
_EYE_VIEWS = "MPO"
"""A format whose further frames are other views of the same picture, not an animation."""


def load_image(call: Call, *, image: str) -> tuple[Pixels, Pixels]:
    """Every frame of a file that has the first frame's size, and 1 - alpha as the mask."""
    pictures: list[Pixels] = []
    masks: list[Pixels] = []
    with _opened(call.folders, image) as opened:
        for frame in _frames(opened):
            call.check()
            colours = frame.convert("RGB")
            if pictures and colours.size != (pictures[0].shape[2], pictures[0].shape[1]):
                continue
            reserve(colours.height, colours.width, 3)
            pictures.append(from_bytes(np.array(colours))[None])
            masks.append(_mask_of(frame)[None])
            if opened.format == _EYE_VIEWS:
                break
    return np.concatenate(pictures), np.concatenate(masks)


def load_image_mask(call: Call, *, image: str, channel: str) -> Result:
    """One channel of a file as a mask (alpha is inverted)."""
    with _opened(call.folders, image) as opened:
        picture = _upright(opened)
        if picture.getbands() != ("R", "G", "B", "A"):
            picture = _to_eight_bits(picture).convert("RGBA")
        values = from_bytes(np.array(picture.getchannel(channel[0].upper())))
    return ((np.float32(1.0) - values if channel == "alpha" else values)[None],)


def load_image_newer(call: Call, *, image: str) -> tuple[Pixels, Pixels]:
    """Load a file as ComfyUI 0.33 does, which decodes by FFmpeg: greys are another value than colours.

    A picture with a palette has a mask of its size in any case. A JPEG's colours differ a little from what Pillow
    decodes here (docs/embedded-engine.md).
    """
    pixels, masks = load_image(call, image=image)
    with _opened(call.folders, image) as opened:
        if opened.format in _GREY_FORMATS and opened.mode in _GREY_MODES:
            grey = _widened(_upright(opened))
            pixels = np.repeat(grey[None, ..., :1], 3, axis=3)
            masks = np.float32(1.0) - grey[None, ..., 1] if grey.shape[2] > 1 else masks
        elif opened.mode == "P" and masks.shape[1:] != pixels.shape[1:3]:
            masks = np.zeros(pixels.shape[:3], np.float32)
    return pixels, masks


def _widened(picture: "Image.Image") -> Pixels:
    """Return grey and alpha as FFmpeg does: 8 bits become 16 by a shift, so white is 65280 of 65535."""
    values = np.array(picture).astype(np.float32)
    if picture.mode in ("L", "LA"):
        values *= np.float32(256)
    return (values * np.float32(1 / 65535)).reshape(picture.height, picture.width, -1)


def load_image_mask_newer(call: Call, *, image: str, channel: str) -> Result:
    """Return the mask of what `load_image_newer` loads, or one of its colours: ComfyUI 0.33's form."""
    pixels, masks = load_image_newer(call, image=image)
    return (masks if channel == "alpha" else pixels[..., _COLOURS.index(channel)].copy(),)


def empty_image(call: Call, *, width: int, height: int, batch_size: int = 1, color: int = 0) -> Result:
    """Pictures of one colour."""
    call.check()
    shape = (batch_size, height, width, 1)
    bands = [full(shape, ((color >> shift) & 0xFF) / 0xFF) for shift in (16, 8, 0)]
    reserve(batch_size, height, width, 3)
    return (np.concatenate(bands, axis=-1),)


def solid_mask(call: Call, *, value: float, width: int, height: int) -> Result:
    """A mask of one value."""
    call.check()
    return (full((1, height, width), value),)


@contextlib.contextmanager
def _opened(folders: Folders, name: str) -> "Iterator[Image.Image]":
    from PIL import Image

    path = folders.find(name)
    if path is None:
        raise FileNotFoundError(f"[Errno 2] No such file or directory: {name!r}")
    with Image.open(path) as opened:
        yield opened


def _frames(opened: "Image.Image") -> "Iterator[Image.Image]":
    from PIL import ImageSequence

    for frame in ImageSequence.Iterator(opened):
        yield _to_eight_bits(_upright(frame))


def _upright(picture: "Image.Image") -> "Image.Image":
    """The picture turned as its EXIF orientation says; what a cut-off file lacks is left black, as ComfyUI does."""
    from PIL import ImageFile, ImageOps

    try:
        return ImageOps.exif_transpose(picture)
    except (OSError, ValueError):
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            return ImageOps.exif_transpose(picture)
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False


def _to_eight_bits(picture: "Image.Image") -> "Image.Image":
    return picture.point(lambda level: level * (1 / 255)) if picture.mode == _SIXTEEN_BIT else picture


def _mask_of(frame: "Image.Image") -> Pixels:
    if "A" in frame.getbands():
        return np.float32(1.0) - from_bytes(np.array(frame.getchannel("A")))
    if frame.mode == "P" and "transparency" in frame.info:
        return np.float32(1.0) - from_bytes(np.array(frame.convert("RGBA").getchannel("A")))
    return np.zeros(_NO_MASK, np.float32)


def _file_digest(folders: Folders, inputs: Mapping[str, Value]) -> str:
    path = folders.find(str(inputs["image"]))
    if path is None:
        raise FileNotFoundError(str(inputs["image"]))
    return Digest.of_file(path).hex


def _missing_file(folders: Folders, value: Value) -> str | None:
    if not isinstance(value, str):  # a file name of another type crashes the validation of ComfyUI, in these words
        raise AttributeError(f"'{type(value).__name__}' object has no attribute 'endswith'")
    return f"Invalid image file: {value}" if folders.find(value) is None else None


_UPLOAD = {"image_upload": True}

CLASSES = (
    NodeClass(
        name="LoadImage",
        display_name="Load Image",
        category="image",
        module="nodes",
        inputs=(Input(name="image", choices=Folders.pictures, options=_UPLOAD),),
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
            Input(name="image", choices=Folders.files, options=_UPLOAD),
            choice("channel", "alpha", "red", "green", "blue"),
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
            whole("width", 512, 1, MAX_SIDE),
            whole("height", 512, 1, MAX_SIDE),
            whole("batch_size", 1, 1, 4096, step=None),
            whole("color", 0, 0, 0xFFFFFF, display="color"),
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
            number("value", 1.0, 0.0, 1.0, 0.01),
            whole("width", 512, 1, MAX_SIDE),
            whole("height", 512, 1, MAX_SIDE),
        ),
        outputs=("MASK",),
        run=solid_mask,
    ),
)

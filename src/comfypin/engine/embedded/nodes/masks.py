"""Nodes that make, change and apply masks."""

from collections.abc import Callable

import numpy as np

from comfypin.engine.embedded.arrays import Pixels, full, reserve
from comfypin.engine.embedded.declare import (
    MAX_SIDE,
    Call,
    Input,
    NodeClass,
    Result,
    choice,
    flag,
    image,
    mask,
    number,
    whole,
)
from comfypin.engine.embedded.nodes.bands import match_bands, match_count
from comfypin.engine.embedded.pixels import interpolate

_CHANNELS = ("red", "green", "blue", "alpha")
_OPERATIONS = ("multiply", "add", "subtract", "and", "or", "xor")


def image_composite_masked(
    call: Call,
    *,
    destination: Pixels,
    source: Pixels,
    x: int,
    y: int,
    resize_source: bool,
    mask: Pixels | None = None,
) -> Result:
    """One picture pasted into another, through a mask that is stretched over it."""
    destination, source = match_bands(destination, source)
    result = destination.copy()
    if resize_source:
        source = interpolate.bilinear(source, result.shape[1], result.shape[2], call.check)
    source = match_count(source, result.shape[0])
    x, y = min(x, result.shape[2]), min(y, result.shape[1])
    if mask is None:
        share = full(source.shape, 1.0)
    else:
        share = _stretched(mask, source, call)
        share = match_count(share, source.shape[0])
    height, width = result.shape[1] - y, result.shape[2] - x
    share = share[:, :height, :width]
    place = result[:, y : y + source.shape[1], x : x + source.shape[2]]
    place[...] = share * source[:, :height, :width] + (np.float32(1) - share) * place
    return (result,)


def mask_to_image(call: Call, *, mask: Pixels) -> Result:
    """A mask as grey."""
    call.check()
    flat = _flat(mask)
    reserve(*flat.shape, 3)
    return (np.repeat(flat[..., None], 3, axis=3),)


def image_to_mask(call: Call, *, image: Pixels, channel: str) -> Result:
    """A channel as a mask."""
    call.check()
    band, bands = _CHANNELS.index(channel), image.shape[3]
    if band >= bands:
        raise IndexError(f"index {band} is out of bounds for dimension 3 with size {bands}")
    return (image[..., band],)


def image_color_to_mask(call: Call, *, image: Pixels, color: int) -> Result:
    """1 where a picture has a colour."""
    call.check()
    levels = np.round(np.clip(image, 0, 1) * np.float32(255.0)).astype(np.int64)
    found = (levels[..., 0] << 16) + (levels[..., 1] << 8) + levels[..., 2]
    return ((found == color).astype(np.float32),)


def invert_mask(call: Call, *, mask: Pixels) -> Result:
    """In for out."""
    call.check()
    return (np.float32(1.0) - mask,)


def crop_mask(call: Call, *, mask: Pixels, x: int, y: int, width: int, height: int) -> Result:
    """A part of a mask."""
    call.check()
    return (_flat(mask)[:, y : y + height, x : x + width],)


def mask_composite(call: Call, *, destination: Pixels, source: Pixels, x: int, y: int, operation: str) -> Result:
    """One mask worked into another."""
    call.check()
    result, other = _flat(destination).copy(), _flat(source)
    place = result[:, y : y + other.shape[1], x : x + other.shape[2]]
    place[...] = _OPERATE[operation](place, other[:, : place.shape[1], : place.shape[2]])
    return (np.clip(result, np.float32(0), np.float32(1)),)


def feather_mask(call: Call, *, mask: Pixels, left: int, top: int, right: int, bottom: int) -> Result:
    """A mask that falls off towards its edges. 0.3.64 counts the far edges from 0, which is the near edge."""
    call.check()
    return (_feathered(mask, (left, top, right, bottom), far=0),)


def feather_mask_newer(call: Call, *, mask: Pixels, left: int, top: int, right: int, bottom: int) -> Result:
    """Let a mask fall off towards its edges as ComfyUI 0.33 does: the far ones too."""
    call.check()
    return (_feathered(mask, (left, top, right, bottom), far=1),)


def _feathered(mask: Pixels, widths: tuple[int, int, int, int], *, far: int) -> Pixels:
    left, top, right, bottom = widths
    result = _flat(mask).copy()
    columns, rows = result.shape[2], result.shape[1]
    for index, rate in _rates(min(left, columns)):
        result[:, :, index] *= rate
    for index, rate in _rates(min(right, columns)):
        result[:, :, -(index + far)] *= rate
    for index, rate in _rates(min(top, rows)):
        result[:, index] *= rate
    for index, rate in _rates(min(bottom, rows)):
        result[:, -(index + far)] *= rate
    return result


def grow_mask(call: Call, *, mask: Pixels, expand: int, tapered_corners: bool) -> Result:
    """A mask grown by pixels on every side, or shrunk where `expand` is negative."""
    result = _flat(mask)
    extreme = np.minimum if expand < 0 else np.maximum
    for _ in range(min(abs(expand), sum(result.shape[1:]))):
        call.check()
        padded = np.pad(result, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
        across = extreme(extreme(padded[:, :, :-2], padded[:, :, 1:-1]), padded[:, :, 2:])
        if tapered_corners:
            result = extreme(extreme(padded[:, :-2, 1:-1], padded[:, 2:, 1:-1]), across[:, 1:-1])
        else:
            result = extreme(extreme(across[:, :-2], across[:, 1:-1]), across[:, 2:])
    return (result,)


def threshold_mask(call: Call, *, mask: Pixels, value: float) -> Result:
    """1 where a mask is above a value."""
    call.check()
    return ((mask > np.float32(value)).astype(np.float32),)


def split_image_with_alpha(call: Call, *, image: Pixels) -> Result:
    """The colours of pictures, and 1 - alpha as masks."""
    call.check()
    alpha = image[..., 3] if image.shape[3] > 3 else np.ones(image.shape[:3], np.float32)
    return image[..., :3], np.float32(1.0) - alpha


def join_image_with_alpha(call: Call, *, image: Pixels, alpha: Pixels) -> Result:
    """Pictures with 1 - mask as their alpha."""
    opaque = np.float32(1.0) - _stretched(alpha, image, call)
    count = min(len(image), len(opaque))
    return (np.concatenate([image[:count, ..., :3], opaque[:count]], axis=3),)


def join_image_with_alpha_newer(call: Call, *, image: Pixels, alpha: Pixels) -> Result:
    """Give pictures 1 - mask as their alpha; ComfyUI 0.33 repeats the shorter of the two batches."""
    count = max(len(image), len(alpha))
    opaque = match_count(np.float32(1.0) - _stretched(alpha, image, call), count)
    return (np.concatenate([match_count(image[..., :3], count), opaque], axis=3),)


def _flat(mask: Pixels) -> Pixels:
    return mask.reshape(-1, *mask.shape[-2:])


def _stretched(mask: Pixels, pixels: Pixels, call: Call) -> Pixels:
    """A mask as pictures of one band, of other pictures' size."""
    return interpolate.bilinear(_flat(mask)[..., None], pixels.shape[1], pixels.shape[2], call.check)


def _rates(count: int) -> list[tuple[int, np.float32]]:
    return [(index, np.float32((index + 1.0) / count)) for index in range(count)]


def _on(values: Pixels) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
    return np.round(values).astype(np.bool_)


_OPERATE: dict[str, Callable[[Pixels, Pixels], Pixels]] = {
    "multiply": lambda a, b: a * b,
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "and": lambda a, b: (_on(a) & _on(b)).astype(np.float32),
    "or": lambda a, b: (_on(a) | _on(b)).astype(np.float32),
    "xor": lambda a, b: (_on(a) ^ _on(b)).astype(np.float32),
}

_MASKS = "comfy_extras.nodes_mask"
_PLACE = (whole("x", 0, 0, MAX_SIDE), whole("y", 0, 0, MAX_SIDE))
_SIZE = (whole("width", 512, 1, MAX_SIDE), whole("height", 512, 1, MAX_SIDE))


def _mask_class(name: str, run: Callable[..., Result], *inputs: Input, display_name: str | None = None) -> NodeClass:
    """A class of the category `mask` that gives a mask."""
    return NodeClass(
        name=name,
        display_name=display_name or name,
        category="mask",
        module=_MASKS,
        inputs=inputs,
        outputs=("MASK",),
        run=run,
    )


CLASSES = (
    NodeClass(
        name="ImageCompositeMasked",
        display_name="ImageCompositeMasked",
        category="image",
        module=_MASKS,
        inputs=(
            image("destination"),
            image("source"),
            *_PLACE,
            flag("resize_source", default=False),
            mask(optional=True),
        ),
        outputs=("IMAGE",),
        run=image_composite_masked,
    ),
    NodeClass(
        name="MaskToImage",
        display_name="Convert Mask to Image",
        category="mask",
        module=_MASKS,
        inputs=(mask(),),
        outputs=("IMAGE",),
        run=mask_to_image,
    ),
    _mask_class(
        "ImageToMask", image_to_mask, image(), choice("channel", *_CHANNELS), display_name="Convert Image to Mask"
    ),
    _mask_class("ImageColorToMask", image_color_to_mask, image(), whole("color", 0, 0, 0xFFFFFF, display="color")),
    _mask_class("InvertMask", invert_mask, mask()),
    _mask_class("CropMask", crop_mask, mask(), *_PLACE, *_SIZE),
    _mask_class(
        "MaskComposite", mask_composite, mask("destination"), mask("source"), *_PLACE, choice("operation", *_OPERATIONS)
    ),
    _mask_class(
        "FeatherMask", feather_mask, mask(), *(whole(n, 0, 0, MAX_SIDE) for n in ("left", "top", "right", "bottom"))
    ),
    _mask_class(
        "GrowMask",
        grow_mask,
        mask(),
        whole("expand", 0, -MAX_SIDE, MAX_SIDE),
        flag("tapered_corners", default=True),
    ),
    _mask_class("ThresholdMask", threshold_mask, mask(), number("value", 0.5, 0.0, 1.0, 0.01)),
    NodeClass(
        name="SplitImageWithAlpha",
        display_name="Split Image with Alpha",
        category="mask/compositing",
        module="comfy_extras.nodes_compositing",
        modern=True,
        inputs=(image(),),
        outputs=("IMAGE", "MASK"),
        run=split_image_with_alpha,
    ),
    NodeClass(
        name="JoinImageWithAlpha",
        display_name="Join Image with Alpha",
        category="mask/compositing",
        module="comfy_extras.nodes_compositing",
        modern=True,
        inputs=(image(), mask("alpha")),
        outputs=("IMAGE",),
        run=join_image_with_alpha,
    ),
)

"""Nodes that make, change and apply masks."""

from collections.abc import Callable

import numpy as np

from comfypin.engine.embedded.arrays import PixelArray, filled_array, reserve_memory
from comfypin.engine.embedded.declare import (
    MAX_SIDE,
    NodeClass,
    NodeContext,
    NodeInput,
    NodeResult,
    boolean_input,
    choice_input,
    float_input,
    image_input,
    integer_input,
    mask_input,
)
from comfypin.engine.embedded.nodes.color_bands import match_bands, match_count
from comfypin.engine.embedded.pixels import interpolate

_CHANNELS = ("red", "green", "blue", "alpha")
_OPERATIONS = ("multiply", "add", "subtract", "and", "or", "xor")


def image_composite_masked(
    context: NodeContext,
    *,
    destination: PixelArray,
    source: PixelArray,
    x: int,
    y: int,
    resize_source: bool,
    mask: PixelArray | None = None,
) -> NodeResult:
    """Paste one picture into another, through a mask that is stretched over it."""
    destination, source = match_bands(destination, source)
    result = destination.copy()
    if resize_source:
        source = interpolate.resize_bilinear(source, result.shape[1], result.shape[2], context.check_interrupted)
    source = match_count(source, result.shape[0])
    x, y = min(x, result.shape[2]), min(y, result.shape[1])
    if mask is None:
        coverage = filled_array(source.shape, 1.0)
    else:
        coverage = _stretch_mask(mask, source, context)
        coverage = match_count(coverage, source.shape[0])
    height, width = result.shape[1] - y, result.shape[2] - x
    coverage = coverage[:, :height, :width]
    region = result[:, y : y + source.shape[1], x : x + source.shape[2]]
    region[...] = coverage * source[:, :height, :width] + (np.float32(1) - coverage) * region
    return (result,)


def mask_to_image(context: NodeContext, *, mask: PixelArray) -> NodeResult:
    """Show a mask as grey."""
    context.check_interrupted()
    flat = _flatten_batch(mask)
    reserve_memory(*flat.shape, 3)
    return (np.repeat(flat[..., None], 3, axis=3),)


def image_to_mask(context: NodeContext, *, image: PixelArray, channel: str) -> NodeResult:
    """Take a channel as a mask."""
    context.check_interrupted()
    band_index, band_count = _CHANNELS.index(channel), image.shape[3]
    if band_index >= band_count:
        raise IndexError(f"index {band_index} is out of bounds for dimension 3 with size {band_count}")
    return (image[..., band_index],)


def image_color_to_mask(context: NodeContext, *, image: PixelArray, color: int) -> NodeResult:
    """Return 1 for pixels of one colour, else 0."""
    context.check_interrupted()
    levels = np.round(np.clip(image, 0, 1) * np.float32(255.0)).astype(np.int64)
    packed_colors = (levels[..., 0] << 16) + (levels[..., 1] << 8) + levels[..., 2]
    return ((packed_colors == color).astype(np.float32),)


def invert_mask(context: NodeContext, *, mask: PixelArray) -> NodeResult:
    """Swap in and out."""
    context.check_interrupted()
    return (np.float32(1.0) - mask,)


def crop_mask(context: NodeContext, *, mask: PixelArray, x: int, y: int, width: int, height: int) -> NodeResult:
    """Cut out a part of a mask."""
    context.check_interrupted()
    return (_flatten_batch(mask)[:, y : y + height, x : x + width],)


def mask_composite(
    context: NodeContext, *, destination: PixelArray, source: PixelArray, x: int, y: int, operation: str
) -> NodeResult:
    """Combine one mask with a part of another."""
    context.check_interrupted()
    result, other = _flatten_batch(destination).copy(), _flatten_batch(source)
    region = result[:, y : y + other.shape[1], x : x + other.shape[2]]
    region[...] = _OPERATE[operation](region, other[:, : region.shape[1], : region.shape[2]])
    return (np.clip(result, np.float32(0), np.float32(1)),)


def feather_mask(context: NodeContext, *, mask: PixelArray, left: int, top: int, right: int, bottom: int) -> NodeResult:
    """Let a mask fall off towards its edges. 0.3.64 counts the far edges from 0, which is the near edge."""
    context.check_interrupted()
    return (_feather_edges(mask, (left, top, right, bottom), far=0),)


def feather_mask_newer(
    context: NodeContext, *, mask: PixelArray, left: int, top: int, right: int, bottom: int
) -> NodeResult:
    """Let a mask fall off towards its edges as ComfyUI 0.33 does: the far ones too."""
    context.check_interrupted()
    return (_feather_edges(mask, (left, top, right, bottom), far=1),)


def _feather_edges(mask: PixelArray, widths: tuple[int, int, int, int], *, far: int) -> PixelArray:
    left, top, right, bottom = widths
    result = _flatten_batch(mask).copy()
    columns, rows = result.shape[2], result.shape[1]
    for index, rate in _feather_rates(min(left, columns)):
        result[:, :, index] *= rate
    for index, rate in _feather_rates(min(right, columns)):
        result[:, :, -(index + far)] *= rate
    for index, rate in _feather_rates(min(top, rows)):
        result[:, index] *= rate
    for index, rate in _feather_rates(min(bottom, rows)):
        result[:, -(index + far)] *= rate
    return result


def grow_mask(context: NodeContext, *, mask: PixelArray, expand: int, tapered_corners: bool) -> NodeResult:
    """Grow a mask on every side, or shrink it if `expand` is negative."""
    result = _flatten_batch(mask)
    pick_extreme = np.minimum if expand < 0 else np.maximum
    for _ in range(min(abs(expand), sum(result.shape[1:]))):
        context.check_interrupted()
        # numpy's `symmetric` is what scipy, which ComfyUI uses here, calls `reflect`.
        padded = np.pad(result, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
        row_extremes = pick_extreme(pick_extreme(padded[:, :, :-2], padded[:, :, 1:-1]), padded[:, :, 2:])
        if tapered_corners:
            result = pick_extreme(pick_extreme(padded[:, :-2, 1:-1], padded[:, 2:, 1:-1]), row_extremes[:, 1:-1])
        else:
            result = pick_extreme(pick_extreme(row_extremes[:, :-2], row_extremes[:, 1:-1]), row_extremes[:, 2:])
    return (result,)


def threshold_mask(context: NodeContext, *, mask: PixelArray, value: float) -> NodeResult:
    """Return 1 for pixels of a mask above a value, else 0."""
    context.check_interrupted()
    return ((mask > np.float32(value)).astype(np.float32),)


def split_image_with_alpha(context: NodeContext, *, image: PixelArray) -> NodeResult:
    """Split pictures into their colours and, as masks, 1 - alpha."""
    context.check_interrupted()
    alpha = image[..., 3] if image.shape[3] > 3 else np.ones(image.shape[:3], np.float32)
    return image[..., :3], np.float32(1.0) - alpha


def join_image_with_alpha(context: NodeContext, *, image: PixelArray, alpha: PixelArray) -> NodeResult:
    """Give pictures 1 - mask as their alpha."""
    opaque = np.float32(1.0) - _stretch_mask(alpha, image, context)
    count = min(len(image), len(opaque))
    return (np.concatenate([image[:count, ..., :3], opaque[:count]], axis=3),)


def join_image_with_alpha_newer(context: NodeContext, *, image: PixelArray, alpha: PixelArray) -> NodeResult:
    """Give pictures 1 - mask as their alpha; ComfyUI 0.33 repeats the shorter of the two batches."""
    count = max(len(image), len(alpha))
    opaque = match_count(np.float32(1.0) - _stretch_mask(alpha, image, context), count)
    return (np.concatenate([match_count(image[..., :3], count), opaque], axis=3),)


def _flatten_batch(mask: PixelArray) -> PixelArray:
    return mask.reshape(-1, *mask.shape[-2:])


def _stretch_mask(mask: PixelArray, pixels: PixelArray, context: NodeContext) -> PixelArray:
    """Resize a mask to other pictures' size, as pictures of one band."""
    return interpolate.resize_bilinear(
        _flatten_batch(mask)[..., None], pixels.shape[1], pixels.shape[2], context.check_interrupted
    )


def _feather_rates(count: int) -> list[tuple[int, np.float32]]:
    return [(index, np.float32((index + 1.0) / count)) for index in range(count)]


def _is_on(values: PixelArray) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
    return np.round(values).astype(np.bool_)


_OPERATE: dict[str, Callable[[PixelArray, PixelArray], PixelArray]] = {
    "multiply": lambda a, b: a * b,
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "and": lambda a, b: (_is_on(a) & _is_on(b)).astype(np.float32),
    "or": lambda a, b: (_is_on(a) | _is_on(b)).astype(np.float32),
    "xor": lambda a, b: (_is_on(a) ^ _is_on(b)).astype(np.float32),
}

_MASKS = "comfy_extras.nodes_mask"
_PLACE = (integer_input("x", 0, 0, MAX_SIDE), integer_input("y", 0, 0, MAX_SIDE))
_SIZE = (integer_input("width", 512, 1, MAX_SIDE), integer_input("height", 512, 1, MAX_SIDE))


def _mask_class(
    class_name: str, run: Callable[..., NodeResult], *inputs: NodeInput, display_name: str | None = None
) -> NodeClass:
    """Declare a class of the category `mask` that gives a mask."""
    return NodeClass(
        name=class_name,
        display_name=display_name or class_name,
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
            image_input("destination"),
            image_input("source"),
            *_PLACE,
            boolean_input("resize_source", default=False),
            mask_input(optional=True),
        ),
        outputs=("IMAGE",),
        run=image_composite_masked,
    ),
    NodeClass(
        name="MaskToImage",
        display_name="Convert Mask to Image",
        category="mask",
        module=_MASKS,
        inputs=(mask_input(),),
        outputs=("IMAGE",),
        run=mask_to_image,
    ),
    _mask_class(
        "ImageToMask",
        image_to_mask,
        image_input(),
        choice_input("channel", *_CHANNELS),
        display_name="Convert Image to Mask",
    ),
    _mask_class(
        "ImageColorToMask", image_color_to_mask, image_input(), integer_input("color", 0, 0, 0xFFFFFF, display="color")
    ),
    _mask_class("InvertMask", invert_mask, mask_input()),
    _mask_class("CropMask", crop_mask, mask_input(), *_PLACE, *_SIZE),
    _mask_class(
        "MaskComposite",
        mask_composite,
        mask_input("destination"),
        mask_input("source"),
        *_PLACE,
        choice_input("operation", *_OPERATIONS),
    ),
    _mask_class(
        "FeatherMask",
        feather_mask,
        mask_input(),
        *(integer_input(n, 0, 0, MAX_SIDE) for n in ("left", "top", "right", "bottom")),
    ),
    _mask_class(
        "GrowMask",
        grow_mask,
        mask_input(),
        integer_input("expand", 0, -MAX_SIDE, MAX_SIDE),
        boolean_input("tapered_corners", default=True),
    ),
    _mask_class("ThresholdMask", threshold_mask, mask_input(), float_input("value", 0.5, 0.0, 1.0, 0.01)),
    NodeClass(
        name="SplitImageWithAlpha",
        display_name="Split Image with Alpha",
        category="mask/compositing",
        module="comfy_extras.nodes_compositing",
        modern=True,
        inputs=(image_input(),),
        outputs=("IMAGE", "MASK"),
        run=split_image_with_alpha,
    ),
    NodeClass(
        name="JoinImageWithAlpha",
        display_name="Join Image with Alpha",
        category="mask/compositing",
        module="comfy_extras.nodes_compositing",
        modern=True,
        inputs=(image_input(), mask_input("alpha")),
        outputs=("IMAGE",),
        run=join_image_with_alpha,
    ),
)

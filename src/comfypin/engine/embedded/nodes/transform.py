"""Nodes that move, cut, stack and pad pictures."""

import numpy as np

from comfypin.engine.embedded.arrays import PixelArray, filled_array, reserve_memory
from comfypin.engine.embedded.declare import (
    MAX_SIDE,
    NodeClass,
    NodeContext,
    NodeInput,
    NodeResult,
    choice_input,
    image_input,
    integer_input,
)
from comfypin.engine.embedded.pixels.resize import resize_pictures

_GREY = 0.5
_ROTATIONS = ("none", "90 degrees", "180 degrees", "270 degrees")
_FLIPS = ("x-axis: vertically", "y-axis: horizontally")


def image_invert(context: NodeContext, *, image: PixelArray) -> NodeResult:
    """Swap light and dark."""
    context.check_interrupted()
    return (np.float32(1.0) - image,)


def image_crop(context: NodeContext, *, image: PixelArray, width: int, height: int, x: int, y: int) -> NodeResult:
    """Cut out a part of each picture; drop what lies over the edge."""
    context.check_interrupted()
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return (image[:, y : y + height, x : x + width],)


def image_flip(context: NodeContext, *, image: PixelArray, flip_method: str) -> NodeResult:
    """Mirror each picture."""
    context.check_interrupted()
    return (image[:, ::-1] if flip_method == _FLIPS[0] else image[:, :, ::-1],)


def image_rotate(context: NodeContext, *, image: PixelArray, rotation: str) -> NodeResult:
    """Turn each picture clockwise by quarters."""
    context.check_interrupted()
    return (np.rot90(image, k=_ROTATIONS.index(rotation), axes=(2, 1)),)


def image_batch(context: NodeContext, *, image1: PixelArray, image2: PixelArray) -> NodeResult:
    """Join two batches; the second takes the first one's size."""
    return (stack_pictures([image1, image2], context),)


def repeat_image_batch(context: NodeContext, *, image: PixelArray, amount: int) -> NodeResult:
    """Repeat the batch several times."""
    context.check_interrupted()
    reserve_memory(image.shape[0] * amount, *image.shape[1:])
    return (np.tile(image, (amount, 1, 1, 1)),)


def image_from_batch(context: NodeContext, *, image: PixelArray, batch_index: int, length: int) -> NodeResult:
    """Take consecutive pictures of a batch."""
    context.check_interrupted()
    if batch_index < 0:  # only newer releases let that through: from the end
        batch_index += image.shape[0]
    first = max(0, min(image.shape[0] - 1, batch_index))
    return (image[first : first + length].copy(),)


def rebatch_images(context: NodeContext, *, images: list[PixelArray], batch_size: list[int]) -> NodeResult:
    """Regroup a list of batches into batches of another size."""
    context.check_interrupted()
    pictures = [picture[None] for batch in images for picture in batch]
    size = batch_size[0]
    return ([np.concatenate(pictures[start : start + size]) for start in range(0, len(pictures), size)],)


def image_pad_for_outpaint(
    context: NodeContext, *, image: PixelArray, left: int, top: int, right: int, bottom: int, feathering: int
) -> NodeResult:
    """Put grey around each picture, and make a mask of what to paint, feathered over the picture's edges."""
    context.check_interrupted()
    count, height, width, band_count = image.shape
    padded = filled_array((count, height + top + bottom, width + left + right, band_count), _GREY)
    padded[:, top : top + height, left : left + width] = image
    painted = filled_array((height + top + bottom, width + left + right), 1.0)
    painted[top : top + height, left : left + width] = _feather_mask(
        height, width, (left, top, right, bottom), feathering
    )
    return padded, painted[None]


def _feather_mask(height: int, width: int, padding: tuple[int, int, int, int], feathering: int) -> PixelArray:
    """Return 1 at the padded edges, falling to 0 by the square of the distance."""
    left, top, right, bottom = padding
    # ComfyUI leaves out a feather that would meet itself in the middle.
    if not 0 < feathering * 2 < min(height, width):
        return np.zeros((height, width), np.float32)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    distance = np.full((height, width), feathering)
    edges = ((top, rows), (bottom, height - rows), (left, columns), (right, width - columns))
    for padded, distances in edges:
        if padded:
            distance = np.minimum(distance, distances)
    share = (feathering - distance) / feathering
    return (share * share).astype(np.float32)


def stack_pictures(batches: list[PixelArray], context: NodeContext) -> PixelArray:
    """Return batches as one, of the first one's size; whatever has fewer bands than others gets one more, of ones."""
    band_count = max(batch.shape[3] for batch in batches)
    padded = [
        batch if batch.shape[3] == band_count else np.pad(batch, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1.0)
        for batch in batches
    ]
    height, width = padded[0].shape[1:3]
    resized = [
        batch
        if batch.shape[1:] == padded[0].shape[1:]
        else resize_pictures(
            batch,
            width=width,
            height=height,
            method="bilinear",
            crop="center",
            check_interrupted=context.check_interrupted,
        )
        for batch in padded
    ]
    reserve_memory(sum(len(batch) for batch in resized), *resized[0].shape[1:])
    return np.concatenate(resized)


_BATCH = NodeInput(name="batch_size", type="INT", options={"default": 1, "min": 1, "max": 4096})

CLASSES = (
    NodeClass(
        name="ImageInvert",
        display_name="Invert Image",
        category="image",
        module="nodes",
        inputs=(image_input(),),
        outputs=("IMAGE",),
        run=image_invert,
    ),
    NodeClass(
        name="ImageCrop",
        display_name="Image Crop",
        category="image/transform",
        module="comfy_extras.nodes_images",
        inputs=(
            image_input(),
            integer_input("width", 512, 1, MAX_SIDE),
            integer_input("height", 512, 1, MAX_SIDE),
            integer_input("x", 0, 0, MAX_SIDE),
            integer_input("y", 0, 0, MAX_SIDE),
        ),
        outputs=("IMAGE",),
        run=image_crop,
    ),
    NodeClass(
        name="ImageFlip",
        display_name="ImageFlip",
        category="image/transform",
        module="comfy_extras.nodes_images",
        inputs=(image_input(), choice_input("flip_method", *_FLIPS)),
        outputs=("IMAGE",),
        run=image_flip,
    ),
    NodeClass(
        name="ImageRotate",
        display_name="ImageRotate",
        category="image/transform",
        module="comfy_extras.nodes_images",
        inputs=(image_input(), choice_input("rotation", *_ROTATIONS)),
        outputs=("IMAGE",),
        run=image_rotate,
    ),
    NodeClass(
        name="ImageBatch",
        display_name="Batch Images",
        category="image",
        module="nodes",
        inputs=(image_input("image1"), image_input("image2")),
        outputs=("IMAGE",),
        run=image_batch,
    ),
    NodeClass(
        name="RepeatImageBatch",
        display_name="RepeatImageBatch",
        category="image/batch",
        module="comfy_extras.nodes_images",
        inputs=(image_input(), integer_input("amount", 1, 1, 4096, step=None)),
        outputs=("IMAGE",),
        run=repeat_image_batch,
    ),
    NodeClass(
        name="ImageFromBatch",
        display_name="ImageFromBatch",
        category="image/batch",
        module="comfy_extras.nodes_images",
        inputs=(
            image_input(),
            integer_input("batch_index", 0, 0, 4095, step=None),
            integer_input("length", 1, 1, 4096, step=None),
        ),
        outputs=("IMAGE",),
        run=image_from_batch,
    ),
    NodeClass(
        name="RebatchImages",
        display_name="Rebatch Images",
        category="image/batch",
        module="comfy_extras.nodes_rebatch",
        modern=True,
        inputs=(image_input("images"), _BATCH),
        outputs=("IMAGE",),
        output_lists=(True,),
        takes_lists=True,
        run=rebatch_images,
    ),
    NodeClass(
        name="ImagePadForOutpaint",
        display_name="Pad Image for Outpainting",
        category="image",
        module="nodes",
        inputs=(
            image_input(),
            integer_input("left", 0, 0, MAX_SIDE, step=8),
            integer_input("top", 0, 0, MAX_SIDE, step=8),
            integer_input("right", 0, 0, MAX_SIDE, step=8),
            integer_input("bottom", 0, 0, MAX_SIDE, step=8),
            integer_input("feathering", 40, 0, MAX_SIDE),
        ),
        outputs=("IMAGE", "MASK"),
        run=image_pad_for_outpaint,
    ),
)

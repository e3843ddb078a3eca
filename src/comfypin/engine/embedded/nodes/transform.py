"""Nodes that move, cut, stack and pad pictures."""

import numpy as np

from comfypin.engine.embedded.arrays import Pixels, full, reserve
from comfypin.engine.embedded.declare import MAX_SIDE, Call, Input, NodeClass, Result, choice, image, whole
from comfypin.engine.embedded.pixels.resize import resize

_GREY = 0.5
_ROTATIONS = ("none", "90 degrees", "180 degrees", "270 degrees")
_FLIPS = ("x-axis: vertically", "y-axis: horizontally")


def image_invert(call: Call, *, image: Pixels) -> Result:
    """Light for dark."""
    call.check()
    return (np.float32(1.0) - image,)


def image_crop(call: Call, *, image: Pixels, width: int, height: int, x: int, y: int) -> Result:
    """A part of each picture; what lies over the edge is left away."""
    call.check()
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return (image[:, y : y + height, x : x + width],)


def image_flip(call: Call, *, image: Pixels, flip_method: str) -> Result:
    """Each picture mirrored."""
    call.check()
    return (image[:, ::-1] if flip_method == _FLIPS[0] else image[:, :, ::-1],)


def image_rotate(call: Call, *, image: Pixels, rotation: str) -> Result:
    """Each picture turned clockwise by quarters."""
    call.check()
    return (np.rot90(image, k=_ROTATIONS.index(rotation), axes=(2, 1)),)


def image_batch(call: Call, *, image1: Pixels, image2: Pixels) -> Result:
    """Two batches as one; the second takes the first one's size."""
    return (stack_pictures([image1, image2], call),)


def repeat_image_batch(call: Call, *, image: Pixels, amount: int) -> Result:
    """The batch several times over."""
    call.check()
    reserve(image.shape[0] * amount, *image.shape[1:])
    return (np.tile(image, (amount, 1, 1, 1)),)


def image_from_batch(call: Call, *, image: Pixels, batch_index: int, length: int) -> Result:
    """A run of pictures of a batch."""
    call.check()
    if batch_index < 0:  # only newer releases let that through: from the end
        batch_index += image.shape[0]
    first = max(0, min(image.shape[0] - 1, batch_index))
    return (image[first : first + length].copy(),)


def rebatch_images(call: Call, *, images: list[Pixels], batch_size: list[int]) -> Result:
    """A list of batches as a list of batches of another size."""
    call.check()
    pictures = [picture[None] for batch in images for picture in batch]
    size = batch_size[0]
    return ([np.concatenate(pictures[start : start + size]) for start in range(0, len(pictures), size)],)


def image_pad_for_outpaint(
    call: Call, *, image: Pixels, left: int, top: int, right: int, bottom: int, feathering: int
) -> Result:
    """Grey around each picture, and a mask of what is to be painted, feathered over the picture's edge."""
    call.check()
    count, height, width, bands = image.shape
    padded = full((count, height + top + bottom, width + left + right, bands), _GREY)
    padded[:, top : top + height, left : left + width] = image
    painted = full((height + top + bottom, width + left + right), 1.0)
    painted[top : top + height, left : left + width] = _feather(height, width, (left, top, right, bottom), feathering)
    return padded, painted[None]


def _feather(height: int, width: int, padding: tuple[int, int, int, int], feathering: int) -> Pixels:
    """1 at the padded edges, falling to 0 by the square of the distance."""
    left, top, right, bottom = padding
    if not 0 < feathering * 2 < min(height, width):
        return np.zeros((height, width), np.float32)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    distance = np.full((height, width), feathering)
    edges = ((top, rows), (bottom, height - rows), (left, columns), (right, width - columns))
    for padded, away in edges:
        if padded:
            distance = np.minimum(distance, away)
    share = (feathering - distance) / feathering
    return (share * share).astype(np.float32)


def stack_pictures(batches: list[Pixels], call: Call) -> Pixels:
    """Return batches as one, of the first one's size; whatever has fewer bands than others gets one more, of ones."""
    bands = max(batch.shape[3] for batch in batches)
    padded = [
        batch if batch.shape[3] == bands else np.pad(batch, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1.0)
        for batch in batches
    ]
    height, width = padded[0].shape[1:3]
    resized = [
        batch
        if batch.shape[1:] == padded[0].shape[1:]
        else resize(batch, width=width, height=height, method="bilinear", crop="center", check=call.check)
        for batch in padded
    ]
    reserve(sum(len(batch) for batch in resized), *resized[0].shape[1:])
    return np.concatenate(resized)


_BATCH = Input(name="batch_size", type="INT", options={"default": 1, "min": 1, "max": 4096})

CLASSES = (
    NodeClass(
        name="ImageInvert",
        display_name="Invert Image",
        category="image",
        module="nodes",
        inputs=(image(),),
        outputs=("IMAGE",),
        run=image_invert,
    ),
    NodeClass(
        name="ImageCrop",
        display_name="Image Crop",
        category="image/transform",
        module="comfy_extras.nodes_images",
        inputs=(
            image(),
            whole("width", 512, 1, MAX_SIDE),
            whole("height", 512, 1, MAX_SIDE),
            whole("x", 0, 0, MAX_SIDE),
            whole("y", 0, 0, MAX_SIDE),
        ),
        outputs=("IMAGE",),
        run=image_crop,
    ),
    NodeClass(
        name="ImageFlip",
        display_name="ImageFlip",
        category="image/transform",
        module="comfy_extras.nodes_images",
        inputs=(image(), choice("flip_method", *_FLIPS)),
        outputs=("IMAGE",),
        run=image_flip,
    ),
    NodeClass(
        name="ImageRotate",
        display_name="ImageRotate",
        category="image/transform",
        module="comfy_extras.nodes_images",
        inputs=(image(), choice("rotation", *_ROTATIONS)),
        outputs=("IMAGE",),
        run=image_rotate,
    ),
    NodeClass(
        name="ImageBatch",
        display_name="Batch Images",
        category="image",
        module="nodes",
        inputs=(image("image1"), image("image2")),
        outputs=("IMAGE",),
        run=image_batch,
    ),
    NodeClass(
        name="RepeatImageBatch",
        display_name="RepeatImageBatch",
        category="image/batch",
        module="comfy_extras.nodes_images",
        inputs=(image(), whole("amount", 1, 1, 4096, step=None)),
        outputs=("IMAGE",),
        run=repeat_image_batch,
    ),
    NodeClass(
        name="ImageFromBatch",
        display_name="ImageFromBatch",
        category="image/batch",
        module="comfy_extras.nodes_images",
        inputs=(image(), whole("batch_index", 0, 0, 4095, step=None), whole("length", 1, 1, 4096, step=None)),
        outputs=("IMAGE",),
        run=image_from_batch,
    ),
    NodeClass(
        name="RebatchImages",
        display_name="Rebatch Images",
        category="image/batch",
        module="comfy_extras.nodes_rebatch",
        modern=True,
        inputs=(image("images"), _BATCH),
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
            image(),
            whole("left", 0, 0, MAX_SIDE, step=8),
            whole("top", 0, 0, MAX_SIDE, step=8),
            whole("right", 0, 0, MAX_SIDE, step=8),
            whole("bottom", 0, 0, MAX_SIDE, step=8),
            whole("feathering", 40, 0, MAX_SIDE),
        ),
        outputs=("IMAGE", "MASK"),
        run=image_pad_for_outpaint,
    ),
)

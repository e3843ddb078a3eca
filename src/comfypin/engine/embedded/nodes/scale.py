"""Nodes that change the size of pictures."""

import math

from comfypin.engine.embedded.arrays import PixelArray
from comfypin.engine.embedded.declare import (
    MAX_SIDE,
    NodeClass,
    NodeContext,
    NodeResult,
    choice_input,
    float_input,
    image_input,
    integer_input,
)
from comfypin.engine.embedded.pixels.resize import METHODS, resize_pictures

# ComfyUI counts megapixels in units of 1024 x 1024.
_MEGAPIXEL = 1024 * 1024


def image_scale(
    context: NodeContext, *, image: PixelArray, upscale_method: str, width: int, height: int, crop: str
) -> NodeResult:
    """Resize to a size; a side of 0 keeps the proportions, two of them keep the picture."""
    if width == 0 and height == 0:
        return (image,)
    old_height, old_width = image.shape[1:3]
    width = width or max(1, round(old_width * height / old_height))
    height = height or max(1, round(old_height * width / old_width))
    return (
        resize_pictures(
            image,
            width=width,
            height=height,
            method=upscale_method,
            crop=crop,
            check_interrupted=context.check_interrupted,
        ),
    )


def image_scale_by(context: NodeContext, *, image: PixelArray, upscale_method: str, scale_by: float) -> NodeResult:
    """Resize by a factor."""
    height, width = (round(side * scale_by) for side in image.shape[1:3])
    return (
        resize_pictures(
            image,
            width=width,
            height=height,
            method=upscale_method,
            crop="disabled",
            check_interrupted=context.check_interrupted,
        ),
    )


def image_scale_to_total_pixels(
    context: NodeContext, *, image: PixelArray, upscale_method: str, megapixels: float
) -> NodeResult:
    """Resize to a number of megapixels (of 1024 x 1024), keeping the proportions."""
    factor = math.sqrt(int(megapixels * _MEGAPIXEL) / (image.shape[2] * image.shape[1]))
    height, width = (round(side * factor) for side in image.shape[1:3])
    return (
        resize_pictures(
            image,
            width=width,
            height=height,
            method=upscale_method,
            crop="disabled",
            check_interrupted=context.check_interrupted,
        ),
    )


def image_scale_to_steps(
    context: NodeContext, *, image: PixelArray, upscale_method: str, megapixels: float, resolution_steps: int
) -> NodeResult:
    """Resize to a number of megapixels; each side is a multiple of `resolution_steps`. ComfyUI 0.33's form."""
    factor = math.sqrt(megapixels * _MEGAPIXEL / (image.shape[2] * image.shape[1]))
    height, width = (round(side * factor / resolution_steps) * resolution_steps for side in image.shape[1:3])
    return (
        resize_pictures(
            image,
            width=width,
            height=height,
            method=upscale_method,
            crop="disabled",
            check_interrupted=context.check_interrupted,
        ),
    )


def image_scale_to_max_dimension(
    context: NodeContext, *, image: PixelArray, upscale_method: str, largest_size: int
) -> NodeResult:
    """Resize so that the longer side has a length."""
    height, width = image.shape[1:3]
    if height > width:
        width, height = round((width / height) * largest_size), largest_size
    elif width > height:
        height, width = round((height / width) * largest_size), largest_size
    else:
        width = height = largest_size
    return (
        resize_pictures(
            image,
            width=width,
            height=height,
            method=upscale_method,
            crop="disabled",
            check_interrupted=context.check_interrupted,
        ),
    )


CLASSES = (
    NodeClass(
        name="ImageScale",
        display_name="Upscale Image",
        category="image/upscaling",
        module="nodes",
        inputs=(
            image_input(),
            choice_input("upscale_method", *METHODS),
            integer_input("width", 512, 0, MAX_SIDE),
            integer_input("height", 512, 0, MAX_SIDE),
            choice_input("crop", "disabled", "center"),
        ),
        outputs=("IMAGE",),
        run=image_scale,
    ),
    NodeClass(
        name="ImageScaleBy",
        display_name="Upscale Image By",
        category="image/upscaling",
        module="nodes",
        inputs=(image_input(), choice_input("upscale_method", *METHODS), float_input("scale_by", 1.0, 0.01, 8.0, 0.01)),
        outputs=("IMAGE",),
        run=image_scale_by,
    ),
    NodeClass(
        name="ImageScaleToTotalPixels",
        display_name=None,
        category="image/upscaling",
        module="comfy_extras.nodes_post_processing",
        modern=True,
        inputs=(
            image_input(),
            choice_input("upscale_method", *METHODS),
            float_input("megapixels", 1.0, 0.01, 16.0, 0.01),
        ),
        outputs=("IMAGE",),
        run=image_scale_to_total_pixels,
    ),
    NodeClass(
        name="ImageScaleToMaxDimension",
        display_name="ImageScaleToMaxDimension",
        category="image/upscaling",
        module="comfy_extras.nodes_images",
        inputs=(
            image_input(),
            choice_input("upscale_method", "area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic"),
            integer_input("largest_size", 512, 0, MAX_SIDE),
        ),
        outputs=("IMAGE",),
        run=image_scale_to_max_dimension,
    ),
)

"""Nodes that change the size of pictures."""

import math

from comfypin.engine.embedded.arrays import Pixels
from comfypin.engine.embedded.declare import MAX_SIDE, Call, NodeClass, Result, choice, image, number, whole
from comfypin.engine.embedded.pixels.resize import METHODS, resize

_MEGAPIXEL = 1024 * 1024


def image_scale(call: Call, *, image: Pixels, upscale_method: str, width: int, height: int, crop: str) -> Result:
    """Resize to a size; a side of 0 keeps the proportions, two of them keep the picture."""
    if width == 0 and height == 0:
        return (image,)
    old_height, old_width = image.shape[1:3]
    width = width or max(1, round(old_width * height / old_height))
    height = height or max(1, round(old_height * width / old_width))
    return (resize(image, width=width, height=height, method=upscale_method, crop=crop, check=call.check),)


def image_scale_by(call: Call, *, image: Pixels, upscale_method: str, scale_by: float) -> Result:
    """Resize by a factor."""
    height, width = (round(side * scale_by) for side in image.shape[1:3])
    return (resize(image, width=width, height=height, method=upscale_method, crop="disabled", check=call.check),)


def image_scale_to_total_pixels(call: Call, *, image: Pixels, upscale_method: str, megapixels: float) -> Result:
    """Resize to a number of megapixels (of 1024 x 1024), keeping the proportions."""
    factor = math.sqrt(int(megapixels * _MEGAPIXEL) / (image.shape[2] * image.shape[1]))
    height, width = (round(side * factor) for side in image.shape[1:3])
    return (resize(image, width=width, height=height, method=upscale_method, crop="disabled", check=call.check),)


def image_scale_to_steps(
    call: Call, *, image: Pixels, upscale_method: str, megapixels: float, resolution_steps: int
) -> Result:
    """Resize to a number of megapixels; each side is a multiple of `resolution_steps`. ComfyUI 0.33's form."""
    factor = math.sqrt(megapixels * _MEGAPIXEL / (image.shape[2] * image.shape[1]))
    height, width = (round(side * factor / resolution_steps) * resolution_steps for side in image.shape[1:3])
    return (resize(image, width=width, height=height, method=upscale_method, crop="disabled", check=call.check),)


def image_scale_to_max_dimension(call: Call, *, image: Pixels, upscale_method: str, largest_size: int) -> Result:
    """Resize so that the longer side has a length."""
    height, width = image.shape[1:3]
    if height > width:
        width, height = round((width / height) * largest_size), largest_size
    elif width > height:
        height, width = round((height / width) * largest_size), largest_size
    else:
        width = height = largest_size
    return (resize(image, width=width, height=height, method=upscale_method, crop="disabled", check=call.check),)


CLASSES = (
    NodeClass(
        name="ImageScale",
        display_name="Upscale Image",
        category="image/upscaling",
        module="nodes",
        inputs=(
            image(),
            choice("upscale_method", *METHODS),
            whole("width", 512, 0, MAX_SIDE),
            whole("height", 512, 0, MAX_SIDE),
            choice("crop", "disabled", "center"),
        ),
        outputs=("IMAGE",),
        run=image_scale,
    ),
    NodeClass(
        name="ImageScaleBy",
        display_name="Upscale Image By",
        category="image/upscaling",
        module="nodes",
        inputs=(image(), choice("upscale_method", *METHODS), number("scale_by", 1.0, 0.01, 8.0, 0.01)),
        outputs=("IMAGE",),
        run=image_scale_by,
    ),
    NodeClass(
        name="ImageScaleToTotalPixels",
        display_name=None,
        category="image/upscaling",
        module="comfy_extras.nodes_post_processing",
        modern=True,
        inputs=(image(), choice("upscale_method", *METHODS), number("megapixels", 1.0, 0.01, 16.0, 0.01)),
        outputs=("IMAGE",),
        run=image_scale_to_total_pixels,
    ),
    NodeClass(
        name="ImageScaleToMaxDimension",
        display_name="ImageScaleToMaxDimension",
        category="image/upscaling",
        module="comfy_extras.nodes_images",
        inputs=(
            image(),
            choice("upscale_method", "area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic"),
            whole("largest_size", 512, 0, MAX_SIDE),
        ),
        outputs=("IMAGE",),
        run=image_scale_to_max_dimension,
    ),
)

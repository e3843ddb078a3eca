"""Nodes that change the colours of pictures: blending, blurring, sharpening, fewer colours."""

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from comfypin.engine.embedded.arrays import PixelArray, from_bytes
from comfypin.engine.embedded.declare import (
    NodeClass,
    NodeContext,
    NodeResult,
    choice_input,
    float_input,
    image_input,
    integer_input,
)
from comfypin.engine.embedded.nodes.color_bands import match_bands
from comfypin.engine.embedded.pixels.blur import convolve_pictures, gaussian_kernel
from comfypin.engine.embedded.pixels.resize import resize_pictures
from comfypin.engine.embedded.pixels.sums import cascade_sum

if TYPE_CHECKING:
    from PIL import Image

Matrix = npt.NDArray[np.float64]

_BLENDS = ("normal", "multiply", "screen", "overlay", "soft_light", "difference")
_DITHERS = ("none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16")
# Pillow's palettes are flat lists of red, green and blue.
_PALETTE_BANDS = 3


def image_blend(
    context: NodeContext, *, image1: PixelArray, image2: PixelArray, blend_factor: float, blend_mode: str
) -> NodeResult:
    """Blend the second picture over the first, at the first one's size."""
    image1, image2 = match_bands(image1, image2)
    if image1.shape != image2.shape:
        height, width = image1.shape[1:3]
        image2 = resize_pictures(
            image2,
            width=width,
            height=height,
            method="bicubic",
            crop="center",
            check_interrupted=context.check_interrupted,
        )
    blended = _blend_colors(image1, image2, blend_mode)
    # 1 - factor is computed by Python in float64, then rounded: subtracting float32 would differ in the last bit.
    mixed = image1 * np.float32(1 - blend_factor) + blended * np.float32(blend_factor)
    return (np.clip(mixed, np.float32(0), np.float32(1)),)


def image_blur(context: NodeContext, *, image: PixelArray, blur_radius: int, sigma: float) -> NodeResult:
    """Blur each picture with a Gaussian."""
    return (convolve_pictures(image, gaussian_kernel(2 * blur_radius + 1, sigma), context.check_interrupted),)


def image_sharpen(
    context: NodeContext, *, image: PixelArray, sharpen_radius: int, sigma: float, alpha: float
) -> NodeResult:
    """Sharpen each picture by subtracting a part of its blur."""
    # ComfyUI multiplies the strength by ten.
    kernel = gaussian_kernel(2 * sharpen_radius + 1, sigma) * np.float32(-(alpha * 10))
    middle = sharpen_radius
    kernel[middle, middle] = kernel[middle, middle] - cascade_sum(kernel) + np.float32(1.0)
    return (np.clip(convolve_pictures(image, kernel, context.check_interrupted), np.float32(0), np.float32(1)),)


def image_quantize(context: NodeContext, *, image: PixelArray, colors: int, dither: str) -> NodeResult:
    """Reduce each picture to a few colours."""
    from PIL import Image

    result = np.empty((*image.shape[:3], 3), np.float32)
    for index, values in enumerate(image):
        context.check_interrupted()
        picture = Image.fromarray((values * np.float32(255)).astype(np.uint8), mode=None)
        result[index] = from_bytes(np.array(_quantize_picture(picture, colors, dither).convert("RGB")))
    return (result,)


def _blend_colors(base: PixelArray, overlay: PixelArray, mode: str) -> PixelArray:
    """Blend one batch over another by ComfyUI's formulas."""
    white, two = np.float32(1), np.float32(2)
    match mode:
        case "normal":
            return overlay
        case "multiply":
            return base * overlay
        case "screen":
            return white - (white - base) * (white - overlay)
        case "overlay":
            return np.where(
                base <= np.float32(0.5), two * base * overlay, white - two * (white - base) * (white - overlay)
            )
        case "soft_light":
            return np.where(
                overlay <= np.float32(0.5),
                base - (white - two * overlay) * base * (white - base),
                base + (two * overlay - white) * (_soft_light_curve(base) - base),
            )
        case "difference":
            return base - overlay
    raise ValueError(f"Unsupported blend mode: {mode}")


def _soft_light_curve(values: PixelArray) -> PixelArray:
    # W3C's formula: https://www.w3.org/TR/compositing-1/#blendingsoftlight
    dark_half = ((np.float32(16) * values - np.float32(12)) * values + np.float32(4)) * values
    return np.where(values <= np.float32(0.25), dark_half, np.sqrt(np.maximum(values, 0)))


def _quantize_picture(picture: "Image.Image", colors: int, dither: str) -> "Image.Image":
    """Reduce a picture to its most frequent colours, with or without dithering."""
    from PIL import Image

    palette = picture.quantize(colors)
    if dither == "none":
        return picture.quantize(colors, palette=palette, dither=Image.Dither.NONE)
    if dither == "floyd-steinberg":
        return picture.quantize(colors, palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    used = len(palette.getpalette() or ()) // _PALETTE_BANDS
    matrix = (2 * 256 / used) * _bayer_matrix(int(math.log2(int(dither.removeprefix("bayer-"))))) + 0.5
    values = np.array(picture).astype(np.float32)
    repeats = (math.ceil(values.shape[0] / len(matrix)), math.ceil(values.shape[1] / len(matrix)))
    tiled = np.tile(matrix, repeats)[: values.shape[0], : values.shape[1], None]
    spread = np.clip((values + tiled.astype(np.float64)).astype(np.float32), 0, 255).astype(np.uint8)
    return Image.fromarray(spread).quantize(palette=palette, dither=Image.Dither.NONE)


def _bayer_matrix(order: int) -> Matrix:
    """Return Bayer's threshold matrix of side 2 ** order, around 0."""
    if order == 0:
        return np.zeros((1, 1))
    quarter = 4**order
    smaller = quarter * _bayer_matrix(order - 1)
    matrix: Matrix = np.block([[smaller - 1.5, smaller + 0.5], [smaller + 1.5, smaller - 0.5]]) / quarter
    return matrix


_POST = "comfy_extras.nodes_post_processing"

CLASSES = (
    NodeClass(
        name="ImageBlend",
        display_name=None,
        category="image/postprocessing",
        module=_POST,
        modern=True,
        inputs=(
            image_input("image1"),
            image_input("image2"),
            float_input("blend_factor", 0.5, 0.0, 1.0, 0.01),
            choice_input("blend_mode", *_BLENDS),
        ),
        outputs=("IMAGE",),
        run=image_blend,
    ),
    NodeClass(
        name="ImageBlur",
        display_name=None,
        category="image/postprocessing",
        module=_POST,
        modern=True,
        inputs=(image_input(), integer_input("blur_radius", 1, 1, 31), float_input("sigma", 1.0, 0.1, 10.0, 0.1)),
        outputs=("IMAGE",),
        run=image_blur,
    ),
    NodeClass(
        name="ImageSharpen",
        display_name=None,
        category="image/postprocessing",
        module=_POST,
        modern=True,
        inputs=(
            image_input(),
            integer_input("sharpen_radius", 1, 1, 31),
            float_input("sigma", 1.0, 0.1, 10.0, 0.01),
            float_input("alpha", 1.0, 0.0, 5.0, 0.01),
        ),
        outputs=("IMAGE",),
        run=image_sharpen,
    ),
    NodeClass(
        name="ImageQuantize",
        display_name=None,
        category="image/postprocessing",
        module=_POST,
        modern=True,
        inputs=(image_input(), integer_input("colors", 256, 1, 256), choice_input("dither", *_DITHERS)),
        outputs=("IMAGE",),
        run=image_quantize,
    ),
)

"""Nodes that change the colours of pictures: blending, blurring, sharpening, fewer colours."""

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from comfypin.engine.embedded.arrays import Pixels, from_bytes
from comfypin.engine.embedded.declare import Call, NodeClass, Result, choice, image, number, whole
from comfypin.engine.embedded.nodes.bands import match_bands
from comfypin.engine.embedded.pixels.blur import convolve, gaussian
from comfypin.engine.embedded.pixels.resize import resize
from comfypin.engine.embedded.pixels.sums import cascade_sum

if TYPE_CHECKING:
    from PIL import Image

Matrix = npt.NDArray[np.float64]

_BLENDS = ("normal", "multiply", "screen", "overlay", "soft_light", "difference")
_DITHERS = ("none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16")
_PALETTE_BANDS = 3


def image_blend(call: Call, *, image1: Pixels, image2: Pixels, blend_factor: float, blend_mode: str) -> Result:
    """The second picture over the first; it takes the first one's size."""
    image1, image2 = match_bands(image1, image2)
    if image1.shape != image2.shape:
        height, width = image1.shape[1:3]
        image2 = resize(image2, width=width, height=height, method="bicubic", crop="center", check=call.check)
    blended = _blend(image1, image2, blend_mode)
    mixed = image1 * np.float32(1 - blend_factor) + blended * np.float32(blend_factor)
    return (np.clip(mixed, np.float32(0), np.float32(1)),)


def image_blur(call: Call, *, image: Pixels, blur_radius: int, sigma: float) -> Result:
    """Each picture through a Gaussian."""
    return (convolve(image, gaussian(2 * blur_radius + 1, sigma), call.check),)


def image_sharpen(call: Call, *, image: Pixels, sharpen_radius: int, sigma: float, alpha: float) -> Result:
    """Each picture less a part of its blur."""
    kernel = gaussian(2 * sharpen_radius + 1, sigma) * np.float32(-(alpha * 10))
    middle = sharpen_radius
    kernel[middle, middle] = kernel[middle, middle] - cascade_sum(kernel) + np.float32(1.0)
    return (np.clip(convolve(image, kernel, call.check), np.float32(0), np.float32(1)),)


def image_quantize(call: Call, *, image: Pixels, colors: int, dither: str) -> Result:
    """Each picture in a few colours."""
    from PIL import Image

    result = np.empty((*image.shape[:3], 3), np.float32)
    for index, values in enumerate(image):
        call.check()
        picture = Image.fromarray((values * np.float32(255)).astype(np.uint8), mode=None)
        result[index] = from_bytes(np.array(_quantize(picture, colors, dither).convert("RGB")))
    return (result,)


def _blend(a: Pixels, b: Pixels, mode: str) -> Pixels:
    one, two = np.float32(1), np.float32(2)
    match mode:
        case "normal":
            return b
        case "multiply":
            return a * b
        case "screen":
            return one - (one - a) * (one - b)
        case "overlay":
            return np.where(a <= np.float32(0.5), two * a * b, one - two * (one - a) * (one - b))
        case "soft_light":
            return np.where(
                b <= np.float32(0.5), a - (one - two * b) * a * (one - a), a + (two * b - one) * (_glow(a) - a)
            )
        case "difference":
            return a - b
    raise ValueError(f"Unsupported blend mode: {mode}")


def _glow(x: Pixels) -> Pixels:
    dark = ((np.float32(16) * x - np.float32(12)) * x + np.float32(4)) * x
    return np.where(x <= np.float32(0.25), dark, np.sqrt(np.maximum(x, 0)))


def _quantize(picture: "Image.Image", colors: int, dither: str) -> "Image.Image":
    from PIL import Image

    palette = picture.quantize(colors)
    if dither == "none":
        return picture.quantize(colors, palette=palette, dither=Image.Dither.NONE)
    if dither == "floyd-steinberg":
        return picture.quantize(colors, palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    used = len(palette.getpalette() or ()) // _PALETTE_BANDS
    matrix = (2 * 256 / used) * _bayer(int(math.log2(int(dither.removeprefix("bayer-"))))) + 0.5
    values = np.array(picture).astype(np.float32)
    repeats = (math.ceil(values.shape[0] / len(matrix)), math.ceil(values.shape[1] / len(matrix)))
    tiled = np.tile(matrix, repeats)[: values.shape[0], : values.shape[1], None]
    spread = np.clip((values + tiled.astype(np.float64)).astype(np.float32), 0, 255).astype(np.uint8)
    return Image.fromarray(spread).quantize(palette=palette, dither=Image.Dither.NONE)


def _bayer(order: int) -> Matrix:
    """Bayer's threshold matrix of side 2 ** order, around 0."""
    if order == 0:
        return np.zeros((1, 1))
    q = 4**order
    smaller = q * _bayer(order - 1)
    matrix: Matrix = np.block([[smaller - 1.5, smaller + 0.5], [smaller + 1.5, smaller - 0.5]]) / q
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
            image("image1"),
            image("image2"),
            number("blend_factor", 0.5, 0.0, 1.0, 0.01),
            choice("blend_mode", *_BLENDS),
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
        inputs=(image(), whole("blur_radius", 1, 1, 31), number("sigma", 1.0, 0.1, 10.0, 0.1)),
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
            image(),
            whole("sharpen_radius", 1, 1, 31),
            number("sigma", 1.0, 0.1, 10.0, 0.01),
            number("alpha", 1.0, 0.0, 5.0, 0.01),
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
        inputs=(image(), whole("colors", 256, 1, 256), choice("dither", *_DITHERS)),
        outputs=("IMAGE",),
        run=image_quantize,
    ),
)

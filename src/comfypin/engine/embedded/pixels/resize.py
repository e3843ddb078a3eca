"""Resizes by ComfyUI's method names, with its centre crop."""

from collections.abc import Callable

import numpy as np

from comfypin.engine.embedded.arrays import PixelArray, from_bytes, reserve_memory, to_bytes
from comfypin.engine.embedded.pixels import interpolate

_NEEDS_SIZE = ("nearest-exact", "bilinear", "bicubic")
METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")


def resize_pictures(
    pixels: PixelArray, *, width: int, height: int, method: str, crop: str, check_interrupted: Callable[[], None]
) -> PixelArray:
    """Resize NHWC pictures; the crop `center` first cuts off what sticks out of the new shape."""
    if crop == "center":
        pixels = _crop_centre(pixels, width=width, height=height)
    reserve_memory(pixels.shape[0], pixels.shape[3], height, width)
    if method in _NEEDS_SIZE and min(width, height) < 1:
        old_height, old_width = pixels.shape[1:3]
        raise RuntimeError(
            "Input and output sizes should be greater than 0, but got input "
            f"(H: {old_height}, W: {old_width}) output (H: {height}, W: {width})"
        )
    match method:
        case "nearest-exact":
            return interpolate.resize_nearest_exact(pixels, height, width, check_interrupted)
        case "bilinear":
            return interpolate.resize_bilinear(pixels, height, width, check_interrupted)
        case "bicubic":
            return interpolate.resize_bicubic(pixels, height, width, check_interrupted)
        case "area":
            return interpolate.resize_area(pixels, height, width, check_interrupted)
        case "lanczos":
            return _resize_lanczos(pixels, width=width, height=height, check_interrupted=check_interrupted)
    raise ValueError(f"unknown resizing method {method!r}: choose one of {', '.join(METHODS)}")


def _crop_centre(pixels: PixelArray, *, width: int, height: int) -> PixelArray:
    old_height, old_width = pixels.shape[1:3]
    old_aspect = old_width / old_height
    new_aspect = width / height
    x = y = 0
    if old_aspect > new_aspect:
        x = round((old_width - old_width * (new_aspect / old_aspect)) / 2)
    elif old_aspect < new_aspect:
        y = round((old_height - old_height * (old_aspect / new_aspect)) / 2)
    return pixels[:, y : old_height - y, x : old_width - x]


def _resize_lanczos(
    pixels: PixelArray, *, width: int, height: int, check_interrupted: Callable[[], None]
) -> PixelArray:
    """Resize by Pillow, on bytes."""
    from PIL import Image

    resized = []
    for picture in to_bytes(pixels):
        check_interrupted()
        # Pillow has no picture of one band with a third dimension.
        one_band = picture.shape[2] == 1
        whole = Image.fromarray(picture[:, :, 0] if one_band else picture)
        values = np.asarray(whole.resize((width, height), resample=Image.Resampling.LANCZOS))
        resized.append(from_bytes(values[:, :, None] if one_band else values))
    return np.stack(resized)

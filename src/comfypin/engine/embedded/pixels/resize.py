"""Resizing by ComfyUI's method names, with its centre crop."""

from collections.abc import Callable

import numpy as np

from comfypin.engine.embedded.arrays import Pixels, from_bytes, reserve, to_bytes
from comfypin.engine.embedded.pixels import interpolate

_NEEDS_SIZE = ("nearest-exact", "bilinear", "bicubic")
METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")


def resize(pixels: Pixels, *, width: int, height: int, method: str, crop: str, check: Callable[[], None]) -> Pixels:
    """Resize NHWC pictures; with crop `center` the sides that stick out of the new shape go first."""
    if crop == "center":
        pixels = _centre(pixels, width=width, height=height)
    reserve(pixels.shape[0], pixels.shape[3], height, width)
    if method in _NEEDS_SIZE and min(width, height) < 1:
        old_height, old_width = pixels.shape[1:3]
        raise RuntimeError(
            "Input and output sizes should be greater than 0, but got input "
            f"(H: {old_height}, W: {old_width}) output (H: {height}, W: {width})"
        )
    match method:
        case "nearest-exact":
            return interpolate.nearest_exact(pixels, height, width, check)
        case "bilinear":
            return interpolate.bilinear(pixels, height, width, check)
        case "bicubic":
            return interpolate.bicubic(pixels, height, width, check)
        case "area":
            return interpolate.area(pixels, height, width, check)
        case "lanczos":
            return _lanczos(pixels, width=width, height=height, check=check)
    raise ValueError(f"no resizing method {method!r}: there are {', '.join(METHODS)}")


def _centre(pixels: Pixels, *, width: int, height: int) -> Pixels:
    old_height, old_width = pixels.shape[1:3]
    old_aspect = old_width / old_height
    new_aspect = width / height
    x = y = 0
    if old_aspect > new_aspect:
        x = round((old_width - old_width * (new_aspect / old_aspect)) / 2)
    elif old_aspect < new_aspect:
        y = round((old_height - old_height * (old_aspect / new_aspect)) / 2)
    return pixels[:, y : old_height - y, x : old_width - x]


def _lanczos(pixels: Pixels, *, width: int, height: int, check: Callable[[], None]) -> Pixels:
    """By Pillow, on bytes."""
    from PIL import Image

    resized = []
    for picture in to_bytes(pixels):
        check()
        one_band = picture.shape[2] == 1
        whole = Image.fromarray(picture[:, :, 0] if one_band else picture)
        values = np.asarray(whole.resize((width, height), resample=Image.Resampling.LANCZOS))
        resized.append(from_bytes(values[:, :, None] if one_band else values))
    return np.stack(resized)

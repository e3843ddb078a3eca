"""Gaussian kernels and convolutions, with the roundings of torch's CPU kernels."""

from collections.abc import Callable

import numpy as np

from comfypin.engine.embedded.arrays import Pixels, reserve
from comfypin.engine.embedded.pixels.interpolate import fused
from comfypin.engine.embedded.pixels.sums import cascade_sum

_ROWS_AT_ONCE = 32
_MOST_EXACT_PRODUCTS = 1_000_000_000


def gaussian(size: int, sigma: float) -> Pixels:
    """A size x size kernel over -1..1 that adds up to 1."""
    line = _linspace(size)
    x, y = line[:, None], line[None, :]
    distance = np.sqrt(x * x + y * y)
    exponent = -(distance * distance) / np.float32(2.0 * sigma * sigma)
    kernel = np.exp(exponent.astype(np.float64)).astype(np.float32)
    return kernel / cascade_sum(kernel)


def convolve(pixels: Pixels, kernel: Pixels, check: Callable[[], None]) -> Pixels:
    """Convolve each band of NHWC pictures with a square kernel; edges mirror without repeating the last pixel.

    The last bit is torch's as long as that takes seconds. Beyond that the kernel is taken apart into separable ones in
    float64: pixels may then differ from torch's by one level of 255.
    """
    radius = kernel.shape[0] // 2
    count, height, width, bands = pixels.shape
    if radius >= height or radius >= width:
        dimension = 3 if radius >= width else 2
        raise RuntimeError(
            "Argument #4: Padding size should be less than the corresponding input dimension, but got: padding "
            f"({radius}, {radius}) at dimension {dimension} of input [{count}, {bands}, {height}, {width}]"
        )
    reserve(count, height + 2 * radius, width + 2 * radius, bands)
    around = ((radius, radius), (radius, radius), (0, 0))
    result = np.empty_like(pixels)
    for index, picture in enumerate(pixels):
        padded = np.pad(picture, around, mode="reflect").astype(np.float64)
        if picture.size * kernel.size > _MOST_EXACT_PRODUCTS:
            result[index] = _convolve_separably(padded, kernel, check)
            continue
        for start in range(0, height, _ROWS_AT_ONCE):
            rows = min(_ROWS_AT_ONCE, height - start)
            result[index, start : start + rows] = _convolve_rows(padded, kernel, start, rows, check)
    return result


def _convolve_rows(
    padded: np.ndarray[tuple[int, int, int], np.dtype[np.float64]],
    kernel: Pixels,
    start: int,
    rows: int,
    check: Callable[[], None],
) -> Pixels:
    """One fused multiply-add a tap, row by row of the kernel, as the depthwise convolution of oneDNN adds them."""
    width = padded.shape[1] - kernel.shape[1] + 1
    total = np.zeros((rows, width, padded.shape[2]), np.float32)
    product = np.empty(total.shape, np.float64)
    for y, line in enumerate(kernel.astype(np.float64)):
        check()
        for x, weight in enumerate(line):
            np.multiply(padded[start + y : start + y + rows, x : x + width], weight, out=product)
            np.add(product, total, out=product)
            total[...] = product
    return total


def _convolve_separably(
    padded: np.ndarray[tuple[int, int, int], np.dtype[np.float64]], kernel: Pixels, check: Callable[[], None]
) -> Pixels:
    """By the kernel's singular vectors: a Gaussian has one, a sharpening two."""
    columns, strengths, rows = np.linalg.svd(kernel.astype(np.float64))
    size = len(kernel)
    height, width = padded.shape[0] - size + 1, padded.shape[1] - size + 1
    total = np.zeros((height, width, padded.shape[2]))
    for column, strength, row in zip(columns.T, strengths, rows, strict=True):
        if strength < strengths[0] * np.finfo(np.float32).eps:
            break
        across = np.zeros((padded.shape[0], width, padded.shape[2]))
        for place, weight in enumerate(row):
            check()
            across += padded[:, place : place + width] * weight
        for place, weight in enumerate(column * strength):
            check()
            total += across[place : place + height] * weight
    return total.astype(np.float32)


def _linspace(size: int) -> Pixels:
    """-1..1, each half counted from its own end."""
    step = np.float32(2) / np.float32(size - 1)
    places = np.arange(size, dtype=np.float32)
    up = fused(places, step, np.float32(-1))
    down = fused(-(np.float32(size - 1) - places), step, np.float32(1))
    return np.where(places < size // 2, up, down)

"""Gaussian kernels and convolutions, with the roundings of torch's CPU kernels."""

from collections.abc import Callable

import numpy as np

from comfypin.engine.embedded.arrays import PixelArray, reserve_memory
from comfypin.engine.embedded.pixels.interpolate import fused_multiply_add
from comfypin.engine.embedded.pixels.sums import cascade_sum

# Few rows at a time, so that the products in float64 stay small.
_ROWS_AT_ONCE = 32
# A few seconds of work; beyond that users would wait minutes for a last bit.
_MOST_EXACT_PRODUCTS = 1_000_000_000


def gaussian_kernel(size: int, sigma: float) -> PixelArray:
    """Return a size x size kernel over -1..1 that adds up to 1."""
    coordinates = _symmetric_linspace(size)
    x, y = coordinates[:, None], coordinates[None, :]
    distance = np.sqrt(x * x + y * y)
    exponent = -(distance * distance) / np.float32(2.0 * sigma * sigma)
    # Rounded from float64, because numpy's own float32 exponential may be off by a bit.
    kernel = np.exp(exponent.astype(np.float64)).astype(np.float32)
    return kernel / cascade_sum(kernel)


def convolve_pictures(pixels: PixelArray, kernel: PixelArray, check_interrupted: Callable[[], None]) -> PixelArray:
    """Convolve each band of NHWC pictures with a square kernel; edges mirror without repeating the last pixel.

    The last bit is torch's as long as that takes seconds. Beyond that the kernel is taken apart into separable ones in
    float64: pixels may then differ from torch's by one level of 255.
    """
    radius = kernel.shape[0] // 2
    count, height, width, band_count = pixels.shape
    if radius >= height or radius >= width:
        dimension = 3 if radius >= width else 2
        raise RuntimeError(
            "Argument #4: Padding size should be less than the corresponding input dimension, but got: padding "
            f"({radius}, {radius}) at dimension {dimension} of input [{count}, {band_count}, {height}, {width}]"
        )
    reserve_memory(count, height + 2 * radius, width + 2 * radius, band_count)
    pad_widths = ((radius, radius), (radius, radius), (0, 0))
    result = np.empty_like(pixels)
    for index, picture in enumerate(pixels):
        padded = np.pad(picture, pad_widths, mode="reflect").astype(np.float64)
        if picture.size * kernel.size > _MOST_EXACT_PRODUCTS:
            result[index] = _convolve_separably(padded, kernel, check_interrupted)
            continue
        for start in range(0, height, _ROWS_AT_ONCE):
            rows = min(_ROWS_AT_ONCE, height - start)
            result[index, start : start + rows] = _convolve_rows(padded, kernel, start, rows, check_interrupted)
    return result


def _convolve_rows(
    padded: np.ndarray[tuple[int, int, int], np.dtype[np.float64]],
    kernel: PixelArray,
    start: int,
    rows: int,
    check_interrupted: Callable[[], None],
) -> PixelArray:
    """Add with one fused multiply-add a tap, row by row of the kernel, as oneDNN's depthwise convolution does."""
    width = padded.shape[1] - kernel.shape[1] + 1
    total = np.zeros((rows, width, padded.shape[2]), np.float32)
    product = np.empty(total.shape, np.float64)
    for y, line in enumerate(kernel.astype(np.float64)):
        check_interrupted()
        for x, weight in enumerate(line):
            np.multiply(padded[start + y : start + y + rows, x : x + width], weight, out=product)
            np.add(product, total, out=product)
            total[...] = product
    return total


def _convolve_separably(
    padded: np.ndarray[tuple[int, int, int], np.dtype[np.float64]],
    kernel: PixelArray,
    check_interrupted: Callable[[], None],
) -> PixelArray:
    """Convolve by the kernel's singular vectors: a Gaussian has one, a sharpening two."""
    columns, strengths, rows = np.linalg.svd(kernel.astype(np.float64))
    size = len(kernel)
    height, width = padded.shape[0] - size + 1, padded.shape[1] - size + 1
    total = np.zeros((height, width, padded.shape[2]))
    for column, strength, row in zip(columns.T, strengths, rows, strict=True):
        if strength < strengths[0] * np.finfo(np.float32).eps:
            break
        row_sums = np.zeros((padded.shape[0], width, padded.shape[2]))
        for offset, weight in enumerate(row):
            check_interrupted()
            row_sums += padded[:, offset : offset + width] * weight
        for offset, weight in enumerate(column * strength):
            check_interrupted()
            total += row_sums[offset : offset + height] * weight
    return total.astype(np.float32)


def _symmetric_linspace(size: int) -> PixelArray:
    """Return -1..1, each half counted from its own end."""
    step = np.float32(2) / np.float32(size - 1)
    positions = np.arange(size, dtype=np.float32)
    from_start = fused_multiply_add(positions, step, np.float32(-1))
    from_end = fused_multiply_add(-(np.float32(size - 1) - positions), step, np.float32(1))
    return np.where(positions < size // 2, from_start, from_end)

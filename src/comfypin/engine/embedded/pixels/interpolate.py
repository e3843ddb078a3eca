"""Resizes NHWC float32 pictures exactly as torch's `interpolate` does (align_corners off, no antialias).

torch's kernels are compiled with fused multiply-add, and ComfyUI cuts off to bytes when it saves, so one wrong last
bit turns a 51 into a 50. Every product that torch fuses is therefore computed in float64, where it is exact, and
rounded to float32 once: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.interpolate.html
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from comfypin.engine.embedded.pixels.sums import cascade_sum, strided_sum

PixelArray = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
FilterTaps = tuple[Indices, PixelArray]
InterruptCheck = Callable[[], None]

# Rows between two looks for an interrupt, and few enough to keep float64 copies small.
_ROWS_AT_ONCE = 256
# torch's own thresholds between its two bilinear kernels; see `resize_bilinear`.
_SMALL_SIDES = 128
_FEW_BANDS = 3
# torch's constant; Pillow's bicubic has -0.5.
_CUBIC_A = np.float32(-0.75)


def resize_nearest_exact(pixels: PixelArray, height: int, width: int, check_interrupted: InterruptCheck) -> PixelArray:
    """Take the source pixel under the middle of each new one."""
    check_interrupted()
    rows = _nearest_indices(pixels.shape[1], height)
    columns = _nearest_indices(pixels.shape[2], width)
    return np.ascontiguousarray(pixels[:, rows][:, :, columns])


def resize_bilinear(pixels: PixelArray, height: int, width: int, check_interrupted: InterruptCheck) -> PixelArray:
    """Take a weighted mean of the four nearest source pixels."""
    rows, columns = _linear_taps(pixels.shape[1], height), _linear_taps(pixels.shape[2], width)
    # torch has two kernels that differ in the last bits, and chooses by these:
    # https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/native/cpu/UpSampleKernel.cpp
    small = height + width <= _SMALL_SIDES
    many_bands = pixels.shape[3] > _FEW_BANDS and _is_contiguous(pixels)
    return (
        _interpolate_by_corners(pixels, rows, columns, check_interrupted)
        if small or many_bands
        else _interpolate_separably(pixels, rows, columns, check_interrupted)
    )


def resize_bicubic(pixels: PixelArray, height: int, width: int, check_interrupted: InterruptCheck) -> PixelArray:
    """Convolve cubically over sixteen source pixels (a = -0.75); values may leave 0..1."""
    return _interpolate_separably(
        pixels, _cubic_taps(pixels.shape[1], height), _cubic_taps(pixels.shape[2], width), check_interrupted
    )


def resize_area(pixels: PixelArray, height: int, width: int, check_interrupted: InterruptCheck) -> PixelArray:
    """Take the mean of the source pixels that each new pixel touches (adaptive average pooling)."""
    if (height, width) == (1, 1):
        return _mean_bands(pixels, check_interrupted)
    starts_y, ends_y = _area_spans(pixels.shape[1], height)
    starts_x, ends_x = _area_spans(pixels.shape[2], width)
    window_heights = (ends_y - starts_y).astype(np.float32)[None, :, None, None]
    window_widths = (ends_x - starts_x).astype(np.float32)[None, None, :, None]
    # Few large windows: sum each by itself. Many small ones: add all of them at once, offset by offset.
    if 0 < pixels.shape[0] * height * width < window_heights.max(initial=0) * window_widths.max(initial=0):
        total = _sums_by_cell(pixels, (starts_y, ends_y), (starts_x, ends_x), check_interrupted)
    else:
        total = _sums_by_offset(pixels, (starts_y, ends_y), (starts_x, ends_x), check_interrupted)
    return total / window_heights / window_widths


def _sums_by_cell(
    pixels: PixelArray,
    spans_y: tuple[Indices, Indices],
    spans_x: tuple[Indices, Indices],
    check_interrupted: InterruptCheck,
) -> PixelArray:
    """Sum up one new pixel after the other; a running sum, because torch adds in this order and rounds each step."""
    band_count = pixels.shape[3]
    total = np.empty((pixels.shape[0], len(spans_y[0]), len(spans_x[0]), band_count), np.float32)
    for row, (top, bottom) in enumerate(zip(*spans_y, strict=True)):
        for column, (left, right) in enumerate(zip(*spans_x, strict=True)):
            check_interrupted()
            for index, picture in enumerate(pixels):
                window = picture[top:bottom, left:right].reshape(-1, band_count)
                total[index, row, column] = np.cumsum(window, axis=0, dtype=np.float32)[-1]
    return total


def _sums_by_offset(
    pixels: PixelArray,
    spans_y: tuple[Indices, Indices],
    spans_x: tuple[Indices, Indices],
    check_interrupted: InterruptCheck,
) -> PixelArray:
    """Sum up all new pixels at once, in the same order of additions."""
    (starts_y, ends_y), (starts_x, ends_x) = spans_y, spans_x
    height, width = len(starts_y), len(starts_x)
    total = np.zeros((pixels.shape[0], height, width, pixels.shape[3]), np.float32)
    for dy in range(int((ends_y - starts_y).max(initial=0))):
        rows = np.flatnonzero(starts_y + dy < ends_y)
        for dx in range(int((ends_x - starts_x).max(initial=0))):
            check_interrupted()
            columns = np.flatnonzero(starts_x + dx < ends_x)
            piece = pixels[:, (starts_y[rows] + dy)[:, None], (starts_x[columns] + dx)[None, :]]
            total[:, rows[:, None], columns[None, :]] += piece
    return total


def _mean_bands(pixels: PixelArray, check_interrupted: InterruptCheck) -> PixelArray:
    """Return the mean of each band: torch adds in another order here than for other sizes."""
    band_count = pixels.shape[3]
    sum_band = strided_sum if band_count == _FEW_BANDS else cascade_sum
    means = np.empty((len(pixels), 1, 1, band_count), np.float32)
    for index, picture in enumerate(pixels):
        check_interrupted()
        for band in range(band_count):
            means[index, 0, 0, band] = sum_band(np.ascontiguousarray(picture[..., band])) / np.float32(
                picture[..., 0].size
            )
    return means


def fused_multiply_add(a: PixelArray, b: PixelArray | np.float32, c: PixelArray | np.float32) -> PixelArray:
    """Return `a * b + c` rounded once, as a fused multiply-add does."""
    return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float32)


def _scale_factor(source: int, target: int) -> np.float32:
    return np.float32(source) / np.float32(target)


def _nearest_indices(source: int, target: int) -> Indices:
    positions = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * _scale_factor(source, target)
    indices: Indices = np.minimum(np.floor(positions).astype(np.int64), source - 1)
    return indices


def _linear_taps(source: int, target: int) -> FilterTaps:
    """Return indices and weights, each (2, target)."""
    middles = np.arange(target, dtype=np.float32) + np.float32(0.5)
    positions = np.maximum(fused_multiply_add(middles, _scale_factor(source, target), np.float32(-0.5)), 0)
    first = np.minimum(positions.astype(np.int64), source - 1)
    second = np.minimum(first + 1, source - 1)
    # Clipped like torch's, because positions beyond the edge would extrapolate.
    fraction = np.clip(positions - first.astype(np.float32), 0, 1).astype(np.float32)
    return np.stack([first, second]), np.stack([np.float32(1) - fraction, fraction])


def _cubic_taps(source: int, target: int) -> FilterTaps:
    """Return indices and weights, each (4, target)."""
    middles = np.arange(target, dtype=np.float32) + np.float32(0.5)
    positions = fused_multiply_add(middles, _scale_factor(source, target), np.float32(-0.5))
    first_index = np.floor(positions)
    fraction = np.clip(positions - first_index, 0, 1).astype(np.float32)
    indices = np.clip(first_index.astype(np.int64)[None, :] + np.arange(-1, 3)[:, None], 0, source - 1)
    one = np.float32(1)
    weights = [
        _cubic_far(fraction + one),
        _cubic_near(fraction),
        _cubic_near(one - fraction),
        _cubic_far((one - fraction) + one),
    ]
    return indices, np.stack(weights)


def _cubic_near(distance: PixelArray) -> PixelArray:
    """Return the convolution kernel for |x| <= 1."""
    steepness = _CUBIC_A
    return fused_multiply_add(
        distance, steepness + np.float32(2), -(steepness + np.float32(3))
    ) * distance * distance + np.float32(1)


def _cubic_far(distance: PixelArray) -> PixelArray:
    """Return the convolution kernel for 1 < |x| < 2."""
    steepness = _CUBIC_A
    return (
        fused_multiply_add(
            fused_multiply_add(distance, steepness, -np.float32(5) * steepness), distance, np.float32(8) * steepness
        )
        * distance
        - np.float32(4) * steepness
    )


def _interpolate_separably(
    pixels: PixelArray, rows: FilterTaps, columns: FilterTaps, check_interrupted: InterruptCheck
) -> PixelArray:
    """Interpolate along each source row, then between rows."""
    result = np.empty((pixels.shape[0], rows[0].shape[1], columns[0].shape[1], pixels.shape[3]), np.float32)
    for index, picture in enumerate(pixels):
        widened = np.empty((picture.shape[0], columns[0].shape[1], picture.shape[2]), np.float32)
        for row_slice in _row_slices(picture.shape[0]):
            check_interrupted()
            taps = [picture[row_slice][:, column] for column in columns[0]]
            widened[row_slice] = _weighted_sum(taps, list(columns[1][:, None, :, None]))
        for row_slice in _row_slices(result.shape[1]):
            check_interrupted()
            taps = [widened[row[row_slice]] for row in rows[0]]
            result[index, row_slice] = _weighted_sum(taps, list(rows[1][:, row_slice, None, None]))
    return result


def _interpolate_by_corners(
    pixels: PixelArray, rows: FilterTaps, columns: FilterTaps, check_interrupted: InterruptCheck
) -> PixelArray:
    """Weigh the four corners around each new pixel by the products of their weights."""
    result = np.empty((pixels.shape[0], rows[0].shape[1], columns[0].shape[1], pixels.shape[3]), np.float32)
    corners = [(upper, left) for upper in (0, 1) for left in (0, 1)]
    for index, picture in enumerate(pixels):
        for row_slice in _row_slices(result.shape[1]):
            check_interrupted()
            taps = [picture[rows[0][row, row_slice][:, None], columns[0][column][None, :]] for row, column in corners]
            weights = [
                rows[1][row, row_slice, None, None] * columns[1][column, None, :, None] for row, column in corners
            ]
            result[index, row_slice] = _weighted_sum(taps, weights)
    return result


def _row_slices(count: int) -> list[slice]:
    return [slice(start, min(start + _ROWS_AT_ONCE, count)) for start in range(0, count, _ROWS_AT_ONCE)]


def _weighted_sum(taps: list[PixelArray], weights: list[PixelArray]) -> PixelArray:
    """Sum the products as the compiler fuses `a*b + c*d + ...`: the first goes onto the rounded second."""
    total = fused_multiply_add(taps[0], weights[0], taps[1] * weights[1])
    for tap, weight in zip(taps[2:], weights[2:], strict=True):
        total = fused_multiply_add(tap, weight, total)
    return total


def _is_contiguous(pixels: PixelArray) -> bool:
    """Return whether torch calls the strides channels-last: sides of length 1 may have any."""
    expected = pixels.itemsize
    for side, stride in zip(reversed(pixels.shape), reversed(pixels.strides), strict=True):
        if side != 1 and stride != expected:
            return False
        expected *= side
    return True


def _area_spans(source: int, target: int) -> tuple[Indices, Indices]:
    positions = np.arange(target, dtype=np.int64)
    # The ceiling of the second quotient, in whole numbers.
    return positions * source // target, -(-(positions + 1) * source // target)

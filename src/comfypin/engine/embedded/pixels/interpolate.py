"""Resizing of NHWC float32 pictures with the semantics of torch's `interpolate` (align_corners off, no antialias).

torch's kernels are compiled with fused multiply-add, and ComfyUI cuts off to bytes when it saves, so one wrong last
bit turns a 51 into a 50. Every product that torch fuses is therefore computed in float64, where it is exact, and
rounded to float32 once: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.interpolate.html
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from comfypin.engine.embedded.pixels.sums import cascade_sum, strided_sum

Pixels = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Taps = tuple[Indices, Pixels]
Check = Callable[[], None]

_ROWS_AT_ONCE = 256
_SMALL_SIDES = 128
_FEW_BANDS = 3
_CUBIC_A = np.float32(-0.75)


def nearest_exact(pixels: Pixels, height: int, width: int, check: Check) -> Pixels:
    """The source pixel under the middle of each new one."""
    check()
    rows = _nearest_indices(pixels.shape[1], height)
    columns = _nearest_indices(pixels.shape[2], width)
    return np.ascontiguousarray(pixels[:, rows][:, :, columns])


def bilinear(pixels: Pixels, height: int, width: int, check: Check) -> Pixels:
    """A weighted mean of the four nearest source pixels."""
    rows, columns = _linear_taps(pixels.shape[1], height), _linear_taps(pixels.shape[2], width)
    # torch has two kernels that differ in the last bits, and chooses by these:
    # https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/native/cpu/UpSampleKernel.cpp
    small = height + width <= _SMALL_SIDES
    many_bands = pixels.shape[3] > _FEW_BANDS and _is_contiguous(pixels)
    return (
        _by_corners(pixels, rows, columns, check) if small or many_bands else _separable(pixels, rows, columns, check)
    )


def bicubic(pixels: Pixels, height: int, width: int, check: Check) -> Pixels:
    """Cubic convolution over sixteen source pixels (a = -0.75); values may leave 0..1."""
    return _separable(pixels, _cubic_taps(pixels.shape[1], height), _cubic_taps(pixels.shape[2], width), check)


def area(pixels: Pixels, height: int, width: int, check: Check) -> Pixels:
    """The mean of the source pixels that each new pixel touches (adaptive average pooling)."""
    if (height, width) == (1, 1):
        return _mean(pixels, check)
    starts_y, ends_y = _area_spans(pixels.shape[1], height)
    starts_x, ends_x = _area_spans(pixels.shape[2], width)
    tall = (ends_y - starts_y).astype(np.float32)[None, :, None, None]
    wide = (ends_x - starts_x).astype(np.float32)[None, None, :, None]
    if 0 < pixels.shape[0] * height * width < tall.max(initial=0) * wide.max(initial=0):
        total = _sums_by_cell(pixels, (starts_y, ends_y), (starts_x, ends_x), check)
    else:
        total = _sums_by_offset(pixels, (starts_y, ends_y), (starts_x, ends_x), check)
    return total / tall / wide


def _sums_by_cell(
    pixels: Pixels, spans_y: tuple[Indices, Indices], spans_x: tuple[Indices, Indices], check: Check
) -> Pixels:
    """One new pixel after the other; a running sum, because torch adds in this order and rounds at each step."""
    bands = pixels.shape[3]
    total = np.empty((pixels.shape[0], len(spans_y[0]), len(spans_x[0]), bands), np.float32)
    for row, (top, bottom) in enumerate(zip(*spans_y, strict=True)):
        for column, (left, right) in enumerate(zip(*spans_x, strict=True)):
            check()
            for index, picture in enumerate(pixels):
                window = picture[top:bottom, left:right].reshape(-1, bands)
                total[index, row, column] = np.cumsum(window, axis=0, dtype=np.float32)[-1]
    return total


def _sums_by_offset(
    pixels: Pixels, spans_y: tuple[Indices, Indices], spans_x: tuple[Indices, Indices], check: Check
) -> Pixels:
    """All new pixels at once, in the same order of additions."""
    (starts_y, ends_y), (starts_x, ends_x) = spans_y, spans_x
    height, width = len(starts_y), len(starts_x)
    total = np.zeros((pixels.shape[0], height, width, pixels.shape[3]), np.float32)
    for dy in range(int((ends_y - starts_y).max(initial=0))):
        rows = np.flatnonzero(starts_y + dy < ends_y)
        for dx in range(int((ends_x - starts_x).max(initial=0))):
            check()
            columns = np.flatnonzero(starts_x + dx < ends_x)
            piece = pixels[:, (starts_y[rows] + dy)[:, None], (starts_x[columns] + dx)[None, :]]
            total[:, rows[:, None], columns[None, :]] += piece
    return total


def _mean(pixels: Pixels, check: Check) -> Pixels:
    """The mean of each band: torch takes another way than for other sizes."""
    bands = pixels.shape[3]
    add = strided_sum if bands == _FEW_BANDS else cascade_sum
    means = np.empty((len(pixels), 1, 1, bands), np.float32)
    for index, picture in enumerate(pixels):
        check()
        for band in range(bands):
            means[index, 0, 0, band] = add(np.ascontiguousarray(picture[..., band])) / np.float32(picture[..., 0].size)
    return means


def fused(a: Pixels, b: Pixels | np.float32, c: Pixels | np.float32) -> Pixels:
    """`a * b + c` rounded once, as a fused multiply-add does."""
    return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float32)


def _scale(source: int, target: int) -> np.float32:
    return np.float32(source) / np.float32(target)


def _nearest_indices(source: int, target: int) -> Indices:
    places = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * _scale(source, target)
    indices: Indices = np.minimum(np.floor(places).astype(np.int64), source - 1)
    return indices


def _linear_taps(source: int, target: int) -> Taps:
    """Indices and weights, each (2, target)."""
    middles = np.arange(target, dtype=np.float32) + np.float32(0.5)
    places = np.maximum(fused(middles, _scale(source, target), np.float32(-0.5)), 0)
    first = np.minimum(places.astype(np.int64), source - 1)
    second = np.minimum(first + 1, source - 1)
    share = np.clip(places - first.astype(np.float32), 0, 1).astype(np.float32)
    return np.stack([first, second]), np.stack([np.float32(1) - share, share])


def _cubic_taps(source: int, target: int) -> Taps:
    """Indices and weights, each (4, target)."""
    middles = np.arange(target, dtype=np.float32) + np.float32(0.5)
    places = fused(middles, _scale(source, target), np.float32(-0.5))
    base = np.floor(places)
    t = np.clip(places - base, 0, 1).astype(np.float32)
    indices = np.clip(base.astype(np.int64)[None, :] + np.arange(-1, 3)[:, None], 0, source - 1)
    one = np.float32(1)
    weights = [_cubic_far(t + one), _cubic_near(t), _cubic_near(one - t), _cubic_far((one - t) + one)]
    return indices, np.stack(weights)


def _cubic_near(x: Pixels) -> Pixels:
    """The convolution kernel for |x| <= 1."""
    a = _CUBIC_A
    return fused(x, a + np.float32(2), -(a + np.float32(3))) * x * x + np.float32(1)


def _cubic_far(x: Pixels) -> Pixels:
    """The convolution kernel for 1 < |x| < 2."""
    a = _CUBIC_A
    return fused(fused(x, a, -np.float32(5) * a), x, np.float32(8) * a) * x - np.float32(4) * a


def _separable(pixels: Pixels, rows: Taps, columns: Taps, check: Check) -> Pixels:
    """Interpolate along each source row, then between rows."""
    result = np.empty((pixels.shape[0], rows[0].shape[1], columns[0].shape[1], pixels.shape[3]), np.float32)
    for index, picture in enumerate(pixels):
        wide = np.empty((picture.shape[0], columns[0].shape[1], picture.shape[2]), np.float32)
        for part in _parts(picture.shape[0]):
            check()
            taps = [picture[part][:, column] for column in columns[0]]
            wide[part] = _weighted_sum(taps, list(columns[1][:, None, :, None]))
        for part in _parts(result.shape[1]):
            check()
            taps = [wide[row[part]] for row in rows[0]]
            result[index, part] = _weighted_sum(taps, list(rows[1][:, part, None, None]))
    return result


def _by_corners(pixels: Pixels, rows: Taps, columns: Taps, check: Check) -> Pixels:
    """Weigh the four corners around each new pixel by the products of their weights."""
    result = np.empty((pixels.shape[0], rows[0].shape[1], columns[0].shape[1], pixels.shape[3]), np.float32)
    corners = [(upper, left) for upper in (0, 1) for left in (0, 1)]
    for index, picture in enumerate(pixels):
        for part in _parts(result.shape[1]):
            check()
            taps = [picture[rows[0][row, part][:, None], columns[0][column][None, :]] for row, column in corners]
            weights = [rows[1][row, part, None, None] * columns[1][column, None, :, None] for row, column in corners]
            result[index, part] = _weighted_sum(taps, weights)
    return result


def _parts(count: int) -> list[slice]:
    return [slice(start, min(start + _ROWS_AT_ONCE, count)) for start in range(0, count, _ROWS_AT_ONCE)]


def _weighted_sum(taps: list[Pixels], weights: list[Pixels]) -> Pixels:
    """The sum of products as the compiler fuses `a*b + c*d + ...`: the first product goes onto the rounded second."""
    total = fused(taps[0], weights[0], taps[1] * weights[1])
    for tap, weight in zip(taps[2:], weights[2:], strict=True):
        total = fused(tap, weight, total)
    return total


def _is_contiguous(pixels: Pixels) -> bool:
    """Whether torch calls the strides channels-last: sides of length 1 may have any."""
    expected = pixels.itemsize
    for side, stride in zip(reversed(pixels.shape), reversed(pixels.strides), strict=True):
        if side != 1 and stride != expected:
            return False
        expected *= side
    return True


def _area_spans(source: int, target: int) -> tuple[Indices, Indices]:
    places = np.arange(target, dtype=np.int64)
    return places * source // target, -(-(places + 1) * source // target)

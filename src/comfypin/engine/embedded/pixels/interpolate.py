"""Resizing of NHWC float32 pictures with the semantics of torch's `interpolate` (align_corners off, no antialias).

torch's kernels are compiled with fused multiply-add, and ComfyUI cuts off to bytes when it saves, so one wrong last
bit turns a 51 into a 50. Every product that torch fuses is therefore computed in float64, where it is exact, and
rounded to float32 once: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.interpolate.html
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Check = Callable[[], None]

_ROWS_AT_ONCE = 256
_CUBIC_A = np.float32(-0.75)


def nearest_exact(pixels: Pixels, height: int, width: int, check: Check) -> Pixels:
    """The source pixel under the middle of each new one."""
    check()
    rows = _nearest_indices(pixels.shape[1], height)
    columns = _nearest_indices(pixels.shape[2], width)
    return np.ascontiguousarray(pixels[:, rows][:, :, columns])


def bilinear(pixels: Pixels, height: int, width: int, check: Check) -> Pixels:
    """A weighted mean of the four nearest source pixels."""
    return _separable(pixels, _linear_taps(pixels.shape[1], height), _linear_taps(pixels.shape[2], width), check)


def bicubic(pixels: Pixels, height: int, width: int, check: Check) -> Pixels:
    """Cubic convolution over sixteen source pixels (a = -0.75); values may leave 0..1."""
    return _separable(pixels, _cubic_taps(pixels.shape[1], height), _cubic_taps(pixels.shape[2], width), check)


def area(pixels: Pixels, height: int, width: int, check: Check) -> Pixels:
    """The mean of the source pixels that each new pixel touches (adaptive average pooling)."""
    starts_y, ends_y = _area_spans(pixels.shape[1], height)
    starts_x, ends_x = _area_spans(pixels.shape[2], width)
    total = np.zeros((pixels.shape[0], height, width, pixels.shape[3]), np.float32)
    for dy in range(int((ends_y - starts_y).max())):
        rows = np.flatnonzero(starts_y + dy < ends_y)
        for dx in range(int((ends_x - starts_x).max())):
            check()
            columns = np.flatnonzero(starts_x + dx < ends_x)
            piece = pixels[:, (starts_y[rows] + dy)[:, None], (starts_x[columns] + dx)[None, :]]
            total[:, rows[:, None], columns[None, :]] += piece
    tall = (ends_y - starts_y).astype(np.float32)[None, :, None, None]
    wide = (ends_x - starts_x).astype(np.float32)[None, None, :, None]
    return total / tall / wide


def fused(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], c: npt.NDArray[np.float32]) -> Pixels:
    """`a * b + c` rounded once, as a fused multiply-add does."""
    return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float32)


def _scale(source: int, target: int) -> np.float32:
    return np.float32(source) / np.float32(target)


def _nearest_indices(source: int, target: int) -> Indices:
    places = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * _scale(source, target)
    indices: Indices = np.minimum(np.floor(places).astype(np.int64), source - 1)
    return indices


def _linear_taps(source: int, target: int) -> tuple[Indices, Pixels]:
    """Indices and weights, each (2, target)."""
    if source == target:
        same = np.arange(target)
        return np.stack([same, same]), np.stack([np.ones(target, np.float32), np.zeros(target, np.float32)])
    middles = np.arange(target, dtype=np.float32) + np.float32(0.5)
    places = np.maximum(fused(middles, np.asarray(_scale(source, target)), np.asarray(np.float32(-0.5))), 0)
    first = np.minimum(places.astype(np.int64), source - 1)
    second = np.minimum(first + 1, source - 1)
    share = np.clip(places - first.astype(np.float32), 0, 1).astype(np.float32)
    return np.stack([first, second]), np.stack([np.float32(1) - share, share])


def _cubic_taps(source: int, target: int) -> tuple[Indices, Pixels]:
    """Indices and weights, each (4, target)."""
    middles = np.arange(target, dtype=np.float32) + np.float32(0.5)
    places = fused(middles, np.asarray(_scale(source, target)), np.asarray(np.float32(-0.5)))
    base = np.floor(places)
    t = np.clip(places - base, 0, 1).astype(np.float32)
    indices = np.clip(base.astype(np.int64)[None, :] + np.arange(-1, 3)[:, None], 0, source - 1)
    one = np.float32(1)
    weights = [_cubic_far(t + one), _cubic_near(t), _cubic_near(one - t), _cubic_far((one - t) + one)]
    return indices, np.stack(weights)


def _cubic_near(x: Pixels) -> Pixels:
    """The convolution kernel for |x| <= 1."""
    a = np.asarray(_CUBIC_A)
    return fused(fused(a + np.float32(2), x, -(a + np.float32(3))) * x, x, np.asarray(np.float32(1)))


def _cubic_far(x: Pixels) -> Pixels:
    """The convolution kernel for 1 < |x| < 2."""
    a = np.asarray(_CUBIC_A)
    inner = fused(a, x, -(np.float32(5) * a))
    return fused(fused(inner, x, np.float32(8) * a), x, -(np.float32(4) * a))


def _separable(pixels: Pixels, rows: tuple[Indices, Pixels], columns: tuple[Indices, Pixels], check: Check) -> Pixels:
    """Interpolate along each source row, then between rows, in torch's order of additions."""
    result = np.empty((pixels.shape[0], rows[0].shape[1], columns[0].shape[1], pixels.shape[3]), np.float32)
    for index, picture in enumerate(pixels):
        wide = np.empty((picture.shape[0], columns[0].shape[1], picture.shape[2]), np.float32)
        for start in range(0, picture.shape[0], _ROWS_AT_ONCE):
            check()
            part = slice(start, start + _ROWS_AT_ONCE)
            wide[part] = _weighted_sum(
                [picture[part][:, column] for column in columns[0]], columns[1][:, None, :, None]
            )
        for start in range(0, result.shape[1], _ROWS_AT_ONCE):
            check()
            part = slice(start, start + _ROWS_AT_ONCE)
            result[index, part] = _weighted_sum([wide[row[part]] for row in rows[0]], rows[1][:, part, None, None])
    return result


def _weighted_sum(taps: list[Pixels], weights: Pixels) -> Pixels:
    total: Pixels = taps[0] * weights[0]
    for tap, weight in zip(taps[1:], weights[1:], strict=True):
        total = fused(tap, weight, total)
    return total


def _area_spans(source: int, target: int) -> tuple[Indices, Indices]:
    places = np.arange(target, dtype=np.int64)
    return places * source // target, -(-(places + 1) * source // target)

"""Matches pictures that have different numbers of colour bands."""

import numpy as np

from comfypin.engine.embedded.arrays import PixelArray


def match_bands(destination: PixelArray, source: PixelArray) -> tuple[PixelArray, PixelArray]:
    """Cut off the bands of the source that the destination lacks.

    A destination with more bands than the source gets one more, which fails later, as in ComfyUI 0.3.64.
    """
    band_count = destination.shape[3]
    if band_count < source.shape[3]:
        return destination, source[..., :band_count]
    if band_count > source.shape[3]:
        return np.pad(destination, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1.0), source
    return destination, source


def match_count(values: PixelArray, count: int) -> PixelArray:
    """Cut off or repeat a batch to a length."""
    repeats = -(-count // values.shape[0])
    return np.concatenate([values] * repeats)[:count] if repeats > 1 else values[:count]

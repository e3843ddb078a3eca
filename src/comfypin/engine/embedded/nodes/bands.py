"""How two pictures with different numbers of colour bands come together."""

import numpy as np

from comfypin.engine.embedded.arrays import Pixels


def match_bands(destination: Pixels, source: Pixels) -> tuple[Pixels, Pixels]:
    """The source loses bands that the destination lacks.

    A destination with more bands than the source gains yet another, which fails later: ComfyUI 0.3.64 does that.
    """
    bands = destination.shape[3]
    if bands < source.shape[3]:
        return destination, source[..., :bands]
    if bands > source.shape[3]:
        return np.pad(destination, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1.0), source
    return destination, source


def match_count(values: Pixels, count: int) -> Pixels:
    """A batch cut off or repeated to a length."""
    repeats = -(-count // values.shape[0])
    return np.concatenate([values] * repeats)[:count] if repeats > 1 else values[:count]

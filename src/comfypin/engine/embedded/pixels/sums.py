"""Sums float32 values in torch's order of additions, for the same last bit.

Partial sums run in streams side by side, and in levels, so that large sums lose little. How many values are added at
once depends on their layout in memory: aten/src/ATen/native/cpu/SumKernel.cpp of https://github.com/pytorch/pytorch
"""

import math

import numpy as np

from comfypin.engine.embedded.arrays import PixelArray

# torch's numbers: floats in an AVX2 register, registers added side by side, levels of partial sums.
_LANES = 8
_STREAMS = 4
_LEVELS = 4


def cascade_sum(values: PixelArray) -> np.float32:
    """Sum values that are adjacent in memory: eight lanes; the remainder comes first."""
    flat = values.ravel()
    whole_lanes = flat.size // _LANES * _LANES
    total = np.float32(0)
    for value in (*flat[whole_lanes:], *_sum_rows(flat[:whole_lanes].reshape(-1, _LANES))):
        total += value
    return total


def strided_sum(values: PixelArray) -> np.float32:
    """Sum values that are apart in memory, such as one band of a picture of three."""
    total: np.float32 = _sum_rows(values.reshape(-1, 1))[0]
    return total


def _sum_rows(rows: PixelArray) -> PixelArray:
    whole_streams = len(rows) // _STREAMS * _STREAMS
    streams = _sum_levels(rows[:whole_streams].reshape(-1, _STREAMS, rows.shape[1]))
    for row in rows[whole_streams:]:
        streams[0] += row
    for stream in streams[1:]:
        streams[0] += stream
    total: PixelArray = streams[0]
    return total


def _sum_levels(groups: PixelArray) -> PixelArray:
    """Add up groups level by level, as torch's `multi_row_sum` does."""
    # The shift and the mask of torch's `multi_row_sum`.
    power = max(4, math.ceil(math.log2(max(1, len(groups)))) // _LEVELS)
    step, mask = 1 << power, (1 << power) - 1
    levels = np.zeros((_LEVELS, *groups.shape[1:]), np.float32)
    whole_steps = len(groups) // step * step
    for count_done in range(step, whole_steps + 1, step):
        for group in groups[count_done - step : count_done]:
            levels[0] += group
        for level in range(1, _LEVELS):
            levels[level] += levels[level - 1]
            levels[level - 1] = 0
            # A level is full only after 2 ** power sums of the level below it.
            if count_done & (mask << (level * power)):
                break
    for group in groups[whole_steps:]:
        levels[0] += group
    for level_sum in levels[1:]:
        levels[0] += level_sum
    total: PixelArray = levels[0]
    return total

"""Sums of float32 in torch's order of additions, for the same last bit.

Partial sums run in streams side by side, and in levels, so that large sums lose little. How many values are added at
once depends on how they lie in memory: aten/src/ATen/native/cpu/SumKernel.cpp of https://github.com/pytorch/pytorch
"""

import math

import numpy as np

from comfypin.engine.embedded.arrays import Pixels

_LANES = 8
_STREAMS = 4
_LEVELS = 4


def cascade_sum(values: Pixels) -> np.float32:
    """The sum of values that lie side by side: eight lanes; what is left over comes first."""
    flat = values.ravel()
    whole = flat.size // _LANES * _LANES
    total = np.float32(0)
    for value in (*flat[whole:], *_sum_rows(flat[:whole].reshape(-1, _LANES))):
        total += value
    return total


def strided_sum(values: Pixels) -> np.float32:
    """The sum of values that lie apart, such as one band of a picture of three."""
    total: np.float32 = _sum_rows(values.reshape(-1, 1))[0]
    return total


def _sum_rows(rows: Pixels) -> Pixels:
    whole = len(rows) // _STREAMS * _STREAMS
    streams = _sum_levels(rows[:whole].reshape(-1, _STREAMS, rows.shape[1]))
    for row in rows[whole:]:
        streams[0] += row
    for stream in streams[1:]:
        streams[0] += stream
    total: Pixels = streams[0]
    return total


def _sum_levels(groups: Pixels) -> Pixels:
    power = max(4, math.ceil(math.log2(max(1, len(groups)))) // _LEVELS)
    step, mask = 1 << power, (1 << power) - 1
    levels = np.zeros((_LEVELS, *groups.shape[1:]), np.float32)
    whole = len(groups) // step * step
    for done in range(step, whole + 1, step):
        for group in groups[done - step : done]:
            levels[0] += group
        for level in range(1, _LEVELS):
            levels[level] += levels[level - 1]
            levels[level - 1] = 0
            if done & (mask << (level * power)):
                break
    for group in groups[whole:]:
        levels[0] += group
    for level_sum in levels[1:]:
        levels[0] += level_sum
    total: Pixels = levels[0]
    return total

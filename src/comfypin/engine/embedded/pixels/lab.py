"""Converts colours between sRGB and CIE Lab (D65), with the constants of kornia, which ComfyUI uses.

Everything is float32, as there: ComfyUI truncates to bytes when it saves, so a more exact 192 would not be its 191.
https://kornia.readthedocs.io/en/latest/color.html
"""

import numpy as np
import numpy.typing as npt

from comfypin.engine.embedded.arrays import PixelArray

Matrix = npt.NDArray[np.float32]

_RGB_TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]], np.float32
)
_XYZ_TO_RGB = np.array(
    [
        [3.2404813432005266, -1.5371515162713185, -0.4985363261688878],
        [-0.9692549499965682, 1.8759900014898907, 0.0415559265582928],
        [0.0556466391351772, -0.2040413383665112, 1.0573110696453443],
    ],
    np.float32,
)
_WHITE = np.array([0.95047, 1.0, 1.08883], np.float32)
_float32 = np.float32


def rgb_to_lab(colours: PixelArray) -> PixelArray:
    """Return sRGB colours of 0..1, the bands last, as L (0..100), a and b."""
    bent = (np.maximum(colours + _float32(0.055), 0) / _float32(1.055)) ** _float32(2.4)
    linear = np.where(colours > _float32(0.04045), bent, colours / _float32(12.92))
    xyz = apply_matrix(linear, _RGB_TO_XYZ) / _WHITE
    roots = np.where(
        xyz > _float32(0.008856),
        np.maximum(xyz, _float32(0.008856)) ** _float32(1 / 3),
        _float32(7.787) * xyz + _float32(4 / 29),
    )
    x, y, z = roots[..., 0], roots[..., 1], roots[..., 2]
    return np.stack([_float32(116) * y - _float32(16), _float32(500) * (x - y), _float32(200) * (y - z)], axis=-1)


def lab_to_rgb(colours: PixelArray) -> PixelArray:
    """Return L, a and b as sRGB, kept within 0..1."""
    y = (colours[..., 0] + _float32(16)) / _float32(116)
    roots = np.stack(
        [colours[..., 1] / _float32(500) + y, y, np.maximum(y - colours[..., 2] / _float32(200), 0)], axis=-1
    )
    xyz = (
        np.where(roots > _float32(0.2068966), roots ** _float32(3), (roots - _float32(4 / 29)) / _float32(7.787))
        * _WHITE
    )
    linear = apply_matrix(xyz, _XYZ_TO_RGB)
    bent = _float32(1.055) * np.maximum(linear, _float32(0.0031308)) ** _float32(1 / 2.4) - _float32(0.055)
    return np.clip(np.where(linear > _float32(0.0031308), bent, _float32(12.92) * linear), 0, 1)


def apply_matrix(colours: PixelArray, matrix: Matrix) -> PixelArray:
    """Return each colour times a matrix of 3 x 3, added up from the first band on."""
    red, green, blue = (colours[..., band] for band in range(3))
    return np.stack([red * row[0] + green * row[1] + blue * row[2] for row in matrix], axis=-1)

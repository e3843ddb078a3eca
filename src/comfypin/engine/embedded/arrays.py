"""Makes large arrays without taking the machine down: refuses what cannot fit, in ComfyUI's words."""

import numpy as np
import numpy.typing as npt

from comfypin.free_memory import memory_bytes

PixelArray = npt.NDArray[np.float32]

_FLOAT_BYTES = 4


def reserve_memory(*shape: int) -> None:
    """Raise `RuntimeError`, in torch's words, if an array of this shape cannot fit into memory.

    Linux grants more than it has and kills the process that uses it, so waiting for a MemoryError is not enough.
    """
    needed_bytes = _FLOAT_BYTES
    for length in shape:
        needed_bytes *= length
    if needed_bytes > memory_bytes():
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
            f"you tried to allocate {needed_bytes} bytes. Error code 12 (Cannot allocate memory)"
        )


def filled_array(shape: tuple[int, ...], value: float) -> PixelArray:
    """Return an array filled with one value."""
    reserve_memory(*shape)
    return np.full(shape, value, np.float32)


def to_bytes(pixels: PixelArray) -> npt.NDArray[np.uint8]:
    """Convert 0..1 to 0..255, cut off (not rounded), as ComfyUI saves."""
    # ComfyUI saves with `astype(np.uint8)`, which truncates: rounding would change every second byte by one.
    levels: npt.NDArray[np.uint8] = np.clip(np.float32(255.0) * pixels, 0, 255).astype(np.uint8)
    return levels


def from_bytes(values: npt.NDArray[np.uint8]) -> PixelArray:
    """Convert 0..255 to 0..1."""
    return values.astype(np.float32) / np.float32(255.0)

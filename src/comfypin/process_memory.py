"""Makes a process that lives long give large blocks of memory back to the system when it is done with them."""

import contextlib
import ctypes

# <malloc.h> of glibc.
_M_MMAP_THRESHOLD = -3
# glibc raises this limit by itself after the first large block; then freed memory stays ours for good.
_LARGE_BLOCK_BYTES = 256 * 1024


def give_back_large_blocks() -> None:
    """Keep large blocks out of the heap, whose holes are never given back; does nothing without glibc.

    glibc raises its limit to 32 MB as soon as one large block has been freed. From then on pictures in base64 and their
    copies lie between small blocks that stay: a server that was sent 200 MB of them in all held 230 MB, now 100.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)

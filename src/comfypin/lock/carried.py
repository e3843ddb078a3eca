"""Carries a small lock as text, so that one variable of a container can hold a whole release. Pure.

The text is base64 of zlib. A lock of 70 packages is about 45 KB and becomes 15 KB: most of it is digests and addresses.
"""

import base64
import binascii
import zlib

from comfypin.lock.errors import CarriedLockInvalid

# Linux takes no longer string than 128 KiB in a process's environment (MAX_ARG_STRLEN), name included.
LONGEST_VARIABLE = 96_000
# A few kilobytes of zlib can claim any size.
_LARGEST_LOCK_BYTES = 64 << 20


def carry_lock(lock_bytes: bytes) -> str:
    """Return the text that holds these bytes of a lock; the same bytes give the same text."""
    return base64.b64encode(zlib.compress(lock_bytes, 9)).decode("ascii")


def read_carried_lock(lock_text: str, *, where: str) -> bytes:
    """Return the bytes of a lock that is carried as text. Raises `CarriedLockInvalid`."""
    try:
        compressed = base64.b64decode(lock_text.strip().encode("ascii"), validate=True)
        # A limit, since a few bytes can unpack to gigabytes.
        unpacker = zlib.decompressobj()
        lock_bytes = unpacker.decompress(compressed, _LARGEST_LOCK_BYTES)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise CarriedLockInvalid(where=where, reason="it is not base64 of zlib") from error
    if not unpacker.eof:
        raise CarriedLockInvalid(where=where, reason="it was cut off, or is larger than any lock")
    return lock_bytes

"""Unpacks what members of a fleet have compressed: a few kilobytes can claim any size, and workers write some too."""

import zstandard


def unpack(packed: bytes, *, most: int) -> bytes:
    """Return the bytes, of which there are `most` at most. Raises `ValueError` for more, and for what is no zstd."""
    try:
        # zstandard's own limit holds only for frames that do not say how large they are.
        if zstandard.frame_content_size(packed) > most:
            raise ValueError(f"it is larger than {most} bytes")
        return zstandard.decompress(packed, max_output_size=most)
    except zstandard.ZstdError as exc:
        raise ValueError("it is damaged") from exc

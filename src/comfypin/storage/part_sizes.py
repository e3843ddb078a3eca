"""How S3 cuts large objects into parts, and the ETags that come of it."""

import hashlib
from pathlib import Path

from comfypin.digest import CHUNK_BYTES

MIB = 1 << 20
PART_BYTES = 16 * MIB  # one PUT up to here; above, equal parts of this size
MOST_PARTS = 10_000


def part_size(size_bytes: int) -> int:
    """The size of all parts but the last one: 16 MiB, or more where 10,000 of them would not do."""
    wanted = max(PART_BYTES, -(-size_bytes // MOST_PARTS))
    return -(-wanted // MIB) * MIB


def joined_etag(md5s: list[str]) -> str:
    """The ETag that S3 gives an object of such parts: the md5 of the parts' md5 sums, and their number."""
    sums = b"".join(bytes.fromhex(md5) for md5 in md5s)
    return f"{hashlib.md5(sums, usedforsecurity=False).hexdigest()}-{len(md5s)}"


def etag_of_parts(path: Path, part_bytes: int) -> str:
    """The ETag that S3 gives a file in such parts."""
    md5s = []
    with path.open("rb", buffering=0) as file:
        part, left = hashlib.md5(usedforsecurity=False), part_bytes
        while chunk := file.read(min(CHUNK_BYTES, left)):
            part.update(chunk)
            left -= len(chunk)
            if left == 0:
                md5s.append(part.hexdigest())
                part, left = hashlib.md5(usedforsecurity=False), part_bytes
        if left < part_bytes:
            md5s.append(part.hexdigest())
    return joined_etag(md5s)

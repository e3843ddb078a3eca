"""How S3 cuts large objects into parts, and the ETags that result."""

import hashlib
from pathlib import Path

from comfypin.digest import CHUNK_BYTES

MIB = 1 << 20
PART_BYTES = 16 * MIB  # one PUT up to here; above, equal parts of this size
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
MOST_PARTS = 10_000


def part_size(size_bytes: int) -> int:
    """Return the size of all parts but the last: 16 MiB, or more if 10,000 of those would not be enough."""
    minimum_bytes = max(PART_BYTES, -(-size_bytes // MOST_PARTS))
    return -(-minimum_bytes // MIB) * MIB


def multipart_etag(md5_sums: list[str]) -> str:
    """Return S3's ETag of an object in parts: the md5 of the parts' md5 sums, and the number of parts."""
    # Builds of Python for FIPS refuse md5 unless it is marked as not for security.
    joined_sums = b"".join(bytes.fromhex(md5) for md5 in md5_sums)
    return f"{hashlib.md5(joined_sums, usedforsecurity=False).hexdigest()}-{len(md5_sums)}"


def etag_of_parts(path: Path, part_bytes: int) -> str:
    """Return the ETag that S3 gives a file in parts of this size."""
    md5_sums = []
    with path.open("rb", buffering=0) as file:
        part_md5, remaining_bytes = hashlib.md5(usedforsecurity=False), part_bytes
        while chunk := file.read(min(CHUNK_BYTES, remaining_bytes)):
            part_md5.update(chunk)
            remaining_bytes -= len(chunk)
            if remaining_bytes == 0:
                md5_sums.append(part_md5.hexdigest())
                part_md5, remaining_bytes = hashlib.md5(usedforsecurity=False), part_bytes
        if remaining_bytes < part_bytes:
            md5_sums.append(part_md5.hexdigest())
    return multipart_etag(md5_sums)

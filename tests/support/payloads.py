"""Files to be stored, with the facts that a store wants to know."""

import random
from pathlib import Path

from comfypin.digest import Digest
from comfypin.storage.interface import Payload


def payload_of(
    path: Path, data: bytes, *, media_type: str = "image/png", metadata: dict[str, str] | None = None
) -> Payload:
    path.write_bytes(data)
    return Payload(
        path=path, size_bytes=len(data), sha256=Digest.of(data), media_type=media_type, metadata=metadata or {}
    )


def noise(size_bytes: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size_bytes)

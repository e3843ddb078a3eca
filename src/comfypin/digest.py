"""Computes digests of bytes, and the canonical JSON that a digest of a value is taken from."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"

_HEX_64 = re.compile(r"[0-9a-f]{64}")
# A chunk that fits the processor's cache.
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A sha256: 64 lower-case hex digits. `str()` gives `sha256:<hex>`."""

    hex: str

    def __post_init__(self) -> None:
        if not _HEX_64.fullmatch(self.hex):
            raise ValueError(f"not a sha256: {self.hex!r}")

    @classmethod
    def parse(cls, digest_text: str) -> "Digest":
        """Read `sha256:<hex>` or bare hex, in any case; `ValueError` for anything else."""
        return cls(digest_text.strip().lower().removeprefix("sha256:"))

    @classmethod
    def of(cls, data: bytes) -> "Digest":
        """Return the digest of bytes in memory."""
        return cls(hashlib.sha256(data).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> "Digest":
        """Return the digest of a file, read in one reused buffer (hashlib releases the GIL)."""
        hasher = hashlib.sha256()
        buffer = bytearray(CHUNK_BYTES)
        view = memoryview(buffer)
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                hasher.update(view[:count])
        return cls(hasher.hexdigest())

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


def canonical_json(value: JsonValue) -> bytes:
    """Return the one spelling of a JSON value: sorted keys, two-space indent, UTF-8, a final newline.

    Indented because people read and review locks; canonical because the lock digest is taken from these bytes. Raises
    `ValueError` for NaN and infinities, which JSON does not have.
    """
    json_text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return (json_text + "\n").encode()

"""What a model is, without keeping it: its source's own words where they say all, else its bytes read once."""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from comfypin.digest import Digest
from comfypin.http.stall import StallWatch
from comfypin.models.errors import SourceUnavailable, UnknownSource, WrongLength
from comfypin.models.interface import ModelSource, RemoteFile, SourceFacts, Wanted, shown
from comfypin.retry import Retry, RetryPolicy

BUFFER_BYTES = 4 << 20
STALL_S = 30.0
# From the beginning each time: who describes a model keeps nothing of it.
DESCRIBE_RETRIES = RetryPolicy(retries=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A model's facts, with the digest and the size known for sure."""

    facts: SourceFacts
    sha256: Digest
    size_bytes: int


def describe(uri: str, sources: Sequence[ModelSource]) -> Described:
    """Ask the source that takes this address. Raises `SourceFailed` or `UnknownSource`."""
    source = next((source for source in sources if source.accepts(uri)), None)
    if source is None:
        raise UnknownSource(uri=uri, reason="no kind of source takes this address")
    facts = source.facts(uri)
    if facts.sha256 is not None and facts.size_bytes is not None:
        return Described(facts=facts, sha256=facts.sha256, size_bytes=facts.size_bytes)

    def read() -> Described:
        with contextlib.closing(source.open(facts.uri, Wanted())) as file:
            digest, size_bytes = _hash(file, uri)
        return Described(facts=facts, sha256=digest, size_bytes=size_bytes)

    return Retry(policy=DESCRIBE_RETRIES, on=SourceUnavailable).call(read)


def _hash(file: RemoteFile, uri: str) -> tuple[Digest, int]:
    hasher, total = hashlib.sha256(), 0
    buffer = memoryview(bytearray(BUFFER_BYTES))
    watch = StallWatch(STALL_S)
    with file.read(0, None) as reader:
        while count := reader.readinto(buffer):
            if watch.is_too_slow(count):
                raise SourceUnavailable(uri=shown(uri), reason=f"it stalled ({watch.bytes_per_s():.0f} bytes a second)")
            hasher.update(buffer[:count])
            total += count
    if file.size_bytes is not None and total != file.size_bytes:
        raise WrongLength(uri=uri, expected_bytes=file.size_bytes, actual_bytes=total)
    return Digest(hasher.hexdigest()), total

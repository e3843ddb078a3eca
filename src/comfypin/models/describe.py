"""Learns what a model is without keeping it: from what its source says, else by reading its bytes once."""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from comfypin.digest import Digest
from comfypin.http.stall_watch import StallWatch
from comfypin.models.errors import SourceUnavailable, UnknownSource, WrongLength
from comfypin.models.interface import ExpectedFile, ModelSource, RemoteFile, SourceFacts, hide_secrets
from comfypin.plurals import format_rate
from comfypin.retry import Retry, RetryPolicy

# Large, because nothing is written: each read goes straight into the hash.
BUFFER_BYTES = 4 << 20
# As for pulling: a source that gives almost nothing for half a minute gives nothing soon.
STALL_S = 30.0
# From the beginning each time: who describes a model keeps nothing of it.
DESCRIBE_RETRIES = RetryPolicy(retries=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedModel:
    """A source's facts about a model, with the digest and the size known for sure."""

    facts: SourceFacts
    sha256: Digest
    size_bytes: int


def describe_model(address: str, sources: Sequence[ModelSource]) -> DescribedModel:
    """Ask the source that accepts this address. Raises `SourceFailed` or `UnknownSource`."""
    model_source = next((source for source in sources if source.accepts(address)), None)
    if model_source is None:
        raise UnknownSource(uri=address, reason="no source understands this address")
    source_facts = model_source.facts(address)
    if source_facts.sha256 is not None and source_facts.size_bytes is not None:
        return DescribedModel(facts=source_facts, sha256=source_facts.sha256, size_bytes=source_facts.size_bytes)

    def hash_source() -> DescribedModel:
        with contextlib.closing(model_source.open(source_facts.uri, ExpectedFile())) as file:
            digest, size_bytes = _hash_file(file, address)
        return DescribedModel(facts=source_facts, sha256=digest, size_bytes=size_bytes)

    return Retry(policy=DESCRIBE_RETRIES, on=SourceUnavailable).call(hash_source)


def _hash_file(remote_file: RemoteFile, address: str) -> tuple[Digest, int]:
    hasher, total_bytes = hashlib.sha256(), 0
    buffer = memoryview(bytearray(BUFFER_BYTES))
    stall_watch = StallWatch(STALL_S)
    # A stream from the beginning: without a digest there is no telling whether ranges are of one version.
    with remote_file.read(0, None) as reader:
        while byte_count := reader.readinto(buffer):
            if stall_watch.is_too_slow(byte_count):
                raise SourceUnavailable(
                    uri=hide_secrets(address),
                    reason=f"it stalled at {format_rate(stall_watch.bytes_per_s())}; try again later",
                )
            hasher.update(buffer[:byte_count])
            total_bytes += byte_count
    if remote_file.size_bytes is not None and total_bytes != remote_file.size_bytes:
        raise WrongLength(uri=address, expected_bytes=remote_file.size_bytes, actual_bytes=total_bytes)
    return Digest(hasher.hexdigest()), total_bytes

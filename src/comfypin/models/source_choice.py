"""Chooses where a model's bytes come from: files on this machine first, then the sources in the order of the pin."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from comfypin.lock.model import ModelPin
from comfypin.models.errors import UnknownSource
from comfypin.models.interface import CachedSource, ExpectedFile, ModelSource, hide_secrets
from comfypin.models.sources.local import LocalSource


def find_source(sources: Sequence[ModelSource], address: str) -> ModelSource:
    """Return the source that understands an address. Raises `UnknownSource`."""
    for source in sources:
        if source.accepts(address):
            return source
    raise UnknownSource(
        uri=hide_secrets(address),
        reason="no source understands it; docs/models.md lists the kinds of sources",
    )


def list_offers(
    sources: Sequence[ModelSource], model_pin: ModelPin, expected: ExpectedFile
) -> tuple[list[tuple[ModelSource, str]], list[str]]:
    """List the sources to try, files on this machine first, and the reasons against the others."""
    offers: list[tuple[ModelSource, str]] = []
    reasons = []
    for address in model_pin.sources:
        try:
            source = find_source(sources, address)
            cached_path = _cached_path(source, address, expected)
        except UnknownSource as error:
            reasons.append(error.message)
            continue
        if cached_path is not None:
            offers.append((LocalSource(), str(cached_path)))
        offers.append((source, address))
    return offers, reasons


def list_cached(
    sources: Sequence[ModelSource], model_pin: ModelPin, expected: ExpectedFile
) -> Iterator[tuple[str, Path]]:
    """Yield the addresses whose file a source keeps on this machine, with its path there."""
    for address in model_pin.sources:
        try:
            cached_path = _cached_path(find_source(sources, address), address, expected)
        except UnknownSource:
            # Whoever fetches from the other sources reports it.
            continue
        if cached_path is not None:
            yield address, cached_path


def _cached_path(source: ModelSource, address: str, expected: ExpectedFile) -> Path | None:
    return source.cached(address, expected) if isinstance(source, CachedSource) else None

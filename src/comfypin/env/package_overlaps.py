"""Finds packages of an env that overwrite each other, by the RECORDs of what is installed."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from comfypin.env.drift import Drift
from comfypin.env.file_manifest import InstalledRecord, read_records
from comfypin.env.layout import site_packages
from comfypin.env.package_selection import normalize_name
from comfypin.lock.model import VariantChoice
from comfypin.lock.overlaps import Overlap, WheelContents, find_overlaps, is_settled


def find_open_overlaps(records: Iterable[InstalledRecord], choices: Sequence[VariantChoice]) -> tuple[Overlap, ...]:
    """Return the overlaps for which the lock does not say which package wins."""
    contents = (
        WheelContents(name=normalize_name(record.package_name), version=record.version, files=record.files)
        for record in records
    )
    return tuple(overlap for overlap in find_overlaps(contents) if not is_settled(overlap, choices))


def describe_overlap(overlap: Overlap) -> str:
    """Return a sentence about an overlap, with what to do."""
    last = overlap.packages[-1]
    return f"{overlap}; {last}'s are installed. Choose one: comfypin lock upgrade --variant NAME."


def find_overlap_drifts(env_folder: Path, choices: Sequence[VariantChoice]) -> Iterator[Drift]:
    """Yield a drift for each open overlap: what is imported is a mixture of packages."""
    try:
        records = read_records(site_packages(env_folder))
    except StopIteration:
        return  # the venv is gone, which is a drift of its own
    for overlap in find_open_overlaps(records, choices):
        yield Drift(
            kind="packages-overlap",
            subject=overlap.import_name,
            text=describe_overlap(overlap),
            paths=overlap.paths,
        )

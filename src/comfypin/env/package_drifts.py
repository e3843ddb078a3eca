"""Finds how the installed packages of an env differ from its receipt: versions first, then their files."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from comfypin.env.drift import CODE_SUFFIXES, Drift, shorten_list
from comfypin.env.file_manifest import InstalledRecord, read_records
from comfypin.env.layout import VENV_FOLDER, site_packages
from comfypin.env.package_selection import normalize_name
from comfypin.env.receipt import Receipt


def find_package_drifts(folder: Path, receipt: Receipt, paths: Mapping[str, tuple[str, ...]]) -> Iterator[Drift]:
    try:
        site = site_packages(folder)
    except StopIteration:
        yield Drift(kind="venv-missing", subject=VENV_FOLDER, text=f"The venv is gone: {folder / VENV_FOLDER}.")
        return
    records = read_records(site)
    prefix = f"{site.relative_to(folder)}/"
    installed: dict[str, list[str]] = {}
    for record in records:
        installed.setdefault(normalize_name(record.package_name), []).append(record.version)
    yield from _version_drifts(receipt, installed)
    yield from _content_drifts(receipt, installed, paths, records, prefix)


def _version_drifts(receipt: Receipt, installed: Mapping[str, Sequence[str]]) -> Iterator[Drift]:
    for name, version in sorted(receipt.packages.items()):
        here = installed.get(name, [])
        if not here:
            yield Drift(
                kind="package-missing", subject=name, text=f"Package {name} {version} is not installed any more."
            )
        elif not any(_is_same_version(version, other) for other in here):
            text = f"Package {name} is {', '.join(here)}, but the lock says {version}."
            yield Drift(kind="package-changed", subject=name, text=text)
    for name in sorted(installed.keys() - receipt.packages.keys()):
        text = f"Package {name} {', '.join(installed[name])} is installed, but is not in the lock."
        yield Drift(kind="package-added", subject=name, text=text)


def _content_drifts(
    receipt: Receipt,
    installed: Mapping[str, Sequence[str]],
    paths: Mapping[str, tuple[str, ...]],
    records: Sequence[InstalledRecord],
    prefix: str,
) -> Iterator[Drift]:
    """Yield packages of the right version with other files: edited by hand, or through a hard link in uv's cache."""
    owner = {
        os.path.normpath(prefix + file): normalize_name(record.package_name)
        for record in records
        for file in record.files
    }
    by_package: dict[str, list[str]] = {}
    others: list[str] = []
    for path in (*paths["edited"], *paths["missing"]):
        if path.startswith(prefix) or path in owner:
            name = owner.get(path) or _folder_owner(path.removeprefix(prefix), receipt)
            by_package.setdefault(name, []).append(path)
        else:
            others.append(path)
    if others:
        text = f"The venv's own files changed: {shorten_list(others)}."
        yield Drift(kind="venv-changed", subject=VENV_FOLDER, text=text, paths=tuple(others))
    for name, changed in sorted(by_package.items()):
        versions = installed.get(name, [])
        if any(_is_same_version(receipt.packages.get(name, ""), version) for version in versions):
            text = f"Files of package {name} do not match its RECORD: {shorten_list(changed)}."
            yield Drift(kind="package-edited", subject=name, text=text, paths=tuple(changed))
    yield from _added_drifts(paths["added"], set(owner), prefix)


def _added_drifts(paths: Sequence[str], known: Collection[str], prefix: str) -> Iterator[Drift]:
    """Yield code and programs that no package lists: Python and the shell find them before what was locked."""
    added = tuple(
        path for path in paths if path.startswith(prefix) and path.endswith(CODE_SUFFIXES) and path not in known
    )
    if added:
        text = f"Site-packages holds code that belongs to no package: {shorten_list(added)}."
        yield Drift(kind="site-added", subject="site-packages", text=text, paths=added)
    # What lies in bin is found before the system's own programs of that name.
    programs = tuple(path for path in paths if path.startswith(f"{VENV_FOLDER}/bin/") and path not in known)
    if programs:
        text = f"The venv holds programs that belong to no package: {shorten_list(programs)}."
        yield Drift(kind="venv-added", subject=VENV_FOLDER, text=text, paths=programs)


def _folder_owner(path: str, receipt: Receipt) -> str:
    """Guess the package of a path in site-packages that no RECORD names (any more), from its first folder."""
    first = path.split("/", maxsplit=1)[0].removesuffix(".dist-info")
    # `numpy-1.0.dist-info` and `numpy` both belong to numpy.
    guess = normalize_name(first.rpartition("-")[0] or first)
    return guess if guess in receipt.packages else first


def _is_same_version(one: str, other: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other

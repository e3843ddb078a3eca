"""Finds how the installed packages of an env differ from its receipt: versions first, then their files."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from comfypin.env.drift import CODE_SUFFIXES, Drift, shorten_list
from comfypin.env.file_manifest import InstalledRecord, read_records
from comfypin.env.layout import VENV_FOLDER, site_packages
from comfypin.env.package_selection import normalize_name
from comfypin.env.receipt import Receipt


def find_package_drifts(
    env_folder: Path, receipt: Receipt, changed_paths: Mapping[str, tuple[str, ...]]
) -> Iterator[Drift]:
    try:
        site_folder = site_packages(env_folder)
    except StopIteration:
        yield Drift(kind="venv-missing", subject=VENV_FOLDER, text=f"The venv is gone: {env_folder / VENV_FOLDER}.")
        return
    records = read_records(site_folder)
    site_prefix = f"{site_folder.relative_to(env_folder)}/"
    installed: dict[str, list[str]] = {}
    for record in records:
        installed.setdefault(normalize_name(record.package_name), []).append(record.version)
    yield from _version_drifts(receipt, installed)
    yield from _content_drifts(receipt, installed, changed_paths, records, site_prefix)


def _version_drifts(receipt: Receipt, installed: Mapping[str, Sequence[str]]) -> Iterator[Drift]:
    for package_name, locked_version in sorted(receipt.packages.items()):
        installed_versions = installed.get(package_name, [])
        if not installed_versions:
            yield Drift(
                kind="package-missing",
                subject=package_name,
                text=f"Package {package_name} {locked_version} is not installed any more.",
            )
        elif not any(is_same_version(locked_version, other_version) for other_version in installed_versions):
            description = (
                f"Package {package_name} is {', '.join(installed_versions)}, but the lock says {locked_version}."
            )
            yield Drift(kind="package-changed", subject=package_name, text=description)
    for package_name in sorted(installed.keys() - receipt.packages.keys()):
        description = (
            f"Package {package_name} {', '.join(installed[package_name])} is installed, but is not in the lock."
        )
        yield Drift(kind="package-added", subject=package_name, text=description)


def _content_drifts(
    receipt: Receipt,
    installed: Mapping[str, Sequence[str]],
    paths_by_kind: Mapping[str, tuple[str, ...]],
    records: Sequence[InstalledRecord],
    site_prefix: str,
) -> Iterator[Drift]:
    """Yield packages of the right version with other files: edited by hand, or through a hard link in uv's cache."""
    path_owners = {
        os.path.normpath(site_prefix + listed_file): normalize_name(record.package_name)
        for record in records
        for listed_file in record.files
    }
    by_package: dict[str, list[str]] = {}
    other_paths: list[str] = []
    for path in (*paths_by_kind["edited"], *paths_by_kind["missing"]):
        if path.startswith(site_prefix) or path in path_owners:
            package_name = path_owners.get(path) or _folder_owner(path.removeprefix(site_prefix), receipt)
            by_package.setdefault(package_name, []).append(path)
        else:
            other_paths.append(path)
    if other_paths:
        description = f"The venv's own files changed: {shorten_list(other_paths)}."
        yield Drift(kind="venv-changed", subject=VENV_FOLDER, text=description, paths=tuple(other_paths))
    for package_name, changed_paths in sorted(by_package.items()):
        versions = installed.get(package_name, [])
        if any(
            is_same_version(receipt.packages.get(package_name, ""), installed_version) for installed_version in versions
        ):
            description = f"Files of package {package_name} do not match its RECORD: {shorten_list(changed_paths)}."
            yield Drift(kind="package-edited", subject=package_name, text=description, paths=tuple(changed_paths))
    yield from _added_drifts(paths_by_kind["added"], set(path_owners), site_prefix)


def _added_drifts(changed_paths: Sequence[str], known_paths: Collection[str], site_prefix: str) -> Iterator[Drift]:
    """Yield code and programs that no package lists: Python and the shell find them before what was locked."""
    added_paths = tuple(
        path
        for path in changed_paths
        if path.startswith(site_prefix) and path.endswith(CODE_SUFFIXES) and path not in known_paths
    )
    if added_paths:
        description = f"Site-packages holds code that belongs to no package: {shorten_list(added_paths)}."
        yield Drift(kind="site-added", subject="site-packages", text=description, paths=added_paths)
    # What lies in bin is found before the system's own programs of that name.
    added_programs = tuple(
        path for path in changed_paths if path.startswith(f"{VENV_FOLDER}/bin/") and path not in known_paths
    )
    if added_programs:
        description = f"The venv holds programs that belong to no package: {shorten_list(added_programs)}."
        yield Drift(kind="venv-added", subject=VENV_FOLDER, text=description, paths=added_programs)


def _folder_owner(path: str, receipt: Receipt) -> str:
    """Guess the package of a path in site-packages that no RECORD names (any more), from its first folder."""
    first_folder = path.split("/", maxsplit=1)[0].removesuffix(".dist-info")
    # `numpy-1.0.dist-info` and `numpy` both belong to numpy.
    guessed_name = normalize_name(first_folder.rpartition("-")[0] or first_folder)
    return guessed_name if guessed_name in receipt.packages else first_folder


def is_same_version(first_version: str, other_version: str) -> bool:
    """Return whether two texts are one version (PEP 440)."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(first_version) == Version(other_version)
    except InvalidVersion:
        return first_version == other_version

"""Finds packages with known vulnerabilities in a file of advisories, without asking anybody (pure but for the file).

Advisories are OSV (https://ossf.github.io/osv-schema/): one, a list, `{"vulns": [...]}` as OSV answers, a zip or a
folder of them, such as osv.dev's all.zip for PyPI or a checkout of pypa/advisory-database.
"""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.errors import ConfigError
from comfypin.lock.model import PackagePin
from comfypin.lock.requirements import normalize_package_name

if TYPE_CHECKING:
    from packaging.version import Version

# The whole database of PyPI is 60 MB; a single advisory is a few kilobytes.
MAX_FILE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Vulnerability:
    """A pinned package with a known vulnerability: the advisory, its other names, and the versions that mend it."""

    package: str
    version: str
    advisory: str
    aliases: tuple[str, ...]
    fixed: tuple[str, ...]
    summary: str

    def __str__(self) -> str:
        known_as = f" ({', '.join(self.aliases)})" if self.aliases else ""
        mended = f"mended in {', '.join(self.fixed)}" if self.fixed else "no version mends it"
        return f"{self.package} {self.version}: {self.advisory}{known_as}, {mended}. {self.summary}".rstrip(". ")

    def to_json(self) -> dict[str, object]:
        return {
            "package": self.package,
            "version": self.version,
            "advisory": self.advisory,
            "aliases": list(self.aliases),
            "fixed": list(self.fixed),
            "summary": self.summary,
        }


def find_vulnerabilities(packages: Iterable[PackagePin], advisories: Path) -> tuple[Vulnerability, ...]:
    """Return what the advisories say of the packages, by package. Raises `ConfigError` if they cannot be read."""
    pins: dict[str, list[PackagePin]] = {}
    for pin in packages:
        pins.setdefault(normalize_package_name(pin.name), []).append(pin)
    vulnerabilities = {
        (vulnerability.package, vulnerability.version, vulnerability.advisory): vulnerability
        for advisory in read_advisories(advisories)
        for vulnerability in _match_advisory(advisory, pins)
    }
    return tuple(vulnerabilities[key] for key in sorted(vulnerabilities))


def read_advisories(path: Path) -> Iterator[Mapping[str, object]]:
    """Yield every advisory of a file, a zip or a folder. Raises `ConfigError`."""
    try:
        if path.is_dir():
            for file_path in sorted(path.rglob("*")):
                if file_path.suffix in (".json", ".yaml", ".yml") and file_path.is_file():
                    yield from _parse_advisories(file_path.read_bytes(), file_path.suffix)
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if entry.filename.endswith(".json") and entry.file_size < MAX_FILE_BYTES:
                        yield from _parse_advisories(archive.read(entry), ".json")
        else:
            yield from _parse_advisories(path.read_bytes(), path.suffix)
    except (OSError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"The advisories {path} cannot be read: {reason}.", path=str(path)) from error


def _parse_advisories(advisory_bytes: bytes, suffix: str) -> Iterator[Mapping[str, object]]:
    document: object
    if suffix in (".yaml", ".yml"):
        import yaml

        try:
            document = yaml.safe_load(advisory_bytes)
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())[:200]) from error
    else:
        document = json.loads(advisory_bytes)
    if isinstance(document, Mapping) and isinstance(document.get("vulns"), list):
        document = document["vulns"]
    for advisory in document if isinstance(document, list) else [document]:
        if isinstance(advisory, Mapping):
            yield advisory


def _match_advisory(advisory: Mapping[str, object], pins: Mapping[str, list[PackagePin]]) -> Iterator[Vulnerability]:
    # Withdrawn advisories stay in the database, so that their ids lead somewhere.
    if advisory.get("withdrawn"):
        return
    for affected in _objects(advisory.get("affected")):
        package = affected.get("package")
        if not isinstance(package, Mapping) or str(package.get("ecosystem", "")).lower() != "pypi":
            continue
        for pin in pins.get(normalize_package_name(str(package.get("name", ""))), ()):
            if _is_affected(pin.version, affected):
                yield Vulnerability(
                    package=pin.name,
                    version=pin.version,
                    advisory=str(advisory.get("id", "")),
                    aliases=tuple(str(alias) for alias in _list(advisory.get("aliases"))),
                    fixed=tuple(dict.fromkeys(_events(affected, "fixed"))),
                    summary=" ".join(str(advisory.get("summary") or "").split()),
                )


def _is_affected(version: str, affected: Mapping[str, object]) -> bool:
    from packaging.version import InvalidVersion, Version

    # `2.8.0+cu128` is 2.8.0 built for something: an advisory for the one speaks of the other.
    public = version.partition("+")[0]
    if public in map(str, _list(affected.get("versions"))):
        return True
    try:
        pinned = Version(public)
        return any(
            _is_in_range(pinned, _objects(entry.get("events")))
            for entry in _objects(affected.get("ranges"))
            if entry.get("type") == "ECOSYSTEM"
        )
    except InvalidVersion:
        return False


def _is_in_range(pinned: "Version", events: Iterable[Mapping[str, object]]) -> bool:
    """Return whether a version is affected: events are introduced, fixed or last_affected, in their order."""
    from packaging.version import Version

    affected = False
    for event in events:
        if "introduced" in event:
            introduced = str(event["introduced"])
            affected = affected or introduced == "0" or pinned >= Version(introduced)
        elif "fixed" in event:
            affected = affected and pinned < Version(str(event["fixed"]))
        elif "last_affected" in event:
            affected = affected and pinned <= Version(str(event["last_affected"]))
    return affected


def _events(affected: Mapping[str, object], package_name: str) -> Iterator[str]:
    for entry in _objects(affected.get("ranges")):
        # A range of git names commits.
        if entry.get("type") == "ECOSYSTEM":
            yield from (str(event[package_name]) for event in _objects(entry.get("events")) if package_name in event)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _objects(value: object) -> Iterator[Mapping[str, object]]:
    return (item for item in _list(value) if isinstance(item, Mapping))

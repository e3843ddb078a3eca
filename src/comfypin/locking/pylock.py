"""Reads what uv resolved (a pylock.toml, PEP 751) into pins: for each package the one file that a target takes
(pure).
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from comfypin.digest import Digest
from comfypin.lock.model import PackagePin
from comfypin.locking.errors import PackageWithoutFile

if TYPE_CHECKING:
    from packaging.tags import Tag

# The C library that Linux wheels may ask for: that of Ubuntu 22.04, on which most GPU images stand.
GLIBC = (2, 35)
# Wheels for macOS may ask for this version at most.
MACOS = (13, 0)
# Names from before PEP 600, which many wheels still carry.
_LEGACY = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A kind of machine: its name in targets, and uv's name for it."""

    name: str
    uv_name: str

    def wheel_platforms(self) -> Iterator[str]:
        """Yield the platform tags of its wheels, best first."""
        if self.name == "darwin-aarch64":
            from packaging.tags import mac_platforms

            yield from mac_platforms(MACOS, "arm64")
            return
        machine = self.name.removeprefix("linux-")
        # aarch64 came with glibc 2.17; x86_64 wheels reach back to 2.5.
        for minor in range(GLIBC[1], 4 if machine == "x86_64" else 16, -1):
            yield f"manylinux_{GLIBC[0]}_{minor}_{machine}"
            if legacy := _LEGACY.get((GLIBC[0], minor)):
                yield f"{legacy}_{machine}"
        yield f"linux_{machine}"


_GLIBC = f"manylinux_{GLIBC[0]}_{GLIBC[1]}"
PLATFORMS = {
    platform.name: platform
    for platform in (
        Platform(name="linux-x86_64", uv_name=f"x86_64-{_GLIBC}"),
        Platform(name="linux-aarch64", uv_name=f"aarch64-{_GLIBC}"),
        Platform(name="darwin-aarch64", uv_name="aarch64-apple-darwin"),
    )
}


def read_pylock(pylock_text: str, *, platform: Platform, python_version: str) -> tuple[PackagePin, ...]:
    """Return the pins of a pylock.toml that was resolved for one platform and Python.

    Raises `PackageWithoutFile` naming every package that the platform cannot install.
    """
    ranks = _rank_tags(platform, python_version)
    package_pins: list[PackagePin] = []
    unfit_packages: list[str] = []
    for package_table in _table_list(tomllib.loads(pylock_text).get("packages")):
        package_pin = _pin_package(package_table, ranks)
        if package_pin is None:
            unfit_packages.append(f"{package_table['name']} {package_table.get('version', '')}".strip())
        else:
            package_pins.append(package_pin)
    if unfit_packages:
        raise PackageWithoutFile(packages=unfit_packages, target=f"{platform.name}, Python {python_version}")
    return tuple(package_pins)


def _pin_package(package_table: Mapping[str, object], tag_ranks: Mapping["Tag", int]) -> PackagePin | None:
    package_name, version = str(package_table["name"]), package_table.get("version")
    index_url = package_table.get("index")
    index_url = str(index_url) if index_url is not None else None
    # A package from git has no file that could be chosen; its commit is the pin.
    if vcs_table := cast("Mapping[str, str]", package_table.get("vcs", {})):
        file_url = f"git+{vcs_table['url']}@{vcs_table['commit-id']}"
        if "subdirectory" in vcs_table:
            file_url += f"#subdirectory={vcs_table['subdirectory']}"
        return PackagePin(name=package_name, version=str(version or f"0+{vcs_table['commit-id'][:12]}"), url=file_url)
    # uv lists every wheel that exists; only those that the target can install count.
    wheels = [wheel for wheel in _table_list(package_table.get("wheels")) if _rank_wheel(wheel, tag_ranks) is not None]
    if wheels:
        # The URL decides between equals, so that the same lock comes out each time.
        chosen_file = min(wheels, key=lambda wheel: (_rank_wheel(wheel, tag_ranks), str(wheel["url"])))
    elif source := cast("Mapping[str, object]", package_table.get("sdist") or package_table.get("archive") or {}):
        chosen_file = source
    else:
        return None
    hashes = cast("Mapping[str, str]", chosen_file.get("hashes", {}))
    return PackagePin(
        name=package_name,
        version=str(version or _version_in_file_name(str(chosen_file["url"]))),
        url=str(chosen_file["url"]),
        sha256=(Digest.parse(hashes["sha256"]),) if "sha256" in hashes else (),
        index=index_url,
    )


def _table_list(value: object) -> Sequence[Mapping[str, object]]:
    return cast("Sequence[Mapping[str, object]]", value or ())


def _rank_wheel(wheel: Mapping[str, object], tag_ranks: Mapping["Tag", int]) -> int | None:
    """Rank a wheel for the platform (0 is best); None if it does not fit."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        tags = parse_wheel_filename(file_name_of_url(str(wheel["url"])))[3]
    except InvalidWheelFilename:
        return None
    return min((tag_ranks[tag] for tag in tags if tag in tag_ranks), default=None)


def file_name_of_url(url: str) -> str:
    """Return the plain name of the file at a URL; empty if it has none (`..`, an encoded slash)."""
    # The name becomes a file of ours, so it must not be a path.
    file_name = unquote(urlsplit(url).path.rpartition("/")[2])
    return "" if file_name in (".", "..") or set(file_name) & set("/\\\0") else file_name


def _version_in_file_name(url: str) -> str:
    from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

    file_name = file_name_of_url(url)
    try:
        return str(
            parse_wheel_filename(file_name)[1] if file_name.endswith(".whl") else parse_sdist_filename(file_name)[1]
        )
    except (InvalidWheelFilename, InvalidSdistFilename):
        return "0"


def _rank_tags(platform: Platform, python: str) -> dict["Tag", int]:
    from packaging.tags import compatible_tags, cpython_tags

    version = tuple(int(part) for part in python.split(".")[:2])
    python_tag = f"cp{version[0]}{version[1]}"
    platforms = list(platform.wheel_platforms())
    tags = [*cpython_tags(version, [python_tag], platforms), *compatible_tags(version, python_tag, platforms)]
    # Reversed: if a tag is listed twice, its better rank is written last.
    return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}

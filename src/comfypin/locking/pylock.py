"""What uv resolved (a pylock.toml, PEP 751) to pins: for each package the one file that a target takes (pure)."""

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
MACOS = (13, 0)
_LEGACY = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A kind of machine: its name in targets, and uv's name for it."""

    name: str
    uv_name: str

    def wheel_platforms(self) -> Iterator[str]:
        """The platform tags of its wheels, best first."""
        if self.name == "darwin-aarch64":
            from packaging.tags import mac_platforms

            yield from mac_platforms(MACOS, "arm64")
            return
        machine = self.name.removeprefix("linux-")
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


def read_pylock(text: str, *, platform: Platform, python: str) -> tuple[PackagePin, ...]:
    """The pins of a pylock.toml that was resolved for one platform and Python.

    Raises `PackageWithoutFile` naming every package that the platform cannot install.
    """
    ranks = _ranks(platform, python)
    pins: list[PackagePin] = []
    unfit: list[str] = []
    for package in _tables(tomllib.loads(text).get("packages")):
        pin = _pin(package, ranks)
        if pin is None:
            unfit.append(f"{package['name']} {package.get('version', '')}".strip())
        else:
            pins.append(pin)
    if unfit:
        raise PackageWithoutFile(packages=unfit, target=f"{platform.name}, Python {python}")
    return tuple(pins)


def _pin(package: Mapping[str, object], ranks: Mapping["Tag", int]) -> PackagePin | None:
    name, version = str(package["name"]), package.get("version")
    index = package.get("index")
    index = str(index) if index is not None else None
    if vcs := cast("Mapping[str, str]", package.get("vcs", {})):
        url = f"git+{vcs['url']}@{vcs['commit-id']}"
        if "subdirectory" in vcs:
            url += f"#subdirectory={vcs['subdirectory']}"
        return PackagePin(name=name, version=str(version or f"0+{vcs['commit-id'][:12]}"), url=url)
    wheels = [wheel for wheel in _tables(package.get("wheels")) if _rank(wheel, ranks) is not None]
    if wheels:
        file = min(wheels, key=lambda wheel: (_rank(wheel, ranks), str(wheel["url"])))
    elif source := cast("Mapping[str, object]", package.get("sdist") or package.get("archive") or {}):
        file = source
    else:
        return None
    hashes = cast("Mapping[str, str]", file.get("hashes", {}))
    return PackagePin(
        name=name,
        version=str(version or _version_of(str(file["url"]))),
        url=str(file["url"]),
        sha256=(Digest.parse(hashes["sha256"]),) if "sha256" in hashes else (),
        index=index,
    )


def _tables(value: object) -> Sequence[Mapping[str, object]]:
    return cast("Sequence[Mapping[str, object]]", value or ())


def _rank(wheel: Mapping[str, object], ranks: Mapping["Tag", int]) -> int | None:
    """How good a wheel is for the platform (0 is best), None where it does not fit."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        tags = parse_wheel_filename(file_name(str(wheel["url"])))[3]
    except InvalidWheelFilename:
        return None
    return min((ranks[tag] for tag in tags if tag in ranks), default=None)


def file_name(url: str) -> str:
    """The name of the file that a URL leads to: one plain name, empty where there is none (`..`, an encoded slash)."""
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    return "" if name in (".", "..") or set(name) & set("/\\\0") else name


def _version_of(url: str) -> str:
    from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

    name = file_name(url)
    try:
        return str(parse_wheel_filename(name)[1] if name.endswith(".whl") else parse_sdist_filename(name)[1])
    except (InvalidWheelFilename, InvalidSdistFilename):
        return "0"


def _ranks(platform: Platform, python: str) -> dict["Tag", int]:
    from packaging.tags import compatible_tags, cpython_tags

    version = tuple(int(part) for part in python.split(".")[:2])
    short = f"cp{version[0]}{version[1]}"
    platforms = list(platform.wheel_platforms())
    tags = [*cpython_tags(version, [short], platforms), *compatible_tags(version, short, platforms)]
    return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}

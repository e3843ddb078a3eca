"""Selects a lock's packages for this machine, and renders them as the lines that uv installs from (pure)."""

import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from comfypin.env.errors import TargetMissing, WheelUnfit
from comfypin.lock.model import Lock, PackagePin

if TYPE_CHECKING:
    from packaging.tags import Tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """Describes an installed Python: its path, its version, the wheels it takes and the values of markers."""

    path: Path
    version: str
    cache_tag: str
    machine: str
    tags: frozenset["Tag"]
    markers: Mapping[str, str]

    @property
    def minor_version(self) -> str:
        """`3.12` of `3.12.4`."""
        return ".".join(self.version.split(".")[:2])

    @property
    def platform_tag(self) -> str:
        """Return what byte-code and wheels depend on, as a part of a file name: `cpython-312-linux-x86_64`."""
        return f"{self.cache_tag}-{self.machine}"


def platform_for_python(python: str) -> str:
    """`Interpreter.platform_tag` of a CPython of this version (`3.12` or `3.12.4`) on this machine."""
    tag = "".join(python.split(".")[:2])
    return f"cpython-{tag}-{machine_name(platform.system(), platform.machine())}"


def machine_name(system: str, machine: str) -> str:
    """`linux-x86_64`, as the lock's targets begin."""
    return f"{system.lower()}-{machine.lower().replace('amd64', 'x86_64').replace('arm64', 'aarch64')}"


def choose_target(lock: Lock, machine: str, wanted: str | None) -> str | None:
    """Return the lock's target for this machine (`linux-x86_64`), or None if it has none. Raises `TargetMissing`."""
    targets = sorted(lock.python.targets)
    if wanted is not None:
        if wanted not in targets:
            raise TargetMissing(machine=machine, targets=targets, reason=f"it has no target {wanted}")
        return wanted
    fitting = [target for target in targets if target == machine or target.startswith(f"{machine}-")]
    if len(fitting) == 1 or not targets:
        return fitting[0] if fitting else None
    reason = "several targets fit, so name one with --target" if fitting else "it was locked for other platforms"
    raise TargetMissing(machine=machine, targets=targets, reason=reason)


def select_packages(lock: Lock, target: str | None, interpreter: Interpreter) -> tuple[PackagePin, ...]:
    """Return the lock's packages for this machine, by name. Raises `WheelUnfit` naming every wheel that does not
    fit.
    """
    from packaging.markers import Marker

    chosen: dict[str, PackagePin] = {}
    unfit: list[str] = []
    for pin in lock.python.packages:
        if pin.target is not None and pin.target != target:
            continue
        if pin.marker and not Marker(pin.marker).evaluate(dict(interpreter.markers)):
            continue
        name = normalize_name(pin.name)
        if not fits_interpreter(pin, interpreter):
            unfit.append(f"{name} {pin.version} has {package_file_name(pin)}")
        # A pin for this target goes before one for every target.
        elif name not in chosen or (pin.target is not None and chosen[name].target is None):
            chosen[name] = pin
    missing = [line for line in unfit if line.split()[0] not in chosen]
    if missing:
        raise WheelUnfit(machine=f"{interpreter.machine}, Python {interpreter.minor_version}", packages=missing)
    return tuple(chosen[name] for name in sorted(chosen))


def render_requirements(packages: Sequence[PackagePin], wheels: Mapping[str, Path]) -> str:
    """Return a requirements file: exact URLs if the lock has them, and every digest that the lock allows.

    `wheels` are files by name that replace the URLs (a vendor folder's). Raises nothing.
    """
    lines = []
    for pin in packages:
        local = wheels.get(package_file_name(pin) or "")
        place = local.resolve().as_uri() if local else pin.url
        what = f"{pin.name} @ {place}" if place else f"{pin.name}=={pin.version}"
        marks = "".join(f" --hash=sha256:{digest.hex}" for digest in pin.sha256)
        lines.append(what + marks)
    return "\n".join(lines) + "\n"


def render_pylock(packages: Sequence[PackagePin], wheels: Mapping[str, Path]) -> str | None:
    """Return the same as a PEP 751 file, which uv installs from without asking servers for metadata first.

    None if the format cannot express it: it takes wheels only, each with one URL and one digest.
    """
    lines = ['lock-version = "1.0"', 'created-by = "comfypin"']
    for pin in packages:
        name = package_file_name(pin) or ""
        if not name.endswith(".whl") or len(pin.sha256) != 1:
            return None
        url = wheels[name].resolve().as_uri() if name in wheels else pin.url
        wheel = f"{{ url = {json.dumps(url)}, hashes = {{ sha256 = {json.dumps(pin.sha256[0].hex)} }} }}"
        lines += [
            "[[packages]]",
            f"name = {json.dumps(normalize_name(pin.name))}",
            f"version = {json.dumps(pin.version)}",
        ]
        lines.append(f"wheels = [{wheel}]")
    return "\n".join(lines) + "\n"


def list_indexes(packages: Sequence[PackagePin]) -> tuple[str, ...]:
    """Return the indexes of the packages that have no URL, each once."""
    return tuple(sorted({pin.index for pin in packages if pin.index and not pin.url}))


def package_file_name(pin: PackagePin) -> str | None:
    """Return the name of a package's file, by its URL."""
    if pin.url is None:
        return None
    return unquote(urlsplit(pin.url).path.rpartition("/")[2]) or None


def normalize_name(name: str) -> str:
    """Return a distribution's name as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def fits_interpreter(pin: PackagePin, interpreter: Interpreter) -> bool:
    """Return whether the interpreter takes the package's file: a compatible wheel, or a source."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    name = package_file_name(pin)
    if name is None or not name.endswith(".whl"):
        return True
    try:
        return not parse_wheel_filename(name)[3].isdisjoint(interpreter.tags)
    except InvalidWheelFilename:
        return True

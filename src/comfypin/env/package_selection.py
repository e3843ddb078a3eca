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


def platform_for_python(python_version: str) -> str:
    """`Interpreter.platform_tag` of a CPython of this version (`3.12` or `3.12.4`) on this machine."""
    version_tag = "".join(python_version.split(".")[:2])
    return f"cpython-{version_tag}-{machine_name(platform.system(), platform.machine())}"


def machine_name(system_name: str, machine: str) -> str:
    """`linux-x86_64`, as the lock's targets begin."""
    return f"{system_name.lower()}-{machine.lower().replace('amd64', 'x86_64').replace('arm64', 'aarch64')}"


def choose_target(lock: Lock, machine: str, wanted_target: str | None) -> str | None:
    """Return the lock's target for this machine (`linux-x86_64`), or None if it has none. Raises `TargetMissing`."""
    target_names = sorted(lock.python.targets)
    if wanted_target is not None:
        if wanted_target not in target_names:
            raise TargetMissing(machine=machine, targets=target_names, reason=f"it has no target {wanted_target}")
        return wanted_target
    fitting_targets = [target for target in target_names if target == machine or target.startswith(f"{machine}-")]
    # A lock without targets fits wherever its wheels do.
    if len(fitting_targets) == 1 or not target_names:
        return fitting_targets[0] if fitting_targets else None
    reason = (
        "several targets fit, so name one with --target"
        if fitting_targets
        else "it was locked for other platforms; lock it for this one too"
    )
    raise TargetMissing(machine=machine, targets=target_names, reason=reason)


def select_packages(lock: Lock, target: str | None, interpreter: Interpreter) -> tuple[PackagePin, ...]:
    """Return the lock's packages for this machine, by name. Raises `WheelUnfit` naming every wheel that does not
    fit.
    """
    from packaging.markers import Marker

    chosen_pins: dict[str, PackagePin] = {}
    unfit_wheels: list[str] = []
    for package_pin in lock.python.packages:
        if package_pin.target is not None and package_pin.target != target:
            continue
        if package_pin.marker and not Marker(package_pin.marker).evaluate(dict(interpreter.markers)):
            continue
        package_name = normalize_name(package_pin.name)
        if not fits_interpreter(package_pin, interpreter):
            unfit_wheels.append(f"{package_name} {package_pin.version} has {package_file_name(package_pin)}")
        # A pin for this target goes before one for every target.
        elif package_name not in chosen_pins or (
            package_pin.target is not None and chosen_pins[package_name].target is None
        ):
            chosen_pins[package_name] = package_pin
    missing_wheels = [unfit_wheel for unfit_wheel in unfit_wheels if unfit_wheel.split()[0] not in chosen_pins]
    if missing_wheels:
        raise WheelUnfit(machine=f"{interpreter.machine}, Python {interpreter.minor_version}", packages=missing_wheels)
    return tuple(chosen_pins[package_name] for package_name in sorted(chosen_pins))


def render_requirements(packages: Sequence[PackagePin], wheels: Mapping[str, Path]) -> str:
    """Return a requirements file: exact URLs if the lock has them, and every digest that the lock allows.

    `wheels` are files by name that replace the URLs (a vendor folder's). Raises nothing.
    """
    requirement_lines = []
    for package_pin in packages:
        local_wheel = wheels.get(package_file_name(package_pin) or "")
        package_url = local_wheel.resolve().as_uri() if local_wheel else package_pin.url
        requirement = (
            f"{package_pin.name} @ {package_url}" if package_url else f"{package_pin.name}=={package_pin.version}"
        )
        hash_options = "".join(f" --hash=sha256:{digest.hex}" for digest in package_pin.sha256)
        requirement_lines.append(requirement + hash_options)
    return "\n".join(requirement_lines) + "\n"


def render_pylock(packages: Sequence[PackagePin], wheels: Mapping[str, Path]) -> str | None:
    """Return the same as a PEP 751 file, which uv installs from without asking servers for metadata first.

    None if the format cannot express it: it takes wheels only, each with one URL and one digest.
    """
    pylock_lines = ['lock-version = "1.0"', 'created-by = "comfypin"']
    for package_pin in packages:
        wheel_name = package_file_name(package_pin) or ""
        if not wheel_name.endswith(".whl") or len(package_pin.sha256) != 1:
            return None
        package_url = wheels[wheel_name].resolve().as_uri() if wheel_name in wheels else package_pin.url
        wheel_table = (
            f"{{ url = {json.dumps(package_url)}, hashes = {{ sha256 = {json.dumps(package_pin.sha256[0].hex)} }} }}"
        )
        pylock_lines += [
            "[[packages]]",
            f"name = {json.dumps(normalize_name(package_pin.name))}",
            f"version = {json.dumps(package_pin.version)}",
        ]
        pylock_lines.append(f"wheels = [{wheel_table}]")
    return "\n".join(pylock_lines) + "\n"


def list_indexes(packages: Sequence[PackagePin]) -> tuple[str, ...]:
    """Return the indexes of the packages that have no URL, each once."""
    return tuple(sorted({package_pin.index for package_pin in packages if package_pin.index and not package_pin.url}))


def package_file_name(package_pin: PackagePin) -> str | None:
    """Return the name of a package's file, by its URL."""
    if package_pin.url is None:
        return None
    return unquote(urlsplit(package_pin.url).path.rpartition("/")[2]) or None


def normalize_name(package_name: str) -> str:
    """Return a distribution's name as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", package_name).lower()


def fits_interpreter(package_pin: PackagePin, interpreter: Interpreter) -> bool:
    """Return whether the interpreter takes the package's file: a compatible wheel, or a source."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    file_name = package_file_name(package_pin)
    if file_name is None or not file_name.endswith(".whl"):
        return True
    try:
        return not parse_wheel_filename(file_name)[3].isdisjoint(interpreter.tags)
    except InvalidWheelFilename:
        return True

"""Compares packages that are pinned as they were installed with what ComfyUI and its nodes require of them (pure)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from comfypin.lock.model import PackagePin
from comfypin.lock.requirements import RequirementLine, RequirementSet, normalize_package_name

# What PEP 508 calls the kinds of machines that locks are for.
_PLATFORM_MARKERS: Mapping[str, Mapping[str, str]] = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
    "darwin": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"},
}
# The same machine has two names: Linux says aarch64, macOS arm64.
_MACHINES = {"darwin-aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmetRequirement:
    """A requirement, and the version that is installed instead; None if the package is missing."""

    requirement: RequirementLine
    installed: str | None

    def __str__(self) -> str:
        has = "it is not installed" if self.installed is None else f"{self.installed} is installed"
        return f"{self.requirement}: {has}"


def find_unmet_requirements(
    needs: RequirementSet, packages: Iterable[PackagePin], *, python: str, platform: str
) -> tuple[UnmetRequirement, ...]:
    """Return the requirements that the packages do not satisfy, each once, missing packages first."""
    versions = {normalize_package_name(pin.name): pin.version for pin in packages}
    environment = marker_environment(python=python, platform=platform)
    unmet: dict[tuple[str, str], UnmetRequirement] = {}
    for requirement in needs.requirements:
        if requirement.name is None or not _applies(requirement.text, environment):
            continue
        installed = versions.get(requirement.name)
        if installed is None or not _is_satisfied(requirement.text, installed):
            unmet_need = UnmetRequirement(requirement=requirement, installed=installed)
            unmet.setdefault((requirement.origin, requirement.text), unmet_need)
    return tuple(sorted(unmet.values(), key=lambda unmet_need: (unmet_need.installed is not None, str(unmet_need))))


def marker_environment(*, python: str, platform: str) -> dict[str, str]:
    """Return what markers of PEP 508 see on a target: `3.12` on `linux-x86_64`."""
    system, _, machine = platform.partition("-")
    return {
        **_PLATFORM_MARKERS.get(system, {}),
        "platform_machine": _MACHINES.get(platform, machine.partition("-")[0]),
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": python if python.count(".") > 1 else f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }


def _applies(requirement_text: str, environment: Mapping[str, str]) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        marker = Requirement(requirement_text).marker
    except InvalidRequirement:
        return True
    return marker is None or marker.evaluate(dict(environment))


def _is_satisfied(requirement_text: str, version: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.version import InvalidVersion

    try:
        requirement = Requirement(requirement_text)
        # An address says which file, and not which version; whoever installed it knew.
        return requirement.url is not None or requirement.specifier.contains(version, prereleases=True)
    except (InvalidRequirement, InvalidVersion):
        return True

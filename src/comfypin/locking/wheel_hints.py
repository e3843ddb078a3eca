"""Says which wheel would fit, for a package that has none for the wanted Python, by asking the index through uv."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from comfypin.lock.model import PackagePin
from comfypin.lock.requirements import RequirementSet, normalize_package_name
from comfypin.locking.errors import PackageUnbuildable
from comfypin.locking.pylock import PLATFORMS, Platform, file_name_of_url
from comfypin.locking.variants import who_asks
from comfypin.temp_folders import temp_folder
from comfypin.tools.uv import UNBUILT, run_uv

# The Pythons that ComfyUI runs on, the newest first.
_PYTHONS = ("3.14", "3.13", "3.12", "3.11", "3.10")
# It only hints: who waits for it has a failure to read already.
_TIMEOUT_S = 60.0
# Hints are for people; nobody reads twenty of them.
_MAX_HINTS = 6


def explain_build_failure(
    uv_message: str, needs: RequirementSet, *, python: str, platform: Platform, indexes: Sequence[str]
) -> PackageUnbuildable | None:
    """Return the error for a package that uv could not build while resolving; None if something else happened."""
    failure_match = UNBUILT.search(re.sub(r"\s+", " ", uv_message))
    if failure_match is None:
        return None
    package_name, version = normalize_package_name(failure_match[1]), failure_match[2]
    return PackageUnbuildable(
        package=f"{package_name} {version}" if version else package_name,
        reason=re.sub(r"\s+", " ", uv_message)[-600:],
        python=python,
        wants=[who_asks(package_name, needs)],
        remedy=find_wheel_hint(package_name, version, python=python, platform=platform, indexes=indexes) or "",
    )


def source_notes(
    pins: Iterable[PackagePin], needs: RequirementSet, *, python: str, platform: str, indexes: Sequence[str]
) -> list[str]:
    """Return a line about each package that has no wheel: who asks for it, and which wheel would fit."""
    sources = [pin for pin in pins if pin.url and not file_name_of_url(pin.url).endswith(".whl")]
    notes = []
    for package_pin in sources[:_MAX_HINTS]:
        package_name = normalize_package_name(package_pin.name)
        hint = find_wheel_hint(
            package_name, package_pin.version, python=python, platform=PLATFORMS[platform], indexes=indexes
        )
        notes.append(
            f"{who_asks(package_name, needs)} {package_pin.version} has no wheel for Python {python}, so it is built "
            f"when the env is made{f'; {hint}' if hint else ''}"
        )
    return notes


def find_wheel_hint(
    package_name: str, version: str | None, *, python: str, platform: Platform, indexes: Sequence[str]
) -> str | None:
    """Return what to type to get a wheel: another Python for this version, or another version for this Python."""
    exact = f"{package_name}=={version}" if version else package_name
    minor = ".".join(python.split(".")[:2])
    for other in _PYTHONS:
        if version and other != minor and _find_wheel(exact, package_name, other, platform, indexes):
            return f"{package_name} {version} has a wheel for Python {other}: --python {other}"
    if wheel_hint := _find_wheel(package_name, package_name, minor, platform, indexes):
        return f"{package_name} {wheel_hint} has a wheel for Python {minor}: --override '{package_name}=={wheel_hint}'"
    return None


def _find_wheel(
    requirement: str, package_name: str, python: str, platform: Platform, indexes: Sequence[str]
) -> str | None:
    """Return the version whose wheel fits, or None if no wheel does or the index does not say."""
    with temp_folder("hint") as folder:
        Path(folder, "requirements.in").write_text(f"{requirement}\n")
        arguments = ["pip", "compile", "requirements.in", "--quiet", "--no-deps", "--no-header", "--no-annotate"]
        arguments += ["--only-binary", package_name, "--python-version", python, "--python-platform", platform.uv_name]
        arguments += [part for index in indexes for part in ("--index", index)]
        finished = run_uv(arguments, cwd=Path(folder), patient=False)
    pinned = re.search(r"(?m)^\S+==(\S+)", finished.stdout_text)
    return None if finished.exit_code or pinned is None else pinned[1]

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
    found = UNBUILT.search(re.sub(r"\s+", " ", uv_message))
    if found is None:
        return None
    name, version = normalize_package_name(found[1]), found[2]
    return PackageUnbuildable(
        package=f"{name} {version}" if version else name,
        reason=re.sub(r"\s+", " ", uv_message)[-600:],
        python=python,
        wants=[who_asks(name, needs)],
        remedy=find_wheel_hint(name, version, python=python, platform=platform, indexes=indexes) or "",
    )


def source_notes(
    pins: Iterable[PackagePin], needs: RequirementSet, *, python: str, platform: str, indexes: Sequence[str]
) -> list[str]:
    """Return a line about each package that has no wheel: who asks for it, and which wheel would fit."""
    sources = [pin for pin in pins if pin.url and not file_name_of_url(pin.url).endswith(".whl")]
    notes = []
    for package_pin in sources[:_MAX_HINTS]:
        name = normalize_package_name(package_pin.name)
        hint = find_wheel_hint(name, package_pin.version, python=python, platform=PLATFORMS[platform], indexes=indexes)
        notes.append(
            f"{who_asks(name, needs)} {package_pin.version} has no wheel for Python {python}, so it is built when the "
            f"env is made{f'; {hint}' if hint else ''}"
        )
    return notes


def find_wheel_hint(
    name: str, version: str | None, *, python: str, platform: Platform, indexes: Sequence[str]
) -> str | None:
    """Return what to type to get a wheel: another Python for this version, or another version for this Python."""
    exact = f"{name}=={version}" if version else name
    minor = ".".join(python.split(".")[:2])
    for other in _PYTHONS:
        if version and other != minor and _find_wheel(exact, name, other, platform, indexes):
            return f"{name} {version} has a wheel for Python {other}: --python {other}"
    if found := _find_wheel(name, name, minor, platform, indexes):
        return f"{name} {found} has a wheel for Python {minor}: --override '{name}=={found}'"
    return None


def _find_wheel(requirement: str, name: str, python: str, platform: Platform, indexes: Sequence[str]) -> str | None:
    """Return the version whose wheel fits, None if there is none or the index does not say."""
    with temp_folder("hint") as folder:
        Path(folder, "requirements.in").write_text(f"{requirement}\n")
        arguments = ["pip", "compile", "requirements.in", "--quiet", "--no-deps", "--no-header", "--no-annotate"]
        arguments += ["--only-binary", name, "--python-version", python, "--python-platform", platform.uv_name]
        arguments += [part for index in indexes for part in ("--index", index)]
        finished = run_uv(arguments, cwd=Path(folder), patient=False)
    pinned = re.search(r"(?m)^\S+==(\S+)", finished.stdout_text)
    return None if finished.exit_code or pinned is None else pinned[1]

"""Says what packages that are pinned as they were installed lack of what is required, and what would bring it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from comfypin.lock.model import PythonPins
from comfypin.lock.requirements import RequirementLine, RequirementSet, normalize_package_name
from comfypin.locking.errors import PackageWithoutFile, RequirementsConflict, RequirementsUnmet, TorchTrioSplit
from comfypin.locking.installed_requirements import UnmetRequirement, find_unmet_requirements
from comfypin.locking.resolve import ResolveRequest, resolve_packages
from comfypin.tools.errors import UvFailed


def require_installed(
    needs: RequirementSet,
    pins: PythonPins,
    question: ResolveRequest,
    *,
    allow_missing: bool,
    report: Callable[[str], None],
) -> tuple[UnmetRequirement, ...]:
    """Return the requirements that the pins do not satisfy.

    Raises `RequirementsUnmet` for packages that are missing, unless that is allowed. Another version than the one that
    is asked for is only noted: pip warns of it too, and such an env often works.
    """
    unmet = find_unmet(needs, pins, question)
    missing = [unmet_need for unmet_need in unmet if unmet_need.installed is None]
    if missing and not allow_missing:
        added = _find_additions(missing, pins, question, report)
        raise RequirementsUnmet(missing=[str(unmet_need) for unmet_need in missing], added=added)
    return unmet


def note_unmet(unmet: Iterable[UnmetRequirement]) -> tuple[str, ...]:
    """Return a note for each requirement that is not satisfied."""
    return tuple(f"not satisfied: {unmet_need}" for unmet_need in unmet)


def missing_for_comfyui(unmet: Iterable[UnmetRequirement]) -> tuple[str, ...]:
    """Return what ComfyUI requires and has not: an env without it is refused, so the lock keeps it as a requirement."""
    lines = (need.requirement for need in unmet if need.installed is None and need.requirement.origin == "ComfyUI")
    # They apply on the platform that was captured; without their markers they are checked on every one.
    return tuple(sorted({line.text.partition(";")[0].strip() for line in lines}))


def find_unmet(needs: RequirementSet, pins: PythonPins, question: ResolveRequest) -> tuple[UnmetRequirement, ...]:
    """Return the requirements that the pins do not satisfy on the platform that they are for."""
    dropped = {normalize_package_name(package_name) for package_name in (*pins.dropped, *pins.overrides)}
    wanted_needs = tuple(need for need in needs.requirements if need.name not in dropped)
    return find_unmet_requirements(
        RequirementSet(requirements=wanted_needs), pins.packages, python=question.python, platform=question.platforms[0]
    )


def _find_additions(
    missing: Sequence[UnmetRequirement], pins: PythonPins, question: ResolveRequest, report: Callable[[str], None]
) -> list[str]:
    """Resolve what is missing beside exactly what is there; return what that adds, empty if nothing fits."""
    held = tuple(
        RequirementLine(text=f"{pin.name}=={pin.version}", name=normalize_package_name(pin.name), origin="the file")
        for pin in pins.packages
        if not str(pin.url).startswith("git+")
    )
    needs = RequirementSet(requirements=tuple(unmet_need.requirement for unmet_need in missing), constraints=held)
    try:
        resolved = resolve_packages(replace(question, needs=needs, keep=pins.packages), report=report)
    except (RequirementsConflict, PackageWithoutFile, TorchTrioSplit, UvFailed):
        return []
    there = {normalize_package_name(pin.name) for pin in pins.packages}
    return [f"{pin.name}=={pin.version}" for pin in resolved.packages if normalize_package_name(pin.name) not in there]

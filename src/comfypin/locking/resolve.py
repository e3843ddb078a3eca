"""Resolves requirements to package pins: one joint resolve for each target by uv, with the torch trio held together."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from comfypin.http.proxies import Proxies
from comfypin.lock.model import PackagePin, PythonPins, VariantChoice
from comfypin.lock.overlaps import find_overlaps, is_settled
from comfypin.lock.requirements import RequirementLine, RequirementSet, apply_overrides, normalize_package_name
from comfypin.lock.torch import (
    TRIO,
    find_requested_build,
    find_torch_build,
    is_trio_consistent,
    target_name,
    trio_versions,
)
from comfypin.locking.errors import (
    GitPackageUnreachable,
    PackagesOverlap,
    PackagesUnreachable,
    RequirementsConflict,
    RequirementsUnreadable,
    TorchTrioSplit,
    VariantUnknown,
)
from comfypin.locking.git_archives import (
    ARCHIVE_HOSTS,
    find_archives,
    replace_requirements,
    repository_of,
    require_archives,
)
from comfypin.locking.pylock import PLATFORMS, Platform, file_name_of_url, read_pylock
from comfypin.locking.variants import (
    apply_variants,
    choose_variants,
    choose_wanted_siblings,
    forget_overruled,
    merge_choices,
    who_asks,
)
from comfypin.locking.wheel_contents import WheelReader
from comfypin.locking.wheel_hints import explain_build_failure
from comfypin.plurals import format_count
from comfypin.temp_folders import temp_folder
from comfypin.tools.errors import UvFailed
from comfypin.tools.process import FinishedProcess
from comfypin.tools.uv import run_uv

# What a node's requirements file says about indexes is shown when nothing fits.
_INDEX_FLAG = re.compile(r": (--(extra-)?index-url|--find-links|-i|-f)\b")
# uv's exit codes do not tell these failures apart, so its words decide.
_UNREACHABLE = re.compile(r"error sending request|dns error|Failed to fetch|failed to clone|Could not connect", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveRequest:
    """What to resolve.

    `torch` is the wanted build (`cu128`, `cpu`); None takes what the index has. `keep` are pins that stay if they still
    fit, except for the packages in `move`. `overrides` replace what anybody asks of a package. `variants` are choices
    between packages that overwrite each other, `wanted_variants` those that the user names now (normalized); without
    `wheels` nobody looks whether packages do. `git_hosts` give archives of commits (`comfypin.locking.git_archives`).
    """

    needs: RequirementSet
    python: str
    platforms: tuple[str, ...]
    torch: str | None = None
    overrides: tuple[str, ...] = ()
    variants: tuple[VariantChoice, ...] = ()
    wanted_variants: frozenset[str] = frozenset()
    indexes: tuple[str, ...] = ()
    exclude_newer: str | None = None
    git_hosts: Mapping[str, str] = field(default_factory=lambda: ARCHIVE_HOSTS, hash=False)
    proxies: Proxies = field(default_factory=Proxies, compare=False)
    wheels: WheelReader | None = field(default=None, compare=False)
    keep: tuple[PackagePin, ...] = ()
    move: frozenset[str] = field(default_factory=frozenset)


def resolve_packages(resolve_request: ResolveRequest, *, report: Callable[[str], None]) -> PythonPins:
    """Resolve for every platform, choose between packages that overwrite each other, and say what platforms share.

    Raises `RequirementsUnreadable`, `RequirementsConflict`, `TorchTrioSplit`, `PackagesUnreachable`,
    `GitPackageUnreachable`, `PackageWithoutFile`, `PackagesOverlap`, `VariantUnknown` or `UvFailed`.
    """
    if resolve_request.needs.unusable:
        raise RequirementsUnreadable(lines=resolve_request.needs.unusable)
    wanted_names = resolve_request.wanted_variants
    resolve_request = replace(
        resolve_request,
        needs=apply_overrides(resolve_request.needs, resolve_request.overrides),
        variants=forget_overruled(resolve_request.variants, wanted_names),
    )
    while True:
        by_platform = _resolve_platforms(resolve_request, report)
        added = _choose_variants(resolve_request, by_platform)
        variants = merge_choices(resolve_request.variants, added)
        # The same choice again would change nothing: an override asks for what it leaves out.
        if variants == resolve_request.variants:
            break
        resolve_request = replace(resolve_request, variants=variants)
    if unused := wanted_names - {
        package_name for choice in resolve_request.variants for package_name in (choice.name, *choice.overwrites)
    }:
        raise VariantUnknown(names=sorted(unused))
    by_target = {
        target_name(platform_name, package_pins): package_pins for platform_name, package_pins in by_platform.items()
    }
    return PythonPins(
        version=resolve_request.python,
        targets={target: {} for target in by_target},
        variants=resolve_request.variants,
        packages=merge_targets(by_target),
    )


def _resolve_platforms(
    resolve_request: ResolveRequest, report: Callable[[str], None]
) -> dict[str, tuple[PackagePin, ...]]:
    by_platform: dict[str, tuple[PackagePin, ...]] = {}
    for platform_name in resolve_request.platforms:
        report(
            f"resolving {format_count(len(resolve_request.needs.requirements), 'requirement')} for {platform_name}, "
            f"Python {resolve_request.python}"
        )
        needs, overrides = apply_variants(
            resolve_request.needs, resolve_request.overrides, resolve_request.variants, platform_name
        )
        package_pins = _resolve_platform(
            replace(resolve_request, needs=needs, overrides=overrides), PLATFORMS[platform_name]
        )
        require_archives(package_pins, resolve_request.needs.requirements)
        by_platform[platform_name] = package_pins
    return by_platform


def _choose_variants(
    resolve_request: ResolveRequest, by_platform: Mapping[str, tuple[PackagePin, ...]]
) -> tuple[VariantChoice, ...]:
    """Return what has to be chosen before the next resolve, nothing if all is settled. Raises `PackagesOverlap`."""
    if resolve_request.wheels is None:
        return ()
    added: list[VariantChoice] = []
    for platform, package_pins in by_platform.items():
        names = {normalize_package_name(package_pin.name) for package_pin in package_pins}
        if siblings := choose_wanted_siblings(names, resolve_request.wanted_variants, platform):
            added += siblings
            continue
        contents, _ = resolve_request.wheels.read_contents(package_pins)
        overlaps = [overlap for overlap in find_overlaps(contents) if not is_settled(overlap, resolve_request.variants)]
        wanted_names = resolve_request.wanted_variants | {choice.name for choice in resolve_request.variants}
        chosen = choose_variants(overlaps, contents, wanted_names, platform)
        if chosen.open_overlaps:
            needs = resolve_request.needs
            raise PackagesOverlap(
                overlaps=[
                    f"{overlap}: {', '.join(who_asks(package_name, needs) for package_name in overlap.packages)}"
                    for overlap in chosen.open_overlaps
                ]
            )
        added += chosen.choices
    return merge_choices((), added)


def _resolve_platform(resolve_request: ResolveRequest, platform: Platform) -> tuple[PackagePin, ...]:
    """Resolve from the ordinary index, then from PyTorch's own if its build of torch differs."""
    package_pins = _resolve_with_archives(resolve_request, platform, backend=None)
    built_for = find_torch_build(package_pins)
    if (
        resolve_request.torch is None
        or built_for is None
        or built_for == resolve_request.torch
        or not platform.name.startswith("li")
    ):
        return package_pins
    try:
        return _resolve_with_archives(resolve_request, platform, backend=resolve_request.torch)
    except PackagesUnreachable as error:
        # Not only --torch asks for a build: so does a Dockerfile, by its image.
        hint = (
            f" torch for {resolve_request.torch} is on PyTorch's own index alone; PyPI has torch for {built_for}, "
            f"which --torch {built_for} takes."
        )
        raise PackagesUnreachable(reason=error.reason, hint=hint) from error


def _resolve_with_archives(
    resolve_request: ResolveRequest, platform: Platform, backend: str | None
) -> tuple[PackagePin, ...]:
    """Resolve, then pin packages from git by their commit's archive, which has a sha256. What cannot be built of one
    stays.
    """
    package_pins = _resolve_with_trio(resolve_request, platform, backend)
    archive_lines = find_archives(package_pins, resolve_request.git_hosts, proxies=resolve_request.proxies)
    if not archive_lines:
        return package_pins
    try:
        return _resolve_with_trio(
            replace(hold_requirements(resolve_request, archive_lines), keep=package_pins), platform, backend
        )
    # Some packages ask git for their version and cannot be built of an archive.
    except (UvFailed, RequirementsConflict, PackagesUnreachable):
        return package_pins


def _resolve_with_trio(
    resolve_request: ResolveRequest, platform: Platform, backend: str | None
) -> tuple[PackagePin, ...]:
    """Resolve, and hold torch or torchaudio back if the newest differ: torchaudio does not say which torch it needs."""
    package_pins = _compile_pins(resolve_request, platform, backend, ())
    if is_trio_consistent(package_pins):
        return package_pins
    minor_versions = trio_versions(package_pins)
    for held in (f"torchaudio=={minor_versions['torch']}.*", f"torch=={minor_versions['torchaudio']}.*"):
        try:
            together = _compile_pins(resolve_request, platform, backend, (held,))
        except RequirementsConflict:
            continue
        if is_trio_consistent(together):
            return together
    if _pins_exactly(resolve_request.needs.requirements, "torchaudio") and _pins_exactly(
        resolve_request.needs.requirements, "torch"
    ):
        return package_pins
    versions = ", ".join(f"{pin.name} {pin.version}" for pin in package_pins if pin.name in TRIO)
    raise TorchTrioSplit(versions=versions, target=platform.name)


def hold_requirements(resolve_request: ResolveRequest, archive_lines: Mapping[str, str]) -> ResolveRequest:
    """Return the request with what was chosen for each git repository, whoever asks for it."""
    needs = replace(
        resolve_request.needs, requirements=replace_requirements(resolve_request.needs.requirements, archive_lines)
    )
    return replace(resolve_request, needs=needs, overrides=(*resolve_request.overrides, *archive_lines.values()))


def _pins_exactly(needs: Iterable[RequirementLine], package_name: str) -> bool:
    return any(
        requirement.name == package_name and requirement.origin.startswith("--") and "==" in requirement.text
        for requirement in needs
    )


def merge_targets(by_target: Mapping[str, Sequence[PackagePin]]) -> tuple[PackagePin, ...]:
    """Return the pins of all targets: once if every target has the same, else for their target."""
    if len(by_target) == 1:
        return tuple(next(iter(by_target.values())))
    # Digests and URLs count, so a package with wheels per platform is never shared.
    shared_pins = set.intersection(*(set(pins) for pins in by_target.values()))
    own = [replace(pin, target=target) for target, pins in by_target.items() for pin in pins if pin not in shared_pins]
    return (*sorted(shared_pins, key=lambda pin: pin.name), *own)


def _compile_pins(
    resolve_request: ResolveRequest, platform: Platform, backend: str | None, extra: tuple[str, ...]
) -> tuple[PackagePin, ...]:
    arguments = ["--torch-backend", backend] if backend else []
    arguments += ["--exclude-newer", resolve_request.exclude_newer] if resolve_request.exclude_newer else []
    arguments += [part for index in resolve_request.indexes for part in ("--index", index)]
    # uv keeps everything that it finds in the output file, except what is named here.
    if resolve_request.keep:
        arguments += [part for package in sorted(resolve_request.move) for part in ("--upgrade-package", package)]
    kept_pins = [
        package_pin
        for package_pin in resolve_request.keep
        if package_pin.target is None or package_pin.target.startswith(platform.name)
    ]
    uv_run, requirements_text = _run_uv_compile(
        {
            "requirements.in": {need.text for need in resolve_request.needs.requirements},
            "constraints.txt": {*(need.text for need in resolve_request.needs.constraints), *extra},
            "overrides.txt": set(resolve_request.overrides),
        },
        [*arguments, "--python-version", resolve_request.python, "--python-platform", platform.uv_name],
        earlier_pylock=_write_preferences(kept_pins) if kept_pins else None,
    )
    if uv_run.exit_code:
        raise _explain_failure(uv_run, resolve_request, platform)
    return read_pylock(requirements_text, platform=platform, python_version=resolve_request.python)


def _run_uv_compile(
    files: Mapping[str, set[str]], arguments: Sequence[str], earlier_pylock: str | None = None, *, patient: bool = True
) -> tuple[FinishedProcess, str]:
    """Run `uv pip compile` on these files; return how it ended and the pylock.toml that it wrote."""
    with temp_folder("resolve") as folder_name:
        resolve_folder = Path(folder_name)
        # Sorted, so that the same requirements give the same input.
        for file, lines in files.items():
            (resolve_folder / file).write_text("".join(f"{line}\n" for line in sorted(lines)))
        pylock_path = resolve_folder / "pylock.toml"
        if earlier_pylock is not None:
            pylock_path.write_text(earlier_pylock)
        uv_arguments = ["pip", "compile", "requirements.in", "--format", "pylock.toml", "-o", str(pylock_path)]
        uv_arguments += ["--constraint", "constraints.txt"] if "constraints.txt" in files else []
        uv_arguments += ["--override", "overrides.txt"] if "overrides.txt" in files else []
        uv_run = run_uv([*uv_arguments, *arguments], cwd=resolve_folder, patient=patient)
        return uv_run, "" if uv_run.exit_code else pylock_path.read_text()


def pin_installed(
    requirements: Sequence[str], resolve_request: ResolveRequest, *, report: Callable[[str], None]
) -> tuple[PythonPins, tuple[str, ...]]:
    """Pin exactly these (`name==version`, `name @ url`), nothing added, and return those that no index has.

    Raises `PackagesUnreachable`, `PackageWithoutFile` or `UvFailed`.
    """
    python_version, platform_name = resolve_request.python, resolve_request.platforms[0]
    platform = PLATFORMS[platform_name]
    wanted_lines = sorted(set(requirements))
    torch_local = find_requested_build(wanted_lines)
    missing_lines: list[str] = []
    package_pins: tuple[PackagePin, ...] = ()
    unheard_build: str | None = None
    report(f"looking up the files of {format_count(len(wanted_lines), 'package')}")
    # uv stops at the first packages that it cannot find: those are set aside, and it is asked again.
    while wanted_lines:
        arguments = ["--no-deps", "--python-version", python_version, "--python-platform", platform.uv_name]
        arguments += ["--torch-backend", torch_local] if torch_local else []
        arguments += [part for index in resolve_request.indexes for part in ("--index", index)]
        # PyTorch's own index is asked only for its builds, which another index may have too.
        uv_run, requirements_text = _run_uv_compile(
            {"requirements.in": set(wanted_lines)}, arguments, patient=torch_local is None
        )
        if not uv_run.exit_code:
            package_pins = read_pylock(requirements_text, platform=platform, python_version=python_version)
            break
        if torch_local and _UNREACHABLE.search(uv_run.stderr):
            # Without PyTorch's own index only its builds cannot be had; the rest is looked up all the same.
            report(f"PyTorch's index for {torch_local} cannot be reached; looking for torch on the others")
            torch_local, unheard_build = None, torch_local
            continue
        absent_lines = _absent_requirements(uv_run.stderr, wanted_lines)
        # Something else went wrong, and asking again would not end.
        if not absent_lines:
            raise _explain_failure(uv_run, resolve_request, platform)
        if unheard_build:
            _require_no_torch(absent_lines, unheard_build)
        missing_lines += absent_lines
        wanted_lines = [line for line in wanted_lines if line not in absent_lines]
    target = target_name(platform_name, package_pins)
    return PythonPins(version=python_version, targets={target: {}}, packages=package_pins), tuple(missing_lines)


def _require_no_torch(absent: Iterable[str], unheard: str) -> None:
    """Raise `PackagesUnreachable` if only PyTorch's index, which did not answer, may have what is absent."""
    if builds := [
        requirement_line for requirement_line in absent if requirement_line.partition("==")[0].lower() in TRIO
    ]:
        hint = f" {', '.join(builds)} may be PyTorch's own; name an index that has it with --index."
        raise PackagesUnreachable(reason=f"PyTorch's index for {unheard} does not answer", hint=hint)


def _absent_requirements(uv_message: str, wanted_lines: Sequence[str]) -> list[str]:
    """Return which of the wanted requirements uv could not find."""
    # uv wraps its sentences at the width of a terminal.
    message = re.sub(r"\s+", " ", uv_message)
    if "No solution found" not in message:
        return []
    mentioned_packages = set(re.findall(r"([a-zA-Z0-9._-]+)==[^\s,]+", message))
    mentioned_packages |= set(re.findall(r"([a-zA-Z0-9._-]+) was not found in the", message))
    absent_names = {normalize_package_name(package_name) for package_name in mentioned_packages}
    return [line for line in wanted_lines if normalize_package_name(re.split(r"[=@ ]", line)[0]) in absent_names]


def _write_preferences(pins: Iterable[PackagePin]) -> str:
    """Return a pylock.toml of earlier pins: uv keeps their versions if it can."""
    tables = [
        _write_preference(package_pin)
        for package_pin in pins
        if package_pin.url and not package_pin.url.startswith("git+") and package_pin.sha256
    ]
    return "\n".join(['lock-version = "1.0"\ncreated-by = "comfypin"\n', *(tables or ["packages = []\n"])])


def _write_preference(package_pin: PackagePin) -> str:
    file = f'{{ url = "{package_pin.url}", hashes = {{ sha256 = "{package_pin.sha256[0].hex}" }} }}'
    kind = f"wheels = [{file}]" if file_name_of_url(str(package_pin.url)).endswith(".whl") else f"sdist = {file}"
    return f'[[packages]]\nname = "{package_pin.name}"\nversion = "{package_pin.version}"\n{kind}\n'


def _explain_failure(uv_run: FinishedProcess, resolve_request: ResolveRequest, platform: Platform) -> Exception:
    """Return the error that uv's message means."""
    uv_message = uv_run.stderr.rpartition("error: ")[2].strip() or uv_run.error_summary
    one_line = re.sub(r"\s+", " ", re.sub(r"(?m)^\s*cause:\s*", "", uv_message))
    if "No solution found" in uv_message or "unsatisfiable" in uv_message:
        explanation = one_line.removeprefix("No solution found when resolving dependencies").strip(" :")
        target = f"{platform.name}, Python {resolve_request.python}"
        wants = _who_asks(resolve_request.needs, one_line)
        unheard = [
            requirement_line
            for requirement_line in resolve_request.needs.ignored
            if _INDEX_FLAG.search(requirement_line)
        ]
        return RequirementsConflict(target=target, wants=wants, explanation=explanation, unheard=unheard)
    if unbuildable := explain_build_failure(
        uv_run.stderr,
        resolve_request.needs,
        python=resolve_request.python,
        platform=platform,
        indexes=resolve_request.indexes,
    ):
        return unbuildable
    # Before the check for the network, whose pattern also matches git's `failed to clone`.
    if "Git operation failed" in uv_message:
        asked_requirements = [
            need
            for need in resolve_request.needs.requirements
            if (repository := repository_of(need.text)) and repository in uv_message
        ]
        return GitPackageUnreachable(wants=[str(need) for need in asked_requirements], reason=one_line[-600:])
    if _UNREACHABLE.search(uv_message):
        return PackagesUnreachable(reason=one_line[:600], hint=" Check the network.")
    return UvFailed(doing=f"resolve the packages for {platform.name}", reason=one_line[:1500])


def _who_asks(requirement_set: RequirementSet, explanation: str) -> list[str]:
    """Return who asks directly for the packages that the resolver mentions."""
    # Every word is a candidate; only words that are required packages remain.
    mentioned_packages = set(re.findall(r"[a-z0-9][a-z0-9._-]*[a-z0-9]|[a-z0-9]", explanation.lower()))
    normalized = {re.sub(r"[-_.]+", "-", package_name) for package_name in mentioned_packages}
    asking_needs = [
        need for need in (*requirement_set.requirements, *requirement_set.constraints) if need.name in normalized
    ]
    return list(
        dict.fromkeys(str(need) for need in sorted(asking_needs, key=lambda need: (need.name or "", need.origin)))
    )

"""Upgrades a lock: moves only what is asked for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from comfypin.addresses import hide_credentials
from comfypin.errors import UsageError
from comfypin.lock.check import check_lock
from comfypin.lock.errors import LockFinding, LockIncomplete
from comfypin.lock.model import DEFAULT_PYTHON, Lock, ModelPin, NodePin, PythonPins
from comfypin.lock.model_spec import DescribeModel, ModelSpec, pin_models
from comfypin.lock.requirements import RequirementLine, RequirementSet, normalize_package_name, parse_requirement
from comfypin.lock.torch import split_target
from comfypin.locking.create import MadeLock, package_notes, read_own_requirements, require_drops
from comfypin.locking.errors import NothingToUpgrade, RequirementsConflict
from comfypin.locking.git_archives import hold_at_pins
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.resolve import ResolveRequest, hold_requirements, resolve_packages
from comfypin.locking.sources import ResolvedSource, Upstreams, fetch_all_sources, make_node_pin, named_ref
from comfypin.locking.system_libraries import AUTO, accept_proposals, library_notes, note_libraries
from comfypin.locking.variants import describe_choices
from comfypin.plurals import format_count


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeRequest:
    """What an upgrade may change: refs by folder (None: the newest commit of the pinned ref), packages, models.

    `dropped` are lines or names of requirements to leave out from now on.
    """

    name: str
    comfyui: str | None = None
    move_comfyui: bool = False
    nodes: dict[str, str | None] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    models: tuple[ModelSpec, ...] = ()
    system_packages: tuple[str, ...] = ()
    dropped: frozenset[str] = frozenset()
    question: ResolveRequest | None = None

    @property
    def is_empty(self) -> bool:
        moves = self.nodes or self.packages or self.models or self.system_packages or self.dropped or self.question
        return not (self.move_comfyui or moves)


def upgrade_lock(
    lock: Lock,
    upgrade_request: UpgradeRequest,
    *,
    upstreams: Upstreams,
    describe_model: DescribeModel,
    report: Callable[[str], None],
) -> MadeLock:
    """Return a new lock in which what was asked for moves, and other packages only if they have to.

    Raises `NothingToUpgrade`, `LockIncomplete`, and what `create_lock` raises.
    """
    # Typos are reported before anything is fetched.
    _check_names(lock, upgrade_request)
    _check_pinned(lock)
    assert lock.comfyui is not None
    comfyui_spec = RepoSpec(repo=str(lock.comfyui.repo), ref=lock.comfyui.commit)
    if upgrade_request.move_comfyui:
        comfyui_spec = replace(comfyui_spec, ref=upgrade_request.comfyui or lock.comfyui.ref)
    report(f"fetching ComfyUI and {format_count(len(lock.custom_nodes), 'node')}")
    dropped = frozenset(lock.python.dropped) | upgrade_request.dropped
    resolved_sources = fetch_all_sources(lock, comfyui_spec, upgrade_request.nodes, upstreams, dropped)
    comfyui = replace(lock.comfyui, commit=resolved_sources["ComfyUI"].commit)
    if upgrade_request.move_comfyui:
        # A patch was made against the old commit and need not apply to the new one.
        comfyui = replace(comfyui, ref=named_ref(resolved_sources["ComfyUI"]), patch=None)
    nodes = tuple(
        _move_node(node_pin, resolved_sources.get(f"the node {node_pin.folder}"), upgrade_request)
        for node_pin in lock.custom_nodes
    )
    python_pins = (
        _resolve_again(lock, upgrade_request, resolved_sources.values(), upstreams, report)
        if _do_packages_move(upgrade_request)
        else lock.python
    )
    models = _merge_models(lock.models, pin_models(upgrade_request.models, describe_model, report=report))
    if AUTO in upgrade_request.system_packages and python_pins is lock.python:
        # An older lock does not say what its packages need.
        python_pins = note_libraries(python_pins, upstreams.wheels, report)
    wanted_system = {*lock.system_packages, *upgrade_request.system_packages}
    system_packages = accept_proposals(sorted(wanted_system), python_pins.libraries)
    made = replace(
        lock,
        version_name=upgrade_request.name,
        comfyui=comfyui,
        custom_nodes=nodes,
        python=python_pins,
        models=models,
        system_packages=system_packages,
    )
    notes = (*package_notes(python_pins), *library_notes(python_pins.libraries, system_packages))
    return MadeLock(lock=replace(made, read_from_schema=3), notes=notes)


def _do_packages_move(upgrade_request: UpgradeRequest) -> bool:
    return bool(
        upgrade_request.move_comfyui
        or upgrade_request.nodes
        or upgrade_request.packages
        or upgrade_request.dropped
        or upgrade_request.question
    )


def _check_names(lock: Lock, upgrade_request: UpgradeRequest) -> None:
    folders = [node.folder for node in lock.custom_nodes]
    if unknown := [f"node {folder_name}" for folder_name in upgrade_request.nodes if folder_name not in folders]:
        raise NothingToUpgrade(names=unknown, there=[f"node {folder_name}" for folder_name in folders] or ["no nodes"])
    if upgrade_request.is_empty:
        raise UsageError("Name what is to move: --comfyui, --node FOLDER, --package P, --model, --torch or --python.")


def _check_pinned(lock: Lock) -> None:
    findings: list[LockFinding] = [
        finding
        for finding in check_lock(lock)
        if finding.rule in {"commit-not-pinned", "no-repository", "no-comfyui", "no-packages"}
    ]
    if findings:
        raise LockIncomplete(where=lock.version_name, findings=findings)


def _move_node(node_pin: NodePin, resolved_source: ResolvedSource | None, moves: UpgradeRequest) -> NodePin:
    if resolved_source is None or node_pin.folder not in moves.nodes:
        return node_pin
    runs = frozenset({node_pin.folder} if node_pin.install_script == "run" else ())
    fresh_pin = make_node_pin(resolved_source, runs)
    return replace(
        node_pin,
        commit=fresh_pin.commit,
        ref=fresh_pin.ref,
        archive=fresh_pin.archive,
        sha256=fresh_pin.sha256,
        patch=None,
        install_script=fresh_pin.install_script,
        install_script_sha256=fresh_pin.install_script_sha256,
    )


def _resolve_again(
    lock: Lock,
    upgrade_request: UpgradeRequest,
    resolved_sources: Iterable[ResolvedSource],
    upstreams: Upstreams,
    report: Callable[[str], None],
) -> PythonPins:
    asked_by_name = _parse_asked_packages(upgrade_request.packages)
    own_requirements = read_own_requirements(lock.python.requirements, (), frozenset())
    _check_packages(lock, asked_by_name.values(), own_requirements)
    still_wanted = [
        requirement for requirement in own_requirements.requirements if requirement.name not in asked_by_name
    ]
    # A bare name asks for the newest that fits; with a version it becomes a requirement of the lock's own.
    newly_asked = [
        requirement
        for requirement in asked_by_name.values()
        if requirement.text.lower() != requirement.name or _was_asked_before(requirement, own_requirements)
    ]
    requirement_set = sum(
        (source.needs for source in resolved_sources), RequirementSet(requirements=(*still_wanted, *newly_asked))
    )
    base_request = upgrade_request.question or resolve_request_of(lock)
    dropped = frozenset(lock.python.dropped) | upgrade_request.dropped
    require_drops(upgrade_request.dropped, requirement_set)
    unmoved = (
        requirement
        for requirement in requirement_set.requirements
        if not _comes_from_moved(requirement, upgrade_request) and requirement.name not in asked_by_name
    )
    # Branches move: what stays is held at its commit, or upgrading one thing would move others.
    held_archives = hold_at_pins(unmoved, lock.python.packages, base_request.git_hosts)
    resolve_request = replace(
        base_request,
        needs=requirement_set,
        keep=lock.python.packages,
        move=frozenset(asked_by_name),
        proxies=upstreams.proxies,
        wheels=upstreams.wheels,
    )
    resolve_request = hold_requirements(resolve_request, held_archives)
    python_pins = resolve_packages(resolve_request, report=report)
    # A second resolve with them, because they have to fit the new versions too.
    strays = _find_strays(lock, python_pins, dropped, upstreams, report)
    if strays:
        python_pins = resolve_packages(
            replace(resolve_request, needs=resolve_request.needs + RequirementSet(requirements=strays)), report=report
        )
    for line in describe_choices(set(python_pins.variants) - set(lock.python.variants), requirement_set):
        report(line)
    python_pins = note_libraries(python_pins, upstreams.wheels, report)
    return replace(
        python_pins,
        requirements=tuple(requirement.text for requirement in (*still_wanted, *newly_asked, *strays)),
        overrides=base_request.overrides,
        dropped=tuple(sorted(dropped)),
        indexes=tuple(map(hide_credentials, base_request.indexes)),
        extra=lock.python.extra,
    )


def _parse_asked_packages(packages: Iterable[str]) -> dict[str, RequirementLine]:
    """Return the packages to move, by name. Raises `NothingToUpgrade` if one is not a requirement."""
    parsed = {requirement_text: parse_requirement(requirement_text, "--package") for requirement_text in packages}
    if invalid_texts := [requirement_text for requirement_text, requirement in parsed.items() if requirement is None]:
        raise NothingToUpgrade(names=invalid_texts, there=["packages such as idna or idna==3.7"])
    return {requirement.name: requirement for requirement in parsed.values() if requirement and requirement.name}


def _comes_from_moved(requirement: RequirementLine, upgrade_request: UpgradeRequest) -> bool:
    # The names that fetch_all_sources gives.
    origins = {f"the node {folder}" for folder in upgrade_request.nodes} | (
        {"ComfyUI"} if upgrade_request.move_comfyui else set()
    )
    return requirement.origin in origins


def _find_strays(
    lock: Lock, resolved_pins: PythonPins, dropped: frozenset[str], upstreams: Upstreams, report: Callable[[str], None]
) -> tuple[RequirementLine, ...]:
    """Return packages that nothing in the lock asks for, such as those that somebody once installed by hand: they stay.

    What the old requirements brought and the new ones do not goes.
    """
    absent_names = {normalize_package_name(package_name) for package_name in dropped} | {
        normalize_package_name(package_pin.name) for package_pin in resolved_pins.packages
    }
    lost_pins = [
        package_pin
        for package_pin in lock.python.packages
        if normalize_package_name(package_pin.name) not in absent_names
    ]
    if not lost_pins:
        return ()
    assert lock.comfyui is not None
    spec = RepoSpec(repo=str(lock.comfyui.repo), ref=lock.comfyui.commit)
    before = fetch_all_sources(lock, spec, {}, upstreams, frozenset(lock.python.dropped)).values()
    needs = sum((source.needs for source in before), read_own_requirements(lock.python.requirements, (), frozenset()))
    try:
        asking = replace(resolve_request_of(lock), needs=needs, keep=lock.python.packages, proxies=upstreams.proxies)
        asked_by_name = resolve_packages(asking, report=report).packages
    except RequirementsConflict:
        asked_by_name = ()  # what was installed by hand does not fit together, so nobody can say who asked for what
    names = {normalize_package_name(package_pin.name) for package_pin in asked_by_name}
    kept_pins = {
        normalize_package_name(package_pin.name): package_pin
        for package_pin in lost_pins
        if normalize_package_name(package_pin.name) not in names
    }
    return tuple(
        RequirementLine(
            text=f"{package_pin.name} @ {package_pin.url}"
            if str(package_pin.url).startswith("git+")
            else package_pin.name,
            name=package_name,
            origin="the lock",
        )
        for package_name, package_pin in sorted(kept_pins.items())
    )


def _check_packages(lock: Lock, asked_packages: Iterable[RequirementLine], own_requirements: RequirementSet) -> None:
    """Refuse a bare name that is not in the lock: only a version makes a new package a requirement."""
    there = {normalize_package_name(package_pin.name) for package_pin in lock.python.packages}
    bare = [
        requirement.name
        for requirement in asked_packages
        if requirement.text.lower() == requirement.name and not _was_asked_before(requirement, own_requirements)
    ]
    if unknown := [f"package {package_name}" for package_name in bare if package_name not in there]:
        raise NothingToUpgrade(
            names=unknown, there=[f"package {package_name}" for package_name in sorted(there)] or ["no packages"]
        )


def _was_asked_before(requirement: RequirementLine, own_requirements: RequirementSet) -> bool:
    return any(other.name == requirement.name for other in own_requirements.requirements)


def resolve_request_of(lock: Lock) -> ResolveRequest:
    """Return how the packages of a lock were resolved, as far as it says: its Python, platforms and build of torch."""
    targets = [split_target(target) for target in lock.python.targets]
    return ResolveRequest(
        needs=RequirementSet(),
        python=lock.python.version or DEFAULT_PYTHON,
        platforms=tuple(dict.fromkeys(platform for platform, _ in targets)) or ("linux-x86_64",),
        torch=next((build for _, build in targets if build), None),
        overrides=lock.python.overrides,
        variants=lock.python.variants,
        indexes=lock.python.indexes,
    )


def _merge_models(old: Iterable[ModelPin], new: Iterable[ModelPin]) -> tuple[ModelPin, ...]:
    merged = {pin.target_path: pin for pin in old}
    merged.update({pin.target_path: pin for pin in new})
    return tuple(merged.values())

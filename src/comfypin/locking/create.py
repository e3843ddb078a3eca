"""Creates a new lock: refs become commits, packages are resolved together, models get digests. Same inputs, same
bytes.
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from comfypin.addresses import hide_credentials
from comfypin.errors import ConfigError
from comfypin.lock.errors import SpecInvalid
from comfypin.lock.model import DEFAULT_PYTHON, EngineSpec, Lock, NodePin, PythonPins, RepoPin
from comfypin.lock.model_spec import DescribeModel, ModelSpec, pin_models
from comfypin.lock.overlaps import find_overlaps
from comfypin.lock.requirements import (
    RequirementSet,
    decode_requirements,
    normalize_package_name,
    parse_requirement,
    read_requirements,
    requirement_names,
)
from comfypin.locking.errors import NotComfyUI, NothingDropped, PackagesNowhere
from comfypin.locking.git_archives import find_archives, repository_of, require_archives
from comfypin.locking.installed_requirements import UnmetRequirement
from comfypin.locking.missing_packages import missing_for_comfyui, note_unmet, require_installed
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.resolve import ResolveRequest, pin_installed, resolve_packages
from comfypin.locking.script_downloads import find_downloads
from comfypin.locking.sources import WORKERS, ResolvedSource, Upstreams, fetch_source, make_node_pin, named_ref
from comfypin.locking.system_libraries import accept_proposals, library_notes, note_libraries
from comfypin.locking.variants import describe_choices
from comfypin.locking.wheel_hints import source_notes
from comfypin.plurals import format_count


@dataclass(frozen=True, slots=True, kw_only=True)
class LockRequest:
    """What a release is made of, as the user says it.

    `install_scripts` are the folders of nodes whose install.py runs ("all": every one); `dropped` are lines or names of
    requirements to leave out; `system_packages` are Debian's ("auto": those that wheels need); `installed` are exactly
    the packages (`name==version`) if they are known and nothing is to be resolved, and `allow_missing` accepts that
    they lack something that is required; `question` says how packages are resolved, without the requirements.
    """

    name: str
    comfyui: RepoSpec
    nodes: tuple[RepoSpec, ...] = ()
    packages: tuple[str, ...] = ()
    requirement_files: tuple[Path, ...] = ()
    models: tuple[ModelSpec, ...] = ()
    system_packages: tuple[str, ...] = ()
    install_scripts: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    installed: tuple[str, ...] | None = None
    allow_missing: bool = False
    engine: EngineSpec = field(default_factory=EngineSpec)
    question: ResolveRequest = field(
        default_factory=lambda: ResolveRequest(
            needs=RequirementSet(), python=DEFAULT_PYTHON, platforms=("linux-x86_64",)
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeLock:
    """A new lock, with notes for the person who made it."""

    lock: Lock
    notes: tuple[str, ...] = ()


def create_lock(
    lock_request: LockRequest, *, upstreams: Upstreams, describe_model: DescribeModel, report: Callable[[str], None]
) -> MadeLock:
    """Make a lock. Raises errors of git (`comfypin.tools.errors`), `comfypin.locking.errors` and models."""
    # Cheap checks first: fetching takes minutes.
    _check_folders(lock_request.nodes)
    report(f"fetching ComfyUI and {format_count(len(lock_request.nodes), 'node')}")
    comfyui, *nodes = _fetch_sources(lock_request, upstreams)
    _check_names(lock_request, nodes)
    own_requirements = read_own_requirements(
        lock_request.packages, lock_request.requirement_files, lock_request.dropped
    )
    requirement_set = sum((source.needs for source in (comfyui, *nodes)), own_requirements)
    require_drops(lock_request.dropped, requirement_set)
    resolve_request = replace(lock_request.question, proxies=upstreams.proxies, wheels=upstreams.wheels)
    unmet: tuple[UnmetRequirement, ...] = ()
    # A snapshot says exactly what was installed; resolving again could only move it.
    if lock_request.installed is None:
        python_pins = resolve_packages(replace(resolve_request, needs=requirement_set), report=report)
        python_pins = note_libraries(python_pins, upstreams.wheels, report)
    else:
        python_pins = pin_exactly(lock_request.installed, resolve_request, report)
        unmet = require_installed(
            requirement_set, python_pins, resolve_request, allow_missing=lock_request.allow_missing, report=report
        )
    system_packages = accept_proposals(lock_request.system_packages, python_pins.libraries)
    models = pin_models(lock_request.models, describe_model, report=report)
    lock = Lock(
        version_name=lock_request.name,
        comfyui=RepoPin(repo=comfyui.spec.repo, ref=named_ref(comfyui), commit=comfyui.commit),
        custom_nodes=tuple(make_node_pin(source, lock_request.install_scripts) for source in nodes),
        python=replace(
            python_pins,
            requirements=_kept_requirements(own_requirements, unmet),
            overrides=lock_request.question.overrides,
            dropped=tuple(sorted(lock_request.dropped)),
            # A token in an index's URL served this resolve; the lock is committed and shared.
            indexes=tuple(map(hide_credentials, lock_request.question.indexes)),
        ),
        models=models,
        system_packages=system_packages,
        engine=lock_request.engine,
    )
    notes = (
        *_creation_notes(requirement_set, nodes, lock.custom_nodes),
        *_unused_wishes(lock_request, python_pins),
        *note_unmet(unmet),
        *describe_choices(python_pins.variants, requirement_set),
        *source_notes(
            python_pins.packages,
            requirement_set,
            python=resolve_request.python,
            platform=resolve_request.platforms[0],
            indexes=resolve_request.indexes,
        ),
        *library_notes(python_pins.libraries, system_packages),
    )
    return MadeLock(lock=lock, notes=notes)


def _kept_requirements(own: RequirementSet, unmet: Iterable[UnmetRequirement]) -> tuple[str, ...]:
    """Return the lock's own requirements: without those that --allow-missing leaves out, with what ComfyUI lacks."""
    missing = {unmet_need.requirement for unmet_need in unmet if unmet_need.installed is None}
    kept = tuple(requirement.text for requirement in own.requirements if requirement not in missing)
    return (*kept, *missing_for_comfyui(unmet))


def _fetch_sources(lock_request: LockRequest, upstreams: Upstreams) -> list[ResolvedSource]:
    """Fetch ComfyUI and the nodes, in this order."""

    def fetch(repo_spec: RepoSpec) -> ResolvedSource:
        is_comfyui = repo_spec is lock_request.comfyui
        origin = "ComfyUI" if is_comfyui else f"the node {repo_spec.name}"
        resolved_source = fetch_source(repo_spec, origin=origin, upstreams=upstreams, dropped=lock_request.dropped)
        # A typo in the URL often names another existing repository.
        if is_comfyui and not resolved_source.has_main:
            raise NotComfyUI(where=f"{repo_spec.repo} at {str(resolved_source.commit)[:12]}", lacks="main.py")
        return resolved_source

    # They are independent of each other, and each fetch waits mostly for its host.
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(fetch, (lock_request.comfyui, *lock_request.nodes)))


def read_own_requirements(packages: Iterable[str], files: Iterable[Path], dropped: frozenset[str]) -> RequirementSet:
    """Return what the user asks for beside ComfyUI and the nodes. Raises `SpecInvalid` or `ConfigError`."""
    requirement_set = RequirementSet()
    for package in packages:
        requirement = parse_requirement(package, "--package")
        if requirement is None:
            raise SpecInvalid(what="package", spec=package, form="a requirement, such as accelerate==1.10.1 or 'x>=2'")
        requirement_set += RequirementSet(requirements=(requirement,))
    for file_path in files:
        folder = file_path.parent
        if not file_path.is_file():
            raise ConfigError(f"The requirement file {file_path} is not there.", path=str(file_path))
        requirement_set += read_requirements(
            file_path.name, origin=f"--requirements {file_path}", read=_reader_in(folder), dropped=dropped
        )
    return requirement_set


def _reader_in(folder: Path) -> Callable[[str], str | None]:
    def read_text(file_name: str) -> str | None:
        file_path = folder / file_name
        return decode_requirements(file_path.read_bytes()) if file_path.is_file() else None

    return read_text


def pin_exactly(installed: Sequence[str], resolve_request: ResolveRequest, report: Callable[[str], None]) -> PythonPins:
    """Pin exactly these packages. Raises `PackagesNowhere`, or `GitPackageUnpinnable`."""
    python_pins, missing_packages = pin_installed(installed, resolve_request, report=report)
    # A second look-up, because the archive's sha256 is learned only by asking for it.
    if chosen := find_archives(python_pins.packages, resolve_request.git_hosts, proxies=resolve_request.proxies):
        lines = [chosen.get(repository_of(requirement_line) or "", requirement_line) for requirement_line in installed]
        python_pins, missing_packages = pin_installed(lines, resolve_request, report=report)
    if missing_packages:
        raise PackagesNowhere(packages=missing_packages)
    require_archives(python_pins.packages)
    if resolve_request.wheels is not None:
        # What was installed there is pinned as it is; which of them won there, nobody can say.
        for overlap in find_overlaps(resolve_request.wheels.read_contents(python_pins.packages)[0]):
            report(f"{overlap}; choose one with comfypin lock upgrade --variant NAME")
    return replace(python_pins, indexes=tuple(map(hide_credentials, resolve_request.indexes)))


def _check_folders(nodes: Sequence[RepoSpec]) -> None:
    seen_folders: dict[str, RepoSpec] = {}
    for node_spec in nodes:
        if node_spec.name in seen_folders:
            form = (
                f"FOLDER={node_spec.repo}: the folder {node_spec.name} is {seen_folders[node_spec.name].repo}'s already"
            )
            raise SpecInvalid(what="node with its own folder", spec=node_spec.repo, form=form)
        seen_folders[node_spec.name] = node_spec


def _check_names(lock_request: LockRequest, nodes: Sequence[ResolvedSource]) -> None:
    """Refuse names that no node has: a typo would silently change the release."""
    # "all" is a wish of its own and needs no such node.
    with_scripts = [
        resolved_source.spec.name for resolved_source in nodes if resolved_source.install_script is not None
    ]
    for folder_name in sorted(lock_request.install_scripts - {"all", *with_scripts}):
        raise SpecInvalid(
            what="node with an install.py",
            spec=folder_name,
            form=f"one of: {', '.join(with_scripts)}"
            if with_scripts
            else "no --install-script, because no node has one",
        )


def _creation_notes(
    requirement_set: RequirementSet, nodes: Sequence[ResolvedSource], pins: Sequence[NodePin]
) -> list[str]:
    skipped_folders = [
        package_pin.folder
        for package_pin in pins
        if package_pin.install_script_sha256 and package_pin.install_script == "skip"
    ]
    notes = [*requirement_set.mended, *(f"not obeyed: {line}" for line in requirement_set.ignored)]
    if skipped_folders:
        flag_list = " ".join(f"--install-script {folder_name}" for folder_name in skipped_folders)
        notes.append(f"install.py of {', '.join(skipped_folders)} will be skipped; to have it run: {flag_list}")
    return [*notes, *download_notes(nodes)]


def download_notes(nodes: Iterable[ResolvedSource]) -> list[str]:
    """Return a line about each node whose install.py fetches what no lock can hold."""
    downloads_by_node = (
        (source.spec.name, find_downloads(source.install_script)) for source in nodes if source.install_script
    )
    return [
        f"install.py of {folder_name} downloads ({'; '.join(map(str, downloads[:3]))}): nothing of that is locked, "
        "and a run without a network lacks it; pin models with --model and packages with --package"
        for folder_name, downloads in downloads_by_node
        if downloads
    ]


def require_drops(dropped: Iterable[str], requirement_set: RequirementSet) -> None:
    """Refuse a line or name that nobody asks for: a typo would lock what was to be left out. Raises
    `NothingDropped`.
    """
    # Each line reads "origin: requirement"; only the requirement is compared.
    ignored_lines = {line.partition(": ")[2] for line in requirement_set.ignored}
    ignored = [requirement for line in ignored_lines if (requirement := parse_requirement(line, ""))]
    there = set().union(*map(requirement_names, ignored))
    idle = sorted(
        dropped_line
        for dropped_line in dropped
        if dropped_line not in ignored_lines and normalize_package_name(dropped_line) not in there
    )
    if idle:
        names = sorted(set().union(*map(requirement_names, requirement_set.requirements)))
        near = [
            package_name
            for dropped_line in idle
            for package_name in difflib.get_close_matches(normalize_package_name(dropped_line), names, n=2)
        ]
        raise NothingDropped(names=idle, near=near)


def _unused_wishes(lock_request: LockRequest, python_pins: PythonPins) -> list[str]:
    """Return notes about wishes that met nothing they could apply to."""
    notes = []
    if lock_request.question.torch and not any(package_pin.name == "torch" for package_pin in python_pins.packages):
        notes.append(f"nobody asks for torch, so --torch {lock_request.question.torch} changes nothing")
    return notes


def package_notes(python: PythonPins) -> list[str]:
    """Return notes about unusual packages: those built from source, or fetched by git."""
    source_only = [
        package_pin.name
        for package_pin in python.packages
        if package_pin.url and not package_pin.url.partition("#")[0].endswith(".whl")
    ]
    return [f"without a wheel, built when the env is made: {', '.join(source_only)}"] if source_only else []

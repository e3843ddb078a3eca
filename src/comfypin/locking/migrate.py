"""Turns older locks into schema 3, and pins what they leave open."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from comfypin.addresses import hide_credentials
from comfypin.lock.check import check_lock
from comfypin.lock.errors import LockIncomplete
from comfypin.lock.model import Lock, ModelPin, NodePin, PackagePin, PythonPins
from comfypin.lock.model_spec import DescribeModel, ModelSpec, pin_models
from comfypin.lock.requirements import RequirementLine, RequirementSet, normalize_package_name, parse_requirement
from comfypin.locking.create import MadeLock, package_notes, read_own_requirements
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.resolve import ResolveRequest, resolve_packages
from comfypin.locking.sources import ResolvedSource, Upstreams, fetch_all_sources, make_node_pin, named_ref
from comfypin.plurals import format_count


def migrate_lock(lock: Lock) -> MadeLock:
    """Return a lock of schema 1 or 2 as schema 3 without looking anything up; pins that claim one path become one.

    Two entries of one model stay as two sources of one pin; `complete_lock` finds out whether they are the same file.
    """
    notes: list[str] = []
    models_by_path: dict[str, ModelPin] = {}
    for model_pin in lock.models:
        earlier = models_by_path.get(model_pin.target_path)
        if earlier is None:
            models_by_path[model_pin.target_path] = model_pin
            continue
        notes.append(
            f"{model_pin.target_path} was listed more than once; its entries are now one pin with all their sources"
        )
        sources = tuple(dict.fromkeys((*earlier.sources, *model_pin.sources)))
        models_by_path[model_pin.target_path] = replace(
            earlier,
            sources=sources,
            sha256=earlier.sha256 or model_pin.sha256,
            size_bytes=earlier.size_bytes or model_pin.size_bytes,
        )
    # Reversed, so that the first of several wins, as the note below says.
    nodes_by_folder = {node_pin.folder: node_pin for node_pin in reversed(lock.custom_nodes)}
    if len(nodes_by_folder) != len(lock.custom_nodes):
        notes.append("of the nodes that claimed the same folder, the first was kept")
    packages: dict[tuple[str, str | None], PackagePin] = {}
    for package in lock.python.packages:
        # The first wins here too, however its name is spelled.
        packages.setdefault((normalize_package_name(package.name), package.target), package)
    made = replace(
        lock,
        models=tuple(models_by_path.values()),
        custom_nodes=tuple(nodes_by_folder.values()),
        python=replace(lock.python, packages=tuple(packages.values())),
        read_from_schema=3,
    )
    return MadeLock(lock=made, notes=tuple(notes))


def complete_lock(
    lock: Lock,
    question: ResolveRequest,
    *,
    upstreams: Upstreams,
    describe_model: DescribeModel,
    report: Callable[[str], None],
) -> MadeLock:
    """Pin what a lock does not: refs become commits, packages are resolved again within the versions that it names,
    models get digests and sizes.

    Raises `LockIncomplete` if a repository or a source is not even named, and what `create_lock` raises.
    """
    # Nothing can be looked up for these, so fail before the slow look-ups of the rest.
    hopeless = [finding for finding in check_lock(lock) if finding.rule in {"no-repository", "no-source", "no-comfyui"}]
    if hopeless:
        raise LockIncomplete(where=lock.version_name, findings=hopeless)
    assert lock.comfyui is not None
    report(f"fetching ComfyUI and {format_count(len(lock.custom_nodes), 'node')}")
    spec = RepoSpec(repo=str(lock.comfyui.repo), ref=lock.comfyui.commit or lock.comfyui.ref)
    resolved_sources = fetch_all_sources(lock, spec, {}, upstreams, frozenset(lock.python.dropped))
    python_pins = lock.python
    # Complete packages are left alone: resolving again might move them.
    if any(not package_pin.sha256 for package_pin in python_pins.packages) or not python_pins.packages:
        resolve_request = replace(question, proxies=upstreams.proxies, wheels=upstreams.wheels)
        python_pins = _complete_packages(python_pins, resolve_request, resolved_sources.values(), report)
    nodes = tuple(
        _complete_node(node_pin, resolved_sources[f"the node {node_pin.folder}"]) for node_pin in lock.custom_nodes
    )
    comfyui = resolved_sources["ComfyUI"]
    made = replace(
        lock,
        comfyui=replace(lock.comfyui, commit=comfyui.commit, ref=named_ref(comfyui) or lock.comfyui.ref),
        custom_nodes=nodes,
        python=python_pins,
        models=_complete_models(lock.models, describe_model, report),
        read_from_schema=3,
    )
    return MadeLock(lock=made, notes=tuple(package_notes(python_pins)))


def _complete_packages(
    python_pins: PythonPins,
    resolve_request: ResolveRequest,
    parts: Iterable[ResolvedSource],
    report: Callable[[str], None],
) -> PythonPins:
    """Return every package that the lock names, at its version, and what these need. Packages that nobody asks for were
    installed by hand once; they become requirements of the lock's own.
    """
    own = read_own_requirements(python_pins.requirements, (), frozenset(python_pins.dropped))
    pinned_requirements = [_pin_as_requirement(pin) for pin in python_pins.packages]
    file_requirements = tuple(need for need in pinned_requirements if need.name is None or " @ " in need.text)
    unusable = tuple(need.text for need in file_requirements if parse_requirement(need.text, "") is None)
    requirement_set = sum(
        (source.needs for source in parts),
        own + RequirementSet(requirements=file_requirements, constraints=(), unusable=unusable),
    )
    requirement_set += RequirementSet(
        constraints=tuple(need for need in pinned_requirements if need not in file_requirements)
    )
    resolved = resolve_packages(replace(resolve_request, needs=requirement_set), report=report)
    locked_names = {normalize_package_name(pin.name) for pin in resolved.packages} | {
        normalize_package_name(package_name) for package_name in python_pins.dropped
    }
    # Constraints hold versions but install nothing, so what nobody asks for is asked for here.
    lost_requirements = tuple(
        need for need in pinned_requirements if need.name not in locked_names and need.name != "pip"
    )
    if lost_requirements:
        resolved = resolve_packages(
            replace(resolve_request, needs=requirement_set + RequirementSet(requirements=lost_requirements)),
            report=report,
        )
    names = [
        need.text if need in file_requirements else str(need.name) for need in (*file_requirements, *lost_requirements)
    ]
    return replace(
        python_pins,
        version=resolved.version,
        targets=resolved.targets,
        packages=resolved.packages,
        requirements=tuple(dict.fromkeys((*python_pins.requirements, *names))),
        overrides=resolve_request.overrides,
        variants=resolved.variants,
        indexes=tuple(map(hide_credentials, resolve_request.indexes)),
    )


def _pin_as_requirement(package_pin: PackagePin) -> RequirementLine:
    requirement_text = (
        f"{package_pin.name} @ {package_pin.url}" if package_pin.url else f"{package_pin.name}=={package_pin.version}"
    )
    return RequirementLine(text=requirement_text, name=normalize_package_name(package_pin.name), origin="the lock")


def _complete_node(node_pin: NodePin, resolved_source: ResolvedSource) -> NodePin:
    fresh_pin = make_node_pin(resolved_source, frozenset({node_pin.folder} if node_pin.install_script == "run" else ()))
    return replace(
        node_pin,
        commit=fresh_pin.commit,
        ref=fresh_pin.ref or node_pin.ref,
        sha256=fresh_pin.sha256,
        install_script=fresh_pin.install_script,
        install_script_sha256=fresh_pin.install_script_sha256,
    )


def _complete_models(
    pins: Iterable[ModelPin], describe_model: DescribeModel, report: Callable[[str], None]
) -> tuple[ModelPin, ...]:
    pinned_models = [pin for pin in pins if pin.sha256 and pin.size_bytes is not None]
    specs = [
        ModelSpec(
            sources=pin.sources, target=pin.target_path, allow_pickle=pin.allow_pickle, sha256=pin.sha256, name=pin.name
        )
        for pin in pins
        if pin not in pinned_models
    ]
    return (*pinned_models, *pin_models(specs, describe_model, report=report))

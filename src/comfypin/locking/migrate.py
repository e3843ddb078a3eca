"""Locks from older ones: schema 1 and 2 as schema 3, and what they leave open pinned."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from comfypin.addresses import hide_credentials
from comfypin.lock.check import check
from comfypin.lock.errors import LockIncomplete
from comfypin.lock.model import Lock, ModelPin, NodePin, PackagePin, PythonPins
from comfypin.lock.model_spec import DescribeModel, ModelSpec, pin_models
from comfypin.lock.requirements import Need, Needs, parse_need, plain_name
from comfypin.locking.create import Made, own_needs, package_notes
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.resolve import Question, resolve
from comfypin.locking.sources import Part, Places, node_pin, read_parts, ref_of


def migrate(lock: Lock) -> Made:
    """A lock of schema 1 or 2 as schema 3, nothing learned anew: pins that claim one place become one.

    Two entries of one model stay as two sources of one pin; `complete` finds out whether they are the same file.
    """
    notes: list[str] = []
    models: dict[str, ModelPin] = {}
    for pin in lock.models:
        earlier = models.get(pin.target_path)
        if earlier is None:
            models[pin.target_path] = pin
            continue
        notes.append(f"{pin.target_path} was there more than once; its entries are one pin with all their sources now")
        sources = tuple(dict.fromkeys((*earlier.sources, *pin.sources)))
        models[pin.target_path] = replace(
            earlier,
            sources=sources,
            sha256=earlier.sha256 or pin.sha256,
            size_bytes=earlier.size_bytes or pin.size_bytes,
        )
    nodes = {node.folder: node for node in reversed(lock.custom_nodes)}
    if len(nodes) != len(lock.custom_nodes):
        notes.append("nodes that claimed one folder are one node now, the first of them")
    packages: dict[tuple[str, str | None], PackagePin] = {}
    for package in lock.python.packages:
        packages.setdefault((plain_name(package.name), package.target), package)
    made = replace(
        lock,
        models=tuple(models.values()),
        custom_nodes=tuple(nodes.values()),
        python=replace(lock.python, packages=tuple(packages.values())),
        read_from_schema=3,
    )
    return Made(lock=made, notes=tuple(notes))


def complete(
    lock: Lock, question: Question, *, places: Places, describe_model: DescribeModel, tell: Callable[[str], None]
) -> Made:
    """Pin what a lock does not: refs become commits, packages are resolved again within the versions that it names,
    models get digests and sizes.

    Raises `LockIncomplete` where a repository or a source is not even named, and what `create` raises.
    """
    hopeless = [finding for finding in check(lock) if finding.rule in {"no-repository", "no-source", "no-comfyui"}]
    if hopeless:
        raise LockIncomplete(where=lock.version_name, findings=hopeless)
    assert lock.comfyui is not None
    tell(f"fetching ComfyUI and {len(lock.custom_nodes)} nodes")
    spec = RepoSpec(repo=str(lock.comfyui.repo), ref=lock.comfyui.commit or lock.comfyui.ref)
    parts = read_parts(lock, spec, {}, places, frozenset(lock.python.dropped))
    python = lock.python
    if any(not pin.sha256 for pin in python.packages) or not python.packages:
        asking = replace(question, proxies=places.proxies)
        python = _complete_packages(python, asking, parts.values(), tell)
    nodes = tuple(_completed_node(node, parts[f"the node {node.folder}"]) for node in lock.custom_nodes)
    comfyui = parts["ComfyUI"]
    made = replace(
        lock,
        comfyui=replace(lock.comfyui, commit=comfyui.commit, ref=ref_of(comfyui) or lock.comfyui.ref),
        custom_nodes=nodes,
        python=python,
        models=_complete_models(lock.models, describe_model, tell),
        read_from_schema=3,
    )
    return Made(lock=made, notes=tuple(package_notes(python)))


def _complete_packages(
    python: PythonPins, question: Question, parts: Iterable[Part], tell: Callable[[str], None]
) -> PythonPins:
    """Every package that the lock names, at its version, and what these need. Those that nobody asks for were
    installed by hand once; they become requirements of the lock's own.
    """
    own = own_needs(python.requirements, (), frozenset(python.dropped))
    held = [_as_need(pin) for pin in python.packages]
    files = tuple(need for need in held if need.name is None or " @ " in need.text)
    unusable = tuple(need.text for need in files if parse_need(need.text, "") is None)
    needs = sum((part.needs for part in parts), own + Needs(requirements=files, constraints=(), unusable=unusable))
    needs += Needs(constraints=tuple(need for need in held if need not in files))
    resolved = resolve(replace(question, needs=needs), tell=tell)
    found = {plain_name(pin.name) for pin in resolved.packages} | {plain_name(name) for name in python.dropped}
    lost = tuple(need for need in held if need.name not in found and need.name != "pip")
    if lost:
        resolved = resolve(replace(question, needs=needs + Needs(requirements=lost)), tell=tell)
    names = [need.text if need in files else str(need.name) for need in (*files, *lost)]
    return replace(
        python,
        version=resolved.version,
        targets=resolved.targets,
        packages=resolved.packages,
        requirements=tuple(dict.fromkeys((*python.requirements, *names))),
        overrides=question.overrides,
        indexes=tuple(map(hide_credentials, question.indexes)),
    )


def _as_need(pin: PackagePin) -> Need:
    text = f"{pin.name} @ {pin.url}" if pin.url else f"{pin.name}=={pin.version}"
    return Need(text=text, name=plain_name(pin.name), origin="the lock")


def _completed_node(node: NodePin, part: Part) -> NodePin:
    fresh = node_pin(part, frozenset({node.folder} if node.install_script == "run" else ()))
    return replace(
        node,
        commit=fresh.commit,
        ref=fresh.ref or node.ref,
        sha256=fresh.sha256,
        install_script=fresh.install_script,
        install_script_sha256=fresh.install_script_sha256,
    )


def _complete_models(
    pins: Iterable[ModelPin], describe_model: DescribeModel, tell: Callable[[str], None]
) -> tuple[ModelPin, ...]:
    known = [pin for pin in pins if pin.sha256 and pin.size_bytes is not None]
    specs = [
        ModelSpec(
            sources=pin.sources, target=pin.target_path, allow_pickle=pin.allow_pickle, sha256=pin.sha256, name=pin.name
        )
        for pin in pins
        if pin not in known
    ]
    return (*known, *pin_models(specs, describe_model, tell=tell))

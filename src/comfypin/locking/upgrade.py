"""Locks from locks: an upgrade that moves only what is asked for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from comfypin.addresses import hide_credentials
from comfypin.errors import UsageError
from comfypin.lock.check import check
from comfypin.lock.errors import Finding, LockIncomplete
from comfypin.lock.model import Lock, ModelPin, NodePin, PythonPins
from comfypin.lock.model_spec import DescribeModel, ModelSpec, pin_models
from comfypin.lock.requirements import Need, Needs, parse_need, plain_name
from comfypin.locking.create import Made, own_needs, package_notes
from comfypin.locking.errors import NothingToUpgrade, RequirementsConflict
from comfypin.locking.git_archives import held
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.resolve import Question, holding, resolve
from comfypin.locking.sources import Part, Places, node_pin, read_parts, ref_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """What an upgrade may change: refs by folder (None: the newest of the ref it has), packages, models.

    `dropped` are lines or names of requirements that are left out from now on.
    """

    name: str
    comfyui: str | None = None
    move_comfyui: bool = False
    nodes: dict[str, str | None] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    models: tuple[ModelSpec, ...] = ()
    dropped: frozenset[str] = frozenset()
    question: Question | None = None

    @property
    def empty(self) -> bool:
        return not (self.move_comfyui or self.nodes or self.packages or self.models or self.dropped or self.question)


def upgrade(
    lock: Lock, moves: Moves, *, places: Places, describe_model: DescribeModel, tell: Callable[[str], None]
) -> Made:
    """A new lock where what is asked for has moved, and other packages only where they had to.

    Raises `NothingToUpgrade`, `LockIncomplete`, and what `create` raises.
    """
    _check_names(lock, moves)
    _check_pinned(lock)
    assert lock.comfyui is not None
    comfyui_spec = RepoSpec(repo=str(lock.comfyui.repo), ref=lock.comfyui.commit)
    if moves.move_comfyui:
        comfyui_spec = replace(comfyui_spec, ref=moves.comfyui or lock.comfyui.ref)
    tell(f"fetching ComfyUI and {len(lock.custom_nodes)} nodes")
    dropped = frozenset(lock.python.dropped) | moves.dropped
    parts = read_parts(lock, comfyui_spec, moves.nodes, places, dropped)
    comfyui = replace(lock.comfyui, commit=parts["ComfyUI"].commit)
    if moves.move_comfyui:
        comfyui = replace(comfyui, ref=ref_of(parts["ComfyUI"]), patch=None)
    nodes = tuple(_moved_node(node, parts.get(f"the node {node.folder}"), moves) for node in lock.custom_nodes)
    python = _resolve_again(lock, moves, parts.values(), places, tell) if _packages_move(moves) else lock.python
    models = _merge_models(lock.models, pin_models(moves.models, describe_model, tell=tell))
    made = replace(lock, version_name=moves.name, comfyui=comfyui, custom_nodes=nodes, python=python, models=models)
    return Made(lock=replace(made, read_from_schema=3), notes=tuple(package_notes(python)))


def _packages_move(moves: Moves) -> bool:
    return bool(moves.move_comfyui or moves.nodes or moves.packages or moves.dropped or moves.question)


def _check_names(lock: Lock, moves: Moves) -> None:
    folders = [node.folder for node in lock.custom_nodes]
    if unknown := [f"node {name}" for name in moves.nodes if name not in folders]:
        raise NothingToUpgrade(names=unknown, there=[f"node {name}" for name in folders] or ["no nodes"])
    if moves.empty:
        raise UsageError("Name what is to move: --comfyui, --node FOLDER, --package P, --model, --torch or --python.")


def _check_pinned(lock: Lock) -> None:
    findings: list[Finding] = [
        finding
        for finding in check(lock)
        if finding.rule in {"commit-not-pinned", "no-repository", "no-comfyui", "no-packages"}
    ]
    if findings:
        raise LockIncomplete(where=lock.version_name, findings=findings)


def _moved_node(node: NodePin, part: Part | None, moves: Moves) -> NodePin:
    if part is None or node.folder not in moves.nodes:
        return node
    runs = frozenset({node.folder} if node.install_script == "run" else ())
    fresh = node_pin(part, runs)
    return replace(
        node,
        commit=fresh.commit,
        ref=fresh.ref,
        archive=fresh.archive,
        sha256=fresh.sha256,
        patch=None,
        install_script=fresh.install_script,
        install_script_sha256=fresh.install_script_sha256,
    )


def _resolve_again(
    lock: Lock, moves: Moves, parts: Iterable[Part], places: Places, tell: Callable[[str], None]
) -> PythonPins:
    asked = {need.name: need for text in moves.packages if (need := parse_need(text, "--package")) and need.name}
    bad = [text for text in moves.packages if parse_need(text, "--package") is None]
    if bad:
        raise NothingToUpgrade(names=bad, there=["packages such as idna or idna==3.7"])
    kept = own_needs(lock.python.requirements, (), frozenset())
    _check_packages(lock, asked.values(), kept)
    own = [need for need in kept.requirements if need.name not in asked]
    # A bare name asks for the newest that fits; with a version it becomes a requirement of the lock's own.
    told = [need for need in asked.values() if need.text.lower() != need.name or _was_asked(need, kept)]
    needs = sum((part.needs for part in parts), Needs(requirements=(*own, *told)))
    question = moves.question or question_of(lock)
    dropped = frozenset(lock.python.dropped) | moves.dropped
    still = (need for need in needs.requirements if not _moves(need, moves) and need.name not in asked)
    chosen = held(still, lock.python.packages, question.git_hosts)
    asking = replace(question, needs=needs, keep=lock.python.packages, move=frozenset(asked), proxies=places.proxies)
    asking = holding(asking, chosen)
    python = resolve(asking, tell=tell)
    strays = _strays(lock, python, dropped, places, tell)
    if strays:
        python = resolve(replace(asking, needs=asking.needs + Needs(requirements=strays)), tell=tell)
    return replace(
        python,
        requirements=tuple(need.text for need in (*own, *told, *strays)),
        overrides=question.overrides,
        dropped=tuple(sorted(dropped)),
        indexes=tuple(map(hide_credentials, question.indexes)),
        extra=lock.python.extra,
    )


def _moves(need: Need, moves: Moves) -> bool:
    origins = {f"the node {folder}" for folder in moves.nodes} | ({"ComfyUI"} if moves.move_comfyui else set())
    return need.origin in origins


def _strays(
    lock: Lock, found: PythonPins, dropped: frozenset[str], places: Places, tell: Callable[[str], None]
) -> tuple[Need, ...]:
    """Packages that nothing in the lock asks for, such as those that somebody once installed by hand: they stay.

    What the old requirements brought and the new ones do not goes.
    """
    left = {plain_name(name) for name in dropped} | {plain_name(pin.name) for pin in found.packages}
    lost = [pin for pin in lock.python.packages if plain_name(pin.name) not in left]
    if not lost:
        return ()
    assert lock.comfyui is not None
    spec = RepoSpec(repo=str(lock.comfyui.repo), ref=lock.comfyui.commit)
    before = read_parts(lock, spec, {}, places, frozenset(lock.python.dropped)).values()
    needs = sum((part.needs for part in before), own_needs(lock.python.requirements, (), frozenset()))
    try:
        asking = replace(question_of(lock), needs=needs, keep=lock.python.packages, proxies=places.proxies)
        asked = resolve(asking, tell=tell).packages
    except RequirementsConflict:
        asked = ()  # what was installed by hand does not fit together, so nobody can say who asked for what
    names = {plain_name(pin.name) for pin in asked}
    kept = {plain_name(pin.name): pin for pin in lost if plain_name(pin.name) not in names}
    return tuple(
        Need(
            text=f"{pin.name} @ {pin.url}" if str(pin.url).startswith("git+") else pin.name,
            name=name,
            origin="the lock",
        )
        for name, pin in sorted(kept.items())
    )


def _check_packages(lock: Lock, asked: Iterable[Need], kept: Needs) -> None:
    """A bare name moves a package that is there; only a version makes a new one a requirement."""
    there = {plain_name(pin.name) for pin in lock.python.packages}
    bare = [need.name for need in asked if need.text.lower() == need.name and not _was_asked(need, kept)]
    if unknown := [f"package {name}" for name in bare if name not in there]:
        raise NothingToUpgrade(names=unknown, there=[f"package {name}" for name in sorted(there)] or ["no packages"])


def _was_asked(need: Need, kept: Needs) -> bool:
    return any(other.name == need.name for other in kept.requirements)


def question_of(lock: Lock) -> Question:
    """How the packages of a lock were resolved, as far as it says: its Python, platforms and build of torch."""
    platforms = tuple(dict.fromkeys("-".join(target.split("-")[:2]) for target in lock.python.targets))
    builds = [parts[2] for target in lock.python.targets if len(parts := target.split("-")) > 2]
    return Question(
        needs=Needs(),
        python=lock.python.version or "3.12",
        platforms=platforms or ("linux-x86_64",),
        torch=builds[0] if builds else None,
        overrides=lock.python.overrides,
        indexes=lock.python.indexes,
    )


def _merge_models(old: Iterable[ModelPin], new: Iterable[ModelPin]) -> tuple[ModelPin, ...]:
    merged = {pin.target_path: pin for pin in old}
    merged.update({pin.target_path: pin for pin in new})
    return tuple(merged.values())

"""From what workflows need to what a lock can be made of; what is ambiguous or unknown is listed, never guessed."""

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from comfypin.digest import JsonValue
from comfypin.errors import EnvError, LockError
from comfypin.lock.model_spec import ModelSpec
from comfypin.locking.node_registry import SCHEME, Pack, Registry
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.sources import Places
from comfypin.locking.workflow_needs import CORE, Wanted, WantedModel, WantedPack, is_commit
from comfypin.tools.git import list_tree, read_blobs
from comfypin.tools.git_remote import resolve_ref

_GITHUB = "https://github.com/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What of the needs could be settled: nodes and models to lock, and the rest in words."""

    nodes: tuple[RepoSpec, ...]
    models: tuple[ModelSpec, ...]
    ambiguous: tuple[str, ...]
    unknown: tuple[str, ...]
    core_versions: tuple[str, ...]

    @property
    def complete(self) -> bool:
        return not (self.ambiguous or self.unknown)

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "comfyui_versions": list(self.core_versions),
            "nodes": [{"repo": node.repo, "ref": node.ref, "folder": node.name} for node in self.nodes],
            "models": [{"target": model.target, "sources": list(model.sources)} for model in self.models],
            "ambiguous": list(self.ambiguous),
            "unknown": list(self.unknown),
            "complete": self.complete,
        }


class Settling:
    """Settles needs one by one, with the registry where it may be asked."""

    def __init__(
        self,
        *,
        registry: Registry | None,
        builtin: frozenset[str],
        given: Sequence[RepoSpec],
        given_models: Sequence[ModelSpec],
        unneeded: frozenset[str],
    ) -> None:
        self._registry = registry
        self._builtin = builtin
        self._given = {node.name.lower() for node in given} | {node.repo.lower() for node in given}
        self._given_models = {str(model.target or model.sources[0]).rpartition("/")[2] for model in given_models}
        self._unneeded = unneeded
        self.nodes: dict[str, RepoSpec] = {node.name: node for node in given}
        self.models: dict[str, ModelSpec] = {str(model.target or model.sources[0]): model for model in given_models}
        self.ambiguous: list[str] = []
        self.unknown: list[str] = []

    def pack(self, pack: WantedPack) -> None:
        """A pack that a workflow names."""
        who = f"{pack.label} (for {', '.join(pack.classes[:3])}{', ...' if len(pack.classes) > 3 else ''})"
        if pack.label in self._unneeded or self._is_given(pack):
            return
        if len(pack.versions) > 1:
            self.ambiguous.append(f"{who} is wanted in several versions: {', '.join(pack.versions)}; choose by --node")
        elif not pack.versions or pack.versions[0] in ("nightly", "unknown", "latest"):
            said = pack.versions[0] if pack.versions else "no version"
            self.ambiguous.append(f"{who} is named with {said}; choose by --node {self._suggestion(pack)}@REF")
        elif pack.aux_id:
            self._add(RepoSpec(repo=_GITHUB + pack.aux_id, ref=pack.versions[0]))
        elif is_commit(pack.versions[0]):
            self._from_repository(pack, who)
        else:
            self._add(RepoSpec(repo=f"{SCHEME}{pack.cnr_id}", ref=pack.versions[0], folder=pack.cnr_id))

    def classes(self, names: Iterable[str]) -> None:
        """Classes whose pack no workflow names."""
        silent = "the registry is not asked" if self._registry is None else ""
        for name in names:
            if name in self._builtin or name in self._unneeded:
                continue
            if self._registry is not None and not silent:
                try:
                    self._choose(name, self._registry.packs_of(name))
                    continue
                except (EnvError, LockError) as error:
                    silent = error.message  # one unreachable registry is not asked again for every class
            self.unknown.append(
                f"the node class {name}: no workflow names its pack (--comfyui tells which are ComfyUI's own); {silent}"
            )

    def model(self, model: WantedModel) -> None:
        """A model file that a workflow loads."""
        plain = model.name.replace("\\", "/").rpartition("/")[2]
        if plain in self._given_models or model.name in self._unneeded or plain in self._unneeded:
            return
        if model.url is None or model.directory is None:
            lacks = "no address" if model.url is None else "no folder"
            self.unknown.append(f"the model {model.name}: the workflow names {lacks}; give --model TARGET=SOURCE")
            return
        target = f"{model.directory}/{model.name}"
        known = self.models.get(target)
        if known is not None and known.sources != (model.url,):
            self.ambiguous.append(f"the model {target} has several addresses: {known.sources[0]}, {model.url}")
        self.models.setdefault(target, ModelSpec(sources=(model.url,), target=target, sha256=model.sha256))

    def _is_given(self, pack: WantedPack) -> bool:
        names = {str(pack.cnr_id).lower(), str(pack.aux_id).lower(), str(pack.aux_id).rpartition("/")[2].lower()}
        addresses = {f"{_GITHUB}{pack.aux_id}".lower(), f"{SCHEME}{pack.cnr_id}".lower()}
        return bool((names | addresses) & self._given)

    def _suggestion(self, pack: WantedPack) -> str:
        return _GITHUB + pack.aux_id if pack.aux_id else f"{SCHEME}{pack.cnr_id}"

    def _from_repository(self, pack: WantedPack, who: str) -> None:
        """A registry's pack at a commit: the registry knows its repository."""
        if self._registry is None:
            self.unknown.append(f"{who} is named by a commit; its repository is known to the registry, not asked now")
            return
        try:
            found = self._registry.pack(str(pack.cnr_id))
        except (EnvError, LockError) as error:
            self.unknown.append(f"{who}: {error.message}")
            return
        if found.repository is None:
            self.unknown.append(f"{who} is named by a commit, and the registry knows no repository of it")
        else:
            self._add(RepoSpec(repo=found.repository, ref=pack.versions[0]))

    def _choose(self, name: str, packs: Sequence[Pack]) -> None:
        if any(pack.node_id == CORE for pack in packs):
            return
        given = [pack for pack in packs if {pack.node_id.lower(), str(pack.repository).lower()} & self._given]
        if given or any(pack.node_id in self.nodes for pack in packs):
            return
        listed = ", ".join(pack.repository or SCHEME + pack.node_id for pack in packs)
        if not packs:
            self.unknown.append(f"the node class {name}: no pack of the registry has it")
        elif len(packs) > 1:
            self.ambiguous.append(f"the node class {name} is in several packs: {listed}; choose by --node")
        else:
            self.ambiguous.append(f"the node class {name} is in {listed}, in which version nobody says; add --node")

    def _add(self, spec: RepoSpec) -> None:
        self.nodes.setdefault(spec.name, spec)


def settle(wanted: Wanted, settling: Settling, *, tell: Callable[[str], None]) -> Answer:
    """Settle everything that is wanted."""
    tell(f"{len(wanted.packs)} packs, {len(wanted.classes)} more classes and {len(wanted.models)} models are needed")
    for pack in wanted.packs:
        settling.pack(pack)
    settling.classes(wanted.classes)
    for model in wanted.models:
        settling.model(model)
    return Answer(
        nodes=tuple(settling.nodes.values()),
        models=tuple(settling.models.values()),
        ambiguous=tuple(settling.ambiguous),
        unknown=tuple(settling.unknown),
        core_versions=wanted.core_versions,
    )


def known_classes(comfyui: RepoSpec | None, given: Iterable[RepoSpec], places: Places) -> frozenset[str]:
    """The node classes that ComfyUI has itself, and those of the nodes that are given, read from their sources.

    Nodes may register classes in ways that no reader of sources sees; those stay to be asked for. Raises git's errors.
    """
    names: set[str] = set()
    if comfyui is not None:
        names |= _classes(comfyui, places, of_comfyui)
    for node in given:
        if not node.repo.startswith(SCHEME):
            names |= _classes(node, places, lambda _: True)
    return frozenset(names)


def of_comfyui(path: str) -> bool:
    """Whether a file of ComfyUI's repository may register nodes."""
    return path == "nodes.py" or path.startswith(("comfy_extras/", "comfy_api_nodes/"))


def _classes(spec: RepoSpec, places: Places, registers: Callable[[str], bool]) -> set[str]:
    commit = resolve_ref(spec.repo, spec.ref)
    kept = places.commits.obtain_repository(spec.repo, commit)
    files = [entry for entry in list_tree(kept, commit) if entry.mode.startswith("100") and entry.path.endswith(".py")]
    names: set[str] = set()
    for _, data in read_blobs(kept, [file for file in files if registers(file.path)], spec.repo, commit):
        names |= class_names(data)
    return names


def class_names(source: bytes) -> set[str]:
    """The classes that a module registers: keys of NODE_CLASS_MAPPINGS, and `node_id=` of schemas."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        names.update(_registered(node))
    return names


def _registered(node: ast.AST) -> Iterator[str]:
    """The names that one statement registers, in the ways that packs do it: a dict, `[...] =`, `|=`, `.update(...)`."""
    match node:
        case ast.Assign(
            targets=[ast.Subscript(value=ast.Name(id="NODE_CLASS_MAPPINGS"), slice=ast.Constant(value=str(name)))]
        ):
            yield name
        case (
            ast.Assign(targets=[ast.Name(id="NODE_CLASS_MAPPINGS")], value=ast.Dict(keys=keys))
            | ast.AnnAssign(target=ast.Name(id="NODE_CLASS_MAPPINGS"), value=ast.Dict(keys=keys))
            | ast.AugAssign(target=ast.Name(id="NODE_CLASS_MAPPINGS"), value=ast.Dict(keys=keys))
            | ast.Call(
                func=ast.Attribute(value=ast.Name(id="NODE_CLASS_MAPPINGS"), attr="update"), args=[ast.Dict(keys=keys)]
            )
        ):
            yield from (key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str))
        case ast.keyword(arg="node_id", value=ast.Constant(value=str(name))):
            yield name

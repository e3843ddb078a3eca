"""Resolves what workflows need into what a lock can be made of; what is ambiguous or unknown is listed, never
guessed.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from comfypin.digest import JsonValue
from comfypin.errors import EnvError, LockError
from comfypin.lock.model_spec import ModelSpec
from comfypin.locking.node_registry import REGISTRY_SCHEME, NodeRegistry, RegistryPack
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.sources import Upstreams
from comfypin.locking.workflow_needs import CORE_PACK, NeededModel, WantedPack, WorkflowNeeds, is_commit_version
from comfypin.plurals import format_count
from comfypin.tools.git import list_tree, read_blobs
from comfypin.tools.git_remote import resolve_ref

# `aux_id` is owner/repo on GitHub, for packs that the registry does not have.
_GITHUB = "https://github.com/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedNeeds:
    """The nodes and models that could be resolved, and the rest in words."""

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
            "nodes": [
                {"repo": node_spec.repo, "ref": node_spec.ref, "folder": node_spec.name} for node_spec in self.nodes
            ],
            "models": [
                {"target": wanted_model.target, "sources": list(wanted_model.sources)} for wanted_model in self.models
            ],
            "ambiguous": list(self.ambiguous),
            "unknown": list(self.unknown),
            "complete": self.complete,
        }


class NeedsResolver:
    """Resolves needs one by one, with the registry if it may be asked."""

    def __init__(
        self,
        *,
        registry: NodeRegistry | None,
        builtin: frozenset[str],
        given: Sequence[RepoSpec],
        given_models: Sequence[ModelSpec],
        unneeded: frozenset[str],
    ) -> None:
        self._registry = registry
        self._builtin = builtin
        # Users name a pack by folder or by URL, and GitHub ignores case.
        self._given = {node.name.lower() for node in given} | {node.repo.lower() for node in given}
        self._given_models = {str(model.target or model.sources[0]).rpartition("/")[2] for model in given_models}
        self._unneeded = unneeded
        self.nodes: dict[str, RepoSpec] = {node.name: node for node in given}
        self.models: dict[str, ModelSpec] = {str(model.target or model.sources[0]): model for model in given_models}
        self.ambiguous: list[str] = []
        self.unknown: list[str] = []

    def add_pack(self, node_pack: WantedPack) -> None:
        """Resolve a pack that a workflow names."""
        subject = (
            f"{node_pack.label} (for {', '.join(node_pack.classes[:3])}{', ...' if len(node_pack.classes) > 3 else ''})"
        )
        # What the user gave overrules what any workflow says.
        if node_pack.label in self._unneeded or self._is_given(node_pack):
            return
        if len(node_pack.versions) > 1:
            self.ambiguous.append(
                f"{subject} is needed in several versions: {', '.join(node_pack.versions)}; choose by --node"
            )
        # "nightly" and "latest" move: a lock with them would not be the same tomorrow.
        elif not node_pack.versions or node_pack.versions[0] in ("nightly", "unknown", "latest"):
            version_text = node_pack.versions[0] if node_pack.versions else "no version"
            self.ambiguous.append(
                f"{subject} is named with {version_text}; choose by --node {self._suggested_repo(node_pack)}@REF"
            )
        elif node_pack.aux_id:
            self._add_node(RepoSpec(repo=_GITHUB + node_pack.aux_id, ref=node_pack.versions[0]))
        elif is_commit_version(node_pack.versions[0]):
            self._add_from_repository(node_pack, subject)
        else:
            self._add_node(
                RepoSpec(
                    repo=f"{REGISTRY_SCHEME}{node_pack.cnr_id}", ref=node_pack.versions[0], folder=node_pack.cnr_id
                )
            )

    def add_classes(self, names: Iterable[str]) -> None:
        """Resolve classes whose pack no workflow names."""
        registry_silence = "the registry is not asked" if self._registry is None else ""
        for class_name in names:
            if class_name in self._builtin or class_name in self._unneeded:
                continue
            if self._registry is not None and not registry_silence:
                try:
                    self._choose_pack(class_name, self._registry.find_packs_of(class_name))
                    continue
                except (EnvError, LockError) as error:
                    registry_silence = error.message  # one unreachable registry is not asked again for every class
            self.unknown.append(
                f"the node class {class_name}: no workflow names its pack (--comfyui shows which are ComfyUI's own); "
                f"{registry_silence}"
            )

    def add_model(self, wanted_model: NeededModel) -> None:
        """Resolve a model file that a workflow loads."""
        plain_name = wanted_model.name.replace("\\", "/").rpartition("/")[2]
        if plain_name in self._given_models or wanted_model.name in self._unneeded or plain_name in self._unneeded:
            return
        if wanted_model.url is None or wanted_model.directory is None:
            lacks = "no address" if wanted_model.url is None else "no folder"
            self.unknown.append(
                f"the model {wanted_model.name}: the workflow names {lacks}; give --model TARGET=SOURCE"
            )
            return
        target_path = f"{wanted_model.directory}/{wanted_model.name}"
        known_spec = self.models.get(target_path)
        if known_spec is not None and known_spec.sources != (wanted_model.url,):
            self.ambiguous.append(
                f"the model {target_path} has several URLs: {known_spec.sources[0]}, {wanted_model.url}"
            )
        self.models.setdefault(
            target_path, ModelSpec(sources=(wanted_model.url,), target=target_path, sha256=wanted_model.sha256)
        )

    def _is_given(self, node_pack: WantedPack) -> bool:
        names = {
            str(node_pack.cnr_id).lower(),
            str(node_pack.aux_id).lower(),
            str(node_pack.aux_id).rpartition("/")[2].lower(),
        }
        addresses = {f"{_GITHUB}{node_pack.aux_id}".lower(), f"{REGISTRY_SCHEME}{node_pack.cnr_id}".lower()}
        return bool((names | addresses) & self._given)

    def _suggested_repo(self, node_pack: WantedPack) -> str:
        return _GITHUB + node_pack.aux_id if node_pack.aux_id else f"{REGISTRY_SCHEME}{node_pack.cnr_id}"

    def _add_from_repository(self, node_pack: WantedPack, subject: str) -> None:
        """Resolve a registry's pack at a commit: only the registry knows its repository."""
        if self._registry is None:
            self.unknown.append(
                f"{subject} is named by a commit, and the registry, which knows its repository, is not asked"
            )
            return
        try:
            registry_pack = self._registry.find_pack(str(node_pack.cnr_id))
        except (EnvError, LockError) as error:
            self.unknown.append(f"{subject}: {error.message}")
            return
        if registry_pack.repository is None:
            self.unknown.append(f"{subject} is named by a commit, and the registry knows no repository for it")
        else:
            self._add_node(RepoSpec(repo=registry_pack.repository, ref=node_pack.versions[0]))

    def _choose_pack(self, class_name: str, found_packs: Sequence[RegistryPack]) -> None:
        # The registry knows it as ComfyUI's own, though ComfyUI's sources do not show it.
        if any(pack.node_id == CORE_PACK for pack in found_packs):
            return
        given = [pack for pack in found_packs if {pack.node_id.lower(), str(pack.repository).lower()} & self._given]
        if given or any(pack.node_id in self.nodes for pack in found_packs):
            return
        listed_packs = ", ".join(pack.repository or REGISTRY_SCHEME + pack.node_id for pack in found_packs)
        if not found_packs:
            self.unknown.append(f"the node class {class_name}: no pack of the registry has it")
        elif len(found_packs) > 1:
            self.ambiguous.append(f"the node class {class_name} is in several packs: {listed_packs}; choose by --node")
        else:
            self.ambiguous.append(
                f"the node class {class_name} is in {listed_packs}, and no workflow says in which version; add --node"
            )

    def _add_node(self, repo_spec: RepoSpec) -> None:
        self.nodes.setdefault(repo_spec.name, repo_spec)


def resolve_needs(
    workflow_needs: WorkflowNeeds, needs_resolver: NeedsResolver, *, report: Callable[[str], None]
) -> ResolvedNeeds:
    """Resolve everything that the workflows need."""
    packs, models = format_count(len(workflow_needs.packs), "pack"), format_count(len(workflow_needs.models), "model")
    report(f"named: {packs}, {models}, and {len(workflow_needs.classes)} node classes without their pack")
    for pack in workflow_needs.packs:
        needs_resolver.add_pack(pack)
    needs_resolver.add_classes(workflow_needs.classes)
    for model in workflow_needs.models:
        needs_resolver.add_model(model)
    return ResolvedNeeds(
        nodes=tuple(needs_resolver.nodes.values()),
        models=tuple(needs_resolver.models.values()),
        ambiguous=tuple(needs_resolver.ambiguous),
        unknown=tuple(needs_resolver.unknown),
        core_versions=workflow_needs.core_versions,
    )


def known_classes(comfyui: RepoSpec | None, given: Iterable[RepoSpec], upstreams: Upstreams) -> frozenset[str]:
    """Return the node classes that ComfyUI and the given nodes define, read from their sources.

    Nodes may register classes in ways that no reader of sources sees; those stay to be asked for. Raises git's errors.
    """
    class_names_found: set[str] = set()
    if comfyui is not None:
        class_names_found |= _read_classes(comfyui, upstreams, registers_core_nodes)
    for node_spec in given:
        # The registry itself lists the classes of its packs.
        if not node_spec.repo.startswith(REGISTRY_SCHEME):
            class_names_found |= _read_classes(node_spec, upstreams, lambda _: True)
    return frozenset(class_names_found)


def registers_core_nodes(path: str) -> bool:
    """Return whether a file of ComfyUI's repository may register nodes."""
    return path == "nodes.py" or path.startswith(("comfy_extras/", "comfy_api_nodes/"))


def _read_classes(repo_spec: RepoSpec, upstreams: Upstreams, registers: Callable[[str], bool]) -> set[str]:
    commit = resolve_ref(repo_spec.repo, repo_spec.ref)
    git_folder = upstreams.commits.obtain_repository(repo_spec.repo, commit)
    files = [
        tree_entry
        for tree_entry in list_tree(git_folder, commit)
        if tree_entry.mode.startswith("100") and tree_entry.path.endswith(".py")
    ]
    class_names_found: set[str] = set()
    for _, blob_bytes in read_blobs(
        git_folder, [module_file for module_file in files if registers(module_file.path)], repo_spec.repo, commit
    ):
        class_names_found |= registered_classes(blob_bytes)
    return class_names_found


def registered_classes(source: bytes) -> set[str]:
    """Return the classes that a module registers: keys of NODE_CLASS_MAPPINGS, and `node_id=` of schemas."""
    try:
        tree = ast.parse(source)
    # Strangers' sources: Python 2, null bytes, or nested beyond what the parser takes.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    class_names_found: set[str] = set()
    for node in ast.walk(tree):
        class_names_found.update(_registered_by(node))
    return class_names_found


def _registered_by(node: ast.AST) -> Iterator[str]:
    """Yield the names that one statement registers, in the ways that packs use: a dict, `[...] =`, `|=`,
    `.update(...)`.
    """
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

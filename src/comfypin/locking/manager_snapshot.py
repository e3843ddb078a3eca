"""Reads a ComfyUI-Manager snapshot, or comfy-cli's comfy-lock.yaml, as the request for a new lock (pure).

Formats as they are written by ComfyUI-Manager (JSON, or YAML under `custom_nodes`) and documented by comfy-cli.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from comfypin.digest import Digest
from comfypin.lock.model_spec import ModelSpec
from comfypin.lock.requirements import parse_requirement
from comfypin.locking.errors import SnapshotUnreadable
from comfypin.locking.node_registry import REGISTRY_SCHEME
from comfypin.locking.repository_refs import RepoSpec, repo_folder
from comfypin.text_encoding import decode_text

# Snapshots name only ComfyUI's commit; this is where it is unless the user says otherwise.
COMFYUI = "https://github.com/comfyanonymous/ComfyUI"
# Far above any real snapshot; YAML of that size already takes seconds to parse.
MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerSnapshot:
    """What a snapshot pins; `unpinnable` are the parts that no other machine can have."""

    comfyui: RepoSpec
    nodes: tuple[RepoSpec, ...] = ()
    packages: tuple[str, ...] = ()
    models: tuple[ModelSpec, ...] = ()
    unpinnable: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(slots=True)
class _SnapshotParts:
    nodes: list[RepoSpec] = field(default_factory=list)
    unpinnable: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_snapshot(snapshot_path: Path, comfyui: str | None = None) -> ManagerSnapshot:
    """Read a snapshot or a comfy-lock.yaml; `comfyui` is its repository, which they do not name.

    Raises `SnapshotUnreadable`.
    """
    document = _load_document(snapshot_path)
    models = _read_models(document.get("models"), snapshot_path)
    # In YAML, the same keys are below `custom_nodes`.
    inner_value = document.get("custom_nodes")
    if isinstance(inner_value, Mapping) and "comfyui" not in document:
        document = {str(key): value for key, value in inner_value.items()}
    if not {"comfyui", "git_custom_nodes", "cnr_custom_nodes"} & document.keys():
        raise SnapshotUnreadable(path=str(snapshot_path), reason="it names neither comfyui nor git_custom_nodes")
    comfyui_commit = document.get("comfyui")
    if not isinstance(comfyui_commit, str) or not comfyui_commit.strip():
        raise SnapshotUnreadable(path=str(snapshot_path), reason="comfyui is not a commit")
    snapshot_parts = _SnapshotParts()
    _read_git_nodes(document.get("git_custom_nodes"), snapshot_parts, snapshot_path)
    for node_id, version in _require_mapping(
        document.get("cnr_custom_nodes"), "cnr_custom_nodes", snapshot_path
    ).items():
        # "nightly" is whatever the branch had that day; nobody recorded which commit.
        if str(version or "unknown").lower() in ("unknown", "nightly", "latest"):
            snapshot_parts.unpinnable.append(f"the node {node_id} has no version of the registry, only {version!r}")
        else:
            snapshot_parts.nodes.append(RepoSpec(repo=f"{REGISTRY_SCHEME}{node_id}", ref=str(version), folder=node_id))
    _read_file_nodes(document.get("file_custom_nodes"), snapshot_parts, snapshot_path)
    return ManagerSnapshot(
        comfyui=RepoSpec(repo=comfyui or COMFYUI, ref=comfyui_commit.strip()),
        nodes=tuple(snapshot_parts.nodes),
        packages=_read_packages(_require_mapping(document.get("pips"), "pips", snapshot_path), snapshot_parts),
        models=models,
        unpinnable=tuple(snapshot_parts.unpinnable),
        left_out=tuple(snapshot_parts.left_out),
    )


def _load_document(snapshot_path: Path) -> dict[str, object]:
    import yaml

    try:
        snapshot_bytes = snapshot_path.read_bytes()
        if len(snapshot_bytes) > MAX_BYTES:
            raise SnapshotUnreadable(path=str(snapshot_path), reason="it is larger than 16 MiB")
        # JSON is YAML too; events are counted first, for aliases can make a small file a huge value.
        path_text = decode_text(snapshot_bytes)
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(path_text)):
            raise SnapshotUnreadable(path=str(snapshot_path), reason="it uses YAML aliases")
        document = yaml.safe_load(path_text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise SnapshotUnreadable(path=str(snapshot_path), reason=" ".join(str(error).split())[:200]) from error
    if not isinstance(document, dict):
        raise SnapshotUnreadable(path=str(snapshot_path), reason="it is not an object")
    return {str(key): value for key, value in document.items()}


def _require_mapping(raw_value: object, name: str, path: Path) -> dict[str, object]:
    if raw_value is None:
        return {}
    if not isinstance(raw_value, Mapping):
        raise SnapshotUnreadable(path=str(path), reason=f"{name} is not an object")
    return {str(key): item for key, item in raw_value.items()}


def _read_git_nodes(value: object, snapshot_parts: _SnapshotParts, snapshot_path: Path) -> None:
    for source_url, facts in _require_mapping(value, "git_custom_nodes", snapshot_path).items():
        node_state = _require_mapping(facts, f"git_custom_nodes[{source_url!r}]", snapshot_path)
        comfyui_commit = node_state.get("hash")
        if node_state.get("disabled") is True:
            snapshot_parts.left_out.append(f"the node {source_url} is disabled")
        elif not isinstance(comfyui_commit, str) or not comfyui_commit:
            snapshot_parts.unpinnable.append(f"the node {source_url} has no commit")
        else:
            snapshot_parts.nodes.append(RepoSpec(repo=source_url, ref=comfyui_commit, folder=repo_folder(source_url)))


def _read_file_nodes(raw_value: object, snapshot_parts: _SnapshotParts, path: Path) -> None:
    if raw_value is not None and not isinstance(raw_value, list):
        raise SnapshotUnreadable(path=str(path), reason="file_custom_nodes is not a list")
    for raw_entry in raw_value or []:
        name = raw_entry.get("filename") if isinstance(raw_entry, Mapping) else raw_entry
        if isinstance(raw_entry, Mapping) and raw_entry.get("disabled") is True:
            snapshot_parts.left_out.append(f"the node file {name} is disabled")
        else:
            snapshot_parts.unpinnable.append(f"the node file {name} comes from no repository")


def _read_packages(pips: Mapping[str, object], gathered: _SnapshotParts) -> tuple[str, ...]:
    """Read `{"idna==3.7": ""}` as pip freezes it, or `{"idna": "3.7"}`; editable and local packages are unpinnable."""
    packages: list[str] = []
    for requirement_key, raw_value in pips.items():
        requirement_line = requirement_key
        # The value is a version or a URL, depending on which tool wrote it.
        if isinstance(raw_value, str) and raw_value and "==" not in requirement_key and "@" not in requirement_key:
            requirement_line = (
                f"{requirement_key} @ {raw_value}" if "://" in raw_value else f"{requirement_key}=={raw_value}"
            )
        requirement = parse_requirement(requirement_line, "the snapshot")
        if requirement is None or "file:" in requirement_line:
            gathered.unpinnable.append(f"the package {requirement_line} is installed from this machine's own files")
        elif requirement.name != "pip":
            packages.append(requirement.text)
    return tuple(packages)


def _read_models(raw_value: object, snapshot_path: Path) -> tuple[ModelSpec, ...]:
    """Read the models of a comfy-lock.yaml: a URL, the paths under ComfyUI, and hashes of many kinds."""
    if raw_value is not None and not isinstance(raw_value, list):
        raise SnapshotUnreadable(path=str(snapshot_path), reason="models is not a list")
    model_specs: list[ModelSpec] = []
    for index, item in enumerate(raw_value or []):
        entry_place = f"models[{index}]"
        entry_facts = _require_mapping(item, entry_place, snapshot_path)
        source_url, name = entry_facts.get("url"), entry_facts.get("model")
        if not isinstance(source_url, str) or "://" not in source_url:
            raise SnapshotUnreadable(path=str(snapshot_path), reason=f"{entry_place} has no url")
        targets: list[str | None] = [*_model_targets(entry_facts.get("paths"))] or [None]
        for target in targets:
            sha256 = _model_sha256(entry_facts.get("hashes"), f"{snapshot_path}: {entry_place}", snapshot_path)
            model_specs.append(
                ModelSpec(
                    sources=(source_url,), target=target, sha256=sha256, name=name if isinstance(name, str) else None
                )
            )
    return tuple(model_specs)


def _model_targets(raw_value: object) -> list[str]:
    model_targets = []
    for raw_entry in raw_value if isinstance(raw_value, list) else []:
        path_text = raw_entry.get("path") if isinstance(raw_entry, Mapping) else raw_entry
        if isinstance(path_text, str) and path_text:
            path_parts = PurePosixPath(path_text).parts
            # Paths begin at ComfyUI's folder; targets begin below models.
            inner = path_parts[path_parts.index("models") + 1 :] if "models" in path_parts else path_parts
            model_targets.append("/".join(inner) + ("/" if path_text.endswith("/") else ""))
    return model_targets


def _model_sha256(raw_value: object, where: str, path: Path) -> Digest | None:
    for raw_entry in raw_value if isinstance(raw_value, list) else []:
        # Hashes of other kinds do not prove what a sha256 proves.
        if isinstance(raw_entry, Mapping) and str(raw_entry.get("type", "")).upper() == "SHA256":
            try:
                return Digest.parse(str(raw_entry.get("hash", "")))
            except ValueError as error:
                raise SnapshotUnreadable(path=str(path), reason=f"{where} has a SHA256 that is none") from error
    return None

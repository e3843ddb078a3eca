"""A ComfyUI-Manager snapshot, or a comfy-lock.yaml of comfy-cli, as the wishes of a new lock (pure).

Formats as they are written by ComfyUI-Manager (JSON, or YAML under `custom_nodes`) and documented by comfy-cli.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from comfypin.digest import Digest
from comfypin.lock.model_spec import ModelSpec
from comfypin.lock.requirements import parse_need
from comfypin.locking.errors import SnapshotUnreadable
from comfypin.locking.node_registry import SCHEME
from comfypin.locking.repository_refs import RepoSpec, repo_folder

COMFYUI = "https://github.com/comfyanonymous/ComfyUI"
MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a snapshot pins; `unpinnable` are its parts that no other machine can have."""

    comfyui: RepoSpec
    nodes: tuple[RepoSpec, ...] = ()
    packages: tuple[str, ...] = ()
    models: tuple[ModelSpec, ...] = ()
    unpinnable: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(slots=True)
class _Gathered:
    nodes: list[RepoSpec] = field(default_factory=list)
    unpinnable: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_snapshot(path: Path, comfyui: str | None = None) -> Snapshot:
    """Read a snapshot or a comfy-lock.yaml; `comfyui` is its repository, which they do not name.

    Raises `SnapshotUnreadable`.
    """
    document = _load(path)
    models = _models(document.get("models"), path)
    inner = document.get("custom_nodes")
    if isinstance(inner, Mapping) and "comfyui" not in document:
        document = {str(key): value for key, value in inner.items()}
    if not {"comfyui", "git_custom_nodes", "cnr_custom_nodes"} & document.keys():
        raise SnapshotUnreadable(path=str(path), reason="it names neither comfyui nor git_custom_nodes")
    commit = document.get("comfyui")
    if not isinstance(commit, str) or not commit.strip():
        raise SnapshotUnreadable(path=str(path), reason="comfyui is not a commit")
    gathered = _Gathered()
    _git_nodes(document.get("git_custom_nodes"), gathered, path)
    for node_id, version in _mapping(document.get("cnr_custom_nodes"), "cnr_custom_nodes", path).items():
        if str(version or "unknown").lower() in ("unknown", "nightly", "latest"):
            gathered.unpinnable.append(f"the node {node_id} has no version of the registry, only {version!r}")
        else:
            gathered.nodes.append(RepoSpec(repo=f"{SCHEME}{node_id}", ref=str(version), folder=node_id))
    _file_nodes(document.get("file_custom_nodes"), gathered, path)
    return Snapshot(
        comfyui=RepoSpec(repo=comfyui or COMFYUI, ref=commit.strip()),
        nodes=tuple(gathered.nodes),
        packages=_packages(_mapping(document.get("pips"), "pips", path), gathered),
        models=models,
        unpinnable=tuple(gathered.unpinnable),
        left_out=tuple(gathered.left_out),
    )


def _load(path: Path) -> dict[str, object]:
    import yaml

    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise SnapshotUnreadable(path=str(path), reason="it is larger than 16 MiB")
        # JSON is YAML too; events are counted first, for aliases can make a small file a huge value.
        text = data.decode("utf-8-sig")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise SnapshotUnreadable(path=str(path), reason="it uses YAML aliases")
        document = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise SnapshotUnreadable(path=str(path), reason=" ".join(str(error).split())[:200]) from error
    if not isinstance(document, dict):
        raise SnapshotUnreadable(path=str(path), reason="it is not an object")
    return {str(key): value for key, value in document.items()}


def _mapping(value: object, name: str, path: Path) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SnapshotUnreadable(path=str(path), reason=f"{name} is not an object")
    return {str(key): item for key, item in value.items()}


def _git_nodes(value: object, gathered: _Gathered, path: Path) -> None:
    for url, facts in _mapping(value, "git_custom_nodes", path).items():
        state = _mapping(facts, f"git_custom_nodes[{url!r}]", path)
        commit = state.get("hash")
        if state.get("disabled") is True:
            gathered.left_out.append(f"the node {url} is disabled")
        elif not isinstance(commit, str) or not commit:
            gathered.unpinnable.append(f"the node {url} has no commit")
        else:
            gathered.nodes.append(RepoSpec(repo=url, ref=commit, folder=repo_folder(url)))


def _file_nodes(value: object, gathered: _Gathered, path: Path) -> None:
    if value is not None and not isinstance(value, list):
        raise SnapshotUnreadable(path=str(path), reason="file_custom_nodes is not a list")
    for item in value or []:
        name = item.get("filename") if isinstance(item, Mapping) else item
        if isinstance(item, Mapping) and item.get("disabled") is True:
            gathered.left_out.append(f"the node file {name} is disabled")
        else:
            gathered.unpinnable.append(f"the node file {name} comes from no repository")


def _packages(pips: Mapping[str, object], gathered: _Gathered) -> tuple[str, ...]:
    """`{"idna==3.7": ""}` as pip freezes it, or `{"idna": "3.7"}`; editable and local ones cannot be had elsewhere."""
    packages: list[str] = []
    for key, value in pips.items():
        line = key
        if isinstance(value, str) and value and "==" not in key and "@" not in key:
            line = f"{key} @ {value}" if "://" in value else f"{key}=={value}"
        need = parse_need(line, "the snapshot")
        if need is None or "file:" in line:
            gathered.unpinnable.append(f"the package {line} is installed from this machine's own files")
        elif need.name != "pip":
            packages.append(need.text)
    return tuple(packages)


def _models(value: object, path: Path) -> tuple[ModelSpec, ...]:
    """The models of a comfy-lock.yaml: a URL, the paths under ComfyUI, and hashes of many kinds."""
    if value is not None and not isinstance(value, list):
        raise SnapshotUnreadable(path=str(path), reason="models is not a list")
    specs: list[ModelSpec] = []
    for index, item in enumerate(value or []):
        where = f"models[{index}]"
        facts = _mapping(item, where, path)
        url, name = facts.get("url"), facts.get("model")
        if not isinstance(url, str) or "://" not in url:
            raise SnapshotUnreadable(path=str(path), reason=f"{where} has no url")
        targets: list[str | None] = [*_targets(facts.get("paths"))] or [None]
        for target in targets:
            sha256 = _sha256(facts.get("hashes"), f"{path}: {where}", path)
            specs.append(
                ModelSpec(sources=(url,), target=target, sha256=sha256, name=name if isinstance(name, str) else None)
            )
    return tuple(specs)


def _targets(value: object) -> list[str]:
    targets = []
    for item in value if isinstance(value, list) else []:
        text = item.get("path") if isinstance(item, Mapping) else item
        if isinstance(text, str) and text:
            parts = PurePosixPath(text).parts
            inner = parts[parts.index("models") + 1 :] if "models" in parts else parts
            targets.append("/".join(inner) + ("/" if text.endswith("/") else ""))
    return targets


def _sha256(value: object, where: str, path: Path) -> Digest | None:
    for item in value if isinstance(value, list) else []:
        if isinstance(item, Mapping) and str(item.get("type", "")).upper() == "SHA256":
            try:
                return Digest.parse(str(item.get("hash", "")))
            except ValueError as error:
                raise SnapshotUnreadable(path=str(path), reason=f"{where} has a SHA256 that is none") from error
    return None

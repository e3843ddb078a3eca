"""Reads a ComfyUI-Manager snapshot, or comfy-cli's comfy-lock.yaml, which holds one under `custom_nodes` (pure).

Formats as they are written by ComfyUI-Manager (JSON, or YAML) and documented by comfy-cli.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from comfypin.digest import Digest
from comfypin.lock.model_spec import ModelSpec
from comfypin.locking.node_registry import REGISTRY_SCHEME
from comfypin.locking.release_files.document import DocumentPath, ReleaseFile, ReleaseParts
from comfypin.locking.repository_refs import COMFYUI, RepoSpec, repo_folder

_KEYS = frozenset({"comfyui", "git_custom_nodes", "cnr_custom_nodes"})
_READ_KEYS = _KEYS | {"file_custom_nodes", "pips", "models", "custom_nodes", "basic"}


def is_manager_snapshot(document: object) -> bool:
    """Return whether a document has a snapshot's keys, or has them under `custom_nodes`."""
    if not isinstance(document, Mapping):
        return False
    inner = document.get("custom_nodes")
    return bool(_KEYS & document.keys()) or (isinstance(inner, Mapping) and bool(_KEYS & inner.keys()))


def read_manager_snapshot(document: object, path: Path) -> ReleaseFile:
    """Read a snapshot or a comfy-lock.yaml. Raises `SnapshotUnreadable`."""
    document_path, parts = DocumentPath(path), ReleaseParts()
    snapshot = document_path.mapping(document, "the file")
    _read_models(snapshot.get("models"), parts, document_path)
    # In YAML, the same keys are below `custom_nodes`.
    inner_value = snapshot.get("custom_nodes")
    if isinstance(inner_value, Mapping) and "comfyui" not in snapshot:
        snapshot = document_path.mapping(inner_value, "custom_nodes")
    comfyui_commit = snapshot.get("comfyui")
    if not isinstance(comfyui_commit, str) or not comfyui_commit.strip():
        raise document_path.refuse("comfyui is not a commit")
    read_git_nodes(snapshot.get("git_custom_nodes"), parts, document_path)
    read_registry_nodes(snapshot.get("cnr_custom_nodes"), parts, document_path)
    read_file_nodes(snapshot.get("file_custom_nodes"), parts, document_path)
    read_pips(snapshot.get("pips"), parts, document_path)
    parts.notes += [f"its {key} is not read" for key in sorted(snapshot.keys() - _READ_KEYS)]
    return parts.to_release(
        "a ComfyUI-Manager snapshot",
        comfyui=RepoSpec(repo=COMFYUI, ref=comfyui_commit.strip()),
        installed=tuple(parts.packages),
    )


def read_git_nodes(value: object, parts: ReleaseParts, document_path: DocumentPath) -> None:
    """Read `{URL: {"hash": COMMIT, "disabled": false}}`."""
    for source_url, facts in document_path.mapping(value, "git_custom_nodes").items():
        node_state = document_path.mapping(facts, f"git_custom_nodes[{source_url!r}]")
        commit, folder = node_state.get("hash"), repo_folder(source_url)
        if node_state.get("disabled") is True:
            parts.skip_disabled("the node", source_url, folder)
        elif not isinstance(commit, str) or not commit.strip():
            parts.refuse("node", f"the node {source_url} has no commit", source_url, folder)
        else:
            parts.nodes.append(RepoSpec(repo=source_url, ref=commit.strip(), folder=folder))


def read_registry_nodes(value: object, parts: ReleaseParts, document_path: DocumentPath) -> None:
    """Read `{ID: VERSION}`."""
    for node_id, version in document_path.mapping(value, "cnr_custom_nodes").items():
        # "nightly" is whatever the branch had that day; nobody recorded which commit.
        if str(version or "unknown").lower() in ("unknown", "nightly", "latest"):
            parts.refuse(
                "node",
                f"the node {node_id} has no version of the registry, only {version!r}; leave it out, and give it with "
                "`lock create --from ... --node`",
                node_id,
            )
        else:
            parts.nodes.append(RepoSpec(repo=f"{REGISTRY_SCHEME}{node_id}", ref=str(version), folder=node_id))


def read_file_nodes(value: object, parts: ReleaseParts, document_path: DocumentPath) -> None:
    """Read `[{"filename": NAME, "disabled": false}]`; whether ComfyUI's commit has such a file is seen later."""
    for entry in document_path.entries(value, "file_custom_nodes"):
        file_name = str(entry.get("filename") if isinstance(entry, Mapping) else entry)
        if isinstance(entry, Mapping) and entry.get("disabled") is True:
            parts.skip_disabled("the node file", file_name)
        else:
            parts.node_files.append(file_name)


def read_pips(value: object, parts: ReleaseParts, document_path: DocumentPath) -> None:
    """Read `{"idna==3.7": ""}` as pip freezes it, or `{"idna": "3.7"}`."""
    for requirement_key, raw_value in document_path.mapping(value, "pips").items():
        requirement_line = requirement_key
        # The value is a version or a URL, depending on which tool wrote it.
        if isinstance(raw_value, str) and raw_value and "==" not in requirement_key and "@" not in requirement_key:
            requirement_line = (
                f"{requirement_key} @ {raw_value}" if "://" in raw_value else f"{requirement_key}=={raw_value}"
            )
        parts.add_package(requirement_line)


def _read_models(raw_value: object, parts: ReleaseParts, document_path: DocumentPath) -> None:
    """Read the models of a comfy-lock.yaml: a URL, the paths under ComfyUI, and hashes of many kinds."""
    for index, entry_facts in enumerate(document_path.objects(raw_value, "models")):
        entry_place = f"models[{index}]"
        source_url, model_name = entry_facts.get("url"), entry_facts.get("model")
        if not isinstance(source_url, str) or "://" not in source_url:
            raise document_path.refuse(f"{entry_place} has no url")
        try:
            sha256 = _model_sha256(entry_facts.get("hashes"))
        except ValueError:
            # Written by hand, or made up: one model less, and the rest of the file is as good as before.
            model_name = str(model_name or source_url.rpartition("/")[2])
            parts.refuse("model", f"{entry_place} ({model_name}) has a SHA256 that is not one", source_url, model_name)
            continue
        for target in [*_model_targets(entry_facts.get("paths"))] or [None]:
            parts.models.append(
                ModelSpec(
                    sources=(source_url,),
                    target=target,
                    sha256=sha256,
                    name=model_name if isinstance(model_name, str) else None,
                )
            )


def _model_targets(raw_value: object) -> list[str | None]:
    model_targets: list[str | None] = []
    for raw_entry in raw_value if isinstance(raw_value, list) else []:
        path_text = raw_entry.get("path") if isinstance(raw_entry, Mapping) else raw_entry
        if isinstance(path_text, str) and path_text:
            model_targets.append(below_models(path_text))
    return model_targets


def below_models(path_text: str) -> str:
    """Return a path below ComfyUI's folder as a path below its models folder."""
    # Written on Windows too.
    path_parts = PurePosixPath(path_text.replace("\\", "/")).parts
    inner = path_parts[path_parts.index("models") + 1 :] if "models" in path_parts else path_parts
    return "/".join(inner) + ("/" if path_text.endswith("/") else "")


def _model_sha256(raw_value: object) -> Digest | None:
    """Return the sha256 among a model's hashes, or None. Raises `ValueError` if its value is not a sha256."""
    for raw_entry in raw_value if isinstance(raw_value, list) else []:
        # Hashes of other kinds do not prove what a sha256 proves.
        if isinstance(raw_entry, Mapping) and str(raw_entry.get("type", "")).upper() == "SHA256":
            return Digest.parse(str(raw_entry.get("hash", "none")))
    return None

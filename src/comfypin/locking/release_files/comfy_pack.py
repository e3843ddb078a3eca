"""Reads comfy-pack's snapshot.json: a ComfyUI-Manager snapshot with Python, models by sha256, and nodes as a list
(pure).

Format as comfy-pack writes it: https://github.com/bentoml/comfy-pack.
"""

from collections.abc import Mapping
from pathlib import Path

from comfypin.lock.model_spec import ModelSpec
from comfypin.locking.release_files.document import DocumentPath, ReleaseFile, ReleaseParts, python_minor
from comfypin.locking.release_files.manager import (
    below_models,
    read_file_nodes,
    read_git_nodes,
    read_pips,
    read_registry_nodes,
)
from comfypin.locking.repository_refs import COMFYUI, RepoSpec, repo_folder


def is_comfy_pack_snapshot(document: object) -> bool:
    """Return whether a document has comfy-pack's keys: a snapshot's, and models by file name."""
    if not isinstance(document, Mapping) or not isinstance(document.get("comfyui"), str):
        return False
    models, nodes = document.get("models"), document.get("custom_nodes")
    return isinstance(nodes, list) or (
        isinstance(models, list) and all(isinstance(model, Mapping) and "filename" in model for model in models)
    )


def read_comfy_pack_snapshot(document: object, path: Path) -> ReleaseFile:
    """Read a snapshot.json of comfy-pack. Raises `SnapshotUnreadable`."""
    document_path, parts = DocumentPath(path), ReleaseParts()
    snapshot = document_path.mapping(document, "the file")
    for index, node in enumerate(document_path.objects(snapshot.get("custom_nodes"), "custom_nodes")):
        _read_node(node, f"custom_nodes[{index}]", parts, document_path)
    # Older versions keep the Manager's own sections beside the list, newer ones instead of it.
    listed = {node.repo for node in parts.nodes}
    rest = document_path.mapping(snapshot.get("git_custom_nodes"), "git_custom_nodes")
    read_git_nodes({url: facts for url, facts in rest.items() if url not in listed}, parts, document_path)
    read_registry_nodes(snapshot.get("cnr_custom_nodes"), parts, document_path)
    read_file_nodes(snapshot.get("file_custom_nodes"), parts, document_path)
    for index, model in enumerate(document_path.objects(snapshot.get("models"), "models")):
        _read_model(model, f"models[{index}]", parts, document_path)
    read_pips(snapshot.get("pips"), parts, document_path)
    return parts.to_release(
        "a snapshot of comfy-pack",
        comfyui=RepoSpec(repo=COMFYUI, ref=document_path.text(snapshot.get("comfyui"), "comfyui")),
        installed=tuple(parts.packages),
        python=python_minor(snapshot.get("python")),
    )


def _read_node(node: dict[str, object], entry_label: str, parts: ReleaseParts, document_path: DocumentPath) -> None:
    url, commit = node.get("url"), node.get("commit_hash")
    # comfy-pack writes a node without a remote with an empty address, and skips it when it unpacks.
    if not isinstance(url, str) or not url.strip():
        parts.refuse("node", f"{entry_label} has no address", entry_label)
    elif node.get("disabled") is True:
        parts.skip_disabled("the node", url, repo_folder(url))
    elif not isinstance(commit, str) or not commit.strip():
        parts.refuse("node", f"the node {url} has no commit", url, repo_folder(url))
    else:
        parts.nodes.append(RepoSpec(repo=url.strip(), ref=commit.strip(), folder=repo_folder(url.strip())))


def _read_model(model: dict[str, object], entry_label: str, parts: ReleaseParts, document_path: DocumentPath) -> None:
    target = below_models(document_path.text(model.get("filename"), f"{entry_label}.filename"))
    file_name = target.rpartition("/")[2]
    source = document_path.mapping(model.get("source"), f"{entry_label}.source")
    address = source.get("download_url")
    if model.get("disabled") is True:
        parts.skip_disabled("the model", target, file_name)
        return
    if not isinstance(address, str) or "://" not in address:
        parts.refuse("model", f"the model {target} has no download_url: comfy-pack found none", target, file_name)
        return
    size = model.get("size")
    parts.models.append(
        ModelSpec(
            # A space in an address is what hubs show, and no HTTP client sends.
            sources=(address.replace(" ", "%20"),),
            target=target,
            sha256=document_path.digest(model.get("sha256"), f"{entry_label}.sha256"),
            size_bytes=size if isinstance(size, int) and not isinstance(size, bool) else None,
            name=file_name,
        )
    )

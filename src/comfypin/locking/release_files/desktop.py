"""Reads a snapshot of ComfyUI Desktop 2: one snapshot, or the file that it exports, in versions 1 and 2 (pure).

Format as Desktop writes it: https://github.com/Comfy-Org/ComfyUI-Desktop-2.0-Beta (src/main/lib/snapshots).
"""

import re
from collections.abc import Mapping
from pathlib import Path

from comfypin.locking.node_registry import REGISTRY_SCHEME
from comfypin.locking.release_files.document import DocumentPath, ReleaseFile, ReleaseParts, python_minor
from comfypin.locking.repository_refs import COMFYUI, RepoSpec, repo_folder
from comfypin.plurals import format_count

_ENVELOPE = "comfyui-desktop-2-snapshot"
VERSIONS = (1, 2)


def is_desktop_snapshot(document: object) -> bool:
    """Return whether a document is an export of Desktop, or one of its snapshots."""
    return isinstance(document, Mapping) and (document.get("type") == _ENVELOPE or "customNodes" in document)


def read_desktop_snapshot(document: object, path: Path) -> ReleaseFile:
    """Read the newest snapshot of the file. Raises `SnapshotUnreadable`."""
    document_path, parts = DocumentPath(path), ReleaseParts()
    envelope = document_path.mapping(document, "the file")
    snapshot = envelope
    if envelope.get("type") == _ENVELOPE:
        _require_version(envelope.get("version", 1), document_path)
        snapshot = _newest(document_path.objects(envelope.get("snapshots"), "snapshots"), parts, document_path)
    # In an export of version 2 the snapshots may have no version of their own.
    _require_version(snapshot.get("version", 1), document_path)
    for index, node in enumerate(document_path.objects(snapshot.get("customNodes"), "customNodes")):
        _read_node(node, f"customNodes[{index}]", parts, document_path)
    for package_name, version in document_path.mapping(snapshot.get("pipPackages"), "pipPackages").items():
        parts.add_package(_package_line(package_name, str(version)))
    packages = tuple(parts.packages)
    if snapshot.get("skipPipSync") is True and packages:
        # Desktop does not install them either: each node's requirements count.
        parts.notes.append("its packages are for information only, so they are resolved anew")
        packages = ()
    return parts.to_release(
        "a snapshot of ComfyUI Desktop",
        comfyui=_comfyui_of(document_path.mapping(snapshot.get("comfyui"), "comfyui"), parts, document_path),
        installed=packages,
        python=python_minor(snapshot.get("pythonVersion")),
    )


def _require_version(version: object, document_path: DocumentPath) -> None:
    if version not in VERSIONS:
        raise document_path.refuse(f"it is version {version!r} of Desktop's snapshots; 1 and 2 are known")


def _newest(snapshots: list[dict[str, object]], parts: ReleaseParts, document_path: DocumentPath) -> dict[str, object]:
    if not snapshots:
        raise document_path.refuse("it holds no snapshot")
    # Desktop writes the newest first; the sort keeps that order where no time is given.
    newest = max(snapshots, key=lambda snapshot: str(snapshot.get("createdAt", "")))
    if len(snapshots) > 1:
        taken = newest.get("createdAt", "the first")
        parts.notes.append(f"it holds {len(snapshots)} snapshots, and the newest is taken ({taken})")
    return newest


def _comfyui_of(comfyui: dict[str, object], parts: ReleaseParts, document_path: DocumentPath) -> RepoSpec:
    """Return ComfyUI's commit, else the tag of its release; Desktop records a commit only of a git checkout."""
    tag = next((str(comfyui[key]) for key in ("releaseTag", "baseTag", "ref") if comfyui.get(key)), None)
    commit = comfyui.get("commit")
    if isinstance(commit, str) and commit.strip():
        return RepoSpec(repo=COMFYUI, ref=commit.strip())
    if tag is None or tag == "unknown":
        raise document_path.refuse("comfyui has neither a commit nor a release's tag")
    ahead = comfyui.get("commitsAhead")
    if isinstance(ahead, int) and ahead > 0:
        parts.notes.append(
            f"ComfyUI was {format_count(ahead, 'commit')} after {tag} there, and nobody recorded which; {tag} is taken"
        )
    # "0.30.2" is the version of the tag v0.30.2.
    return RepoSpec(repo=COMFYUI, ref=f"v{tag}" if re.match(r"\d+\.\d+", tag) else tag)


def _read_node(node: dict[str, object], entry_label: str, parts: ReleaseParts, document_path: DocumentPath) -> None:
    kind, folder = node.get("type"), document_path.text(node.get("dirName", node.get("id")), f"{entry_label}.dirName")
    node_id, version, url, commit = (node.get(key) for key in ("id", "version", "url", "commit"))
    node_names = [
        folder,
        *(node_text for node_text in (node_id, url) if isinstance(node_text, str) and node_text != folder),
    ]
    if node.get("enabled", True) is False:
        parts.skip_disabled("the node", *node_names)
    elif kind == "file":
        parts.node_files.append(folder)
    elif kind == "cnr" and isinstance(version, str) and version:
        parts.nodes.append(RepoSpec(repo=f"{REGISTRY_SCHEME}{node_id or folder}", ref=version, folder=folder))
    elif kind == "git" and isinstance(url, str) and isinstance(commit, str) and url and commit:
        parts.nodes.append(RepoSpec(repo=url, ref=commit, folder=folder or repo_folder(url)))
    else:
        lacks = "a version of the registry" if kind == "cnr" else "an address and a commit"
        parts.refuse("node", f"the node {folder} has not {lacks}", *node_names)


def _package_line(package_name: str, version: str) -> str:
    # pip freezes a package that was not taken from an index as an address.
    if "://" in version:
        return f"{package_name} @ {version.removeprefix('-e ').strip()}"
    return f"{package_name}=={version}"

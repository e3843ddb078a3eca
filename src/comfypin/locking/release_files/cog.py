"""Reads the custom_nodes.json of cog-comfyui: a list of repositories and commits (pure).

Format as https://github.com/replicate/cog-comfyui has it; ComfyUI itself is a submodule there and not in the file.
"""

from collections.abc import Mapping
from pathlib import Path

from comfypin.locking.release_files.document import DocumentPath, ReleaseFile, ReleaseParts
from comfypin.locking.repository_refs import RepoSpec, repo_folder


def is_cog_node_list(document: object) -> bool:
    """Return whether a document is a list of objects with `repo`."""
    return (
        isinstance(document, list)
        and bool(document)
        and all(isinstance(entry, Mapping) and "repo" in entry for entry in document)
    )


def read_cog_node_list(document: object, path: Path) -> ReleaseFile:
    """Read a custom_nodes.json. Raises `SnapshotUnreadable`."""
    document_path, parts = DocumentPath(path), ReleaseParts()
    seen: dict[str, str] = {}
    for index, entry in enumerate(document_path.objects(document, "the list")):
        entry_label = f"the entry {index + 1}"
        repo = document_path.text(entry.get("repo"), f"repo of {entry_label}")
        commit, folder = entry.get("commit"), repo_folder(repo)
        if not isinstance(commit, str) or not commit.strip():
            parts.refuse("node", f"the node {repo} has no commit", repo, folder)
            continue
        # Real lists name a repository twice; cog checks out the one that comes last.
        if folder in seen:
            parts.notes.append(f"{folder} is there twice, at {seen[folder]} and {commit}; the last one counts")
            parts.nodes = [node for node in parts.nodes if node.folder != folder]
        seen[folder] = commit
        parts.nodes.append(RepoSpec(repo=repo, ref=commit.strip(), folder=folder))
    return parts.to_release("a custom_nodes.json of cog-comfyui")

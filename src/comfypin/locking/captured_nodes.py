"""Pins the checkouts of an installed ComfyUI: its own, and those of its nodes."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from comfypin.addresses import hide_credentials
from comfypin.digest import Digest
from comfypin.errors import EnvError
from comfypin.lock.model import NodePin
from comfypin.locking.capture_request import CaptureNotes, CaptureRequest
from comfypin.locking.left_out import is_left_out
from comfypin.locking.node_registry import REGISTRY_SCHEME
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.sources import Upstreams, fetch_source, make_node_pin
from comfypin.plurals import format_count
from comfypin.tools.git_remote import Checkout, diff_checkout, read_checkout

# What is not ComfyUI's own in its folder, though the .gitignore of some fork may not say so.
NOT_COMFYUI = frozenset(
    {
        *("custom_nodes", "models", "output", "input", "temp", "user"),
        *("venv", ".venv", "extra_model_paths.yaml"),
        # What a run by a lock leaves beside it, if the same folder is its --comfy-home.
        *("builds", "current", "current.lock.json", "leases"),
    }
)
# The node that ComfyUI ships in custom_nodes, for folders whose commit is unknown.
SHIPPED_FILES = frozenset({"custom_nodes/websocket_image_save.py"})
# Mostly waiting for git remotes and the disk.
WORKERS = 8


def read_comfyui_version(folder: Path) -> str | None:
    """Return the version that ComfyUI's folder says it is, else None; development goes on under the last one."""
    version_file = folder / "comfyui_version.py"
    version_text = version_file.read_text(errors="replace") if version_file.is_file() else ""
    version = re.search(r'__version__ = "([0-9.]+)"', version_text)
    return None if version is None else version[1]


def pin_nodes(capture_request: CaptureRequest, capture_notes: CaptureNotes, upstreams: Upstreams) -> None:
    """Add a pin for each node that ComfyUI loads to the notes, or the reason why it has none."""
    nodes_folder = capture_request.folder / "custom_nodes"
    entries = sorted(nodes_folder.iterdir()) if nodes_folder.is_dir() else []
    capture_notes.names += [entry.name for entry in entries]
    wanted_paths = [
        node_path
        for node_path in find_loaded_nodes(capture_request.folder, capture_notes.own_files)
        if not is_left_out(capture_request.left_out, node_path.name)
    ]
    capture_notes.notes += [
        f"the node {node_name} is disabled there, so it is left out" for node_name in _disabled_nodes(nodes_folder)
    ]

    def read_node(entry: Path) -> tuple[NodePin | None, CaptureNotes]:
        node_notes = CaptureNotes()
        return _pin_node(entry, capture_request, node_notes, upstreams), node_notes

    with ThreadPoolExecutor(WORKERS) as pool:
        for node_pin, node_notes in pool.map(read_node, wanted_paths):
            capture_notes.reasons += node_notes.reasons
            capture_notes.notes += node_notes.notes
            if node_pin is not None:
                capture_notes.nodes.append(node_pin)


def pin_checkout(
    subject: str,
    checkout: Checkout,
    capture_request: CaptureRequest,
    capture_notes: CaptureNotes,
    upstreams: Upstreams,
) -> NodePin | None:
    """Pin a checkout; return None, and note the reason, if no other machine could have it."""
    if checkout.remote is None:
        capture_notes.reasons.append(f"{subject} has no git remote, so no other machine can fetch it")
        return None
    remote_url = _shareable_remote(checkout.remote)
    patch = None
    if checkout.changed and not capture_request.allow_dirty:
        changed_files = ", ".join(checkout.changed[:5]) + (", ..." if len(checkout.changed) > 5 else "")
        capture_notes.reasons.append(
            f"{subject} has changes ({changed_files}); commit them, or store them with --allow-dirty"
        )
        return None
    if checkout.changed:
        patch = diff_checkout(checkout) or None
        capture_notes.notes.append(
            f"{subject} has changes in {format_count(len(checkout.changed), 'file')}; the lock holds them as a diff"
        )
    install_script = None
    if capture_request.verify:
        try:
            # A commit that was never pushed exists on this machine only, so the remote is asked for it.
            repo_spec = RepoSpec(repo=remote_url, ref=checkout.commit, folder=checkout.folder.name)
            install_script = fetch_source(repo_spec, origin=subject, upstreams=upstreams).install_script
        except EnvError as error:
            capture_notes.reasons.append(f"{subject}: {error.message} (--no-verify skips this check)")
            return None
    elif (checkout.folder / "install.py").is_file():
        install_script = (checkout.folder / "install.py").read_bytes()
    return NodePin(
        name=checkout.folder.name,
        repo=remote_url,
        ref=checkout.branch,
        commit=checkout.commit,
        patch=patch,
        install_script_sha256=None if install_script is None else Digest.of(install_script),
    )


def _shareable_remote(remote_url: str) -> str:
    """Return a remote without a user's token; a path becomes a URL."""
    return (
        Path(remote_url).resolve().as_uri()
        if remote_url.startswith(("/", ".", "~"))
        else _remote_without_user(remote_url)
    )


def _remote_without_user(remote_url: str) -> str:
    return hide_credentials(remote_url) if urlsplit(remote_url).scheme in ("http", "https") else remote_url


def find_loaded_nodes(comfyui: Path, own_files: frozenset[str]) -> list[Path]:
    """Return the node packs that a ComfyUI loads, by name, without those of its own files."""
    nodes_folder = comfyui / "custom_nodes"
    # ComfyUI ships example nodes in custom_nodes; its commit pins them already.
    own_names = {tracked_path.split("/")[1] for tracked_path in own_files if tracked_path.startswith("custom_nodes/")}
    entries = sorted(nodes_folder.iterdir()) if nodes_folder.is_dir() else []
    return [node_path for node_path in entries if node_path.name not in own_names and _is_loaded(node_path)]


def without_own_folders(checkout: Checkout, folder: Path) -> Checkout:
    """Return the checkout without files that only lack where users put their own: placeholders in models, examples."""
    changed = [path for path in checkout.changed if path.split("/")[0] not in NOT_COMFYUI or (folder / path).is_file()]
    return replace(checkout, changed=tuple(changed))


def _is_loaded(node_path: Path) -> bool:
    # Caches, hidden folders, and what ComfyUI skips: `.disabled` packs and `.py.example` files.
    hidden = node_path.name.startswith((".", "__")) or node_path.name.endswith((".disabled", ".example"))
    return not hidden and (node_path.is_dir() or node_path.suffix == ".py")


def _disabled_nodes(nodes_folder: Path) -> Iterator[str]:
    """Yield nodes that ComfyUI-Manager has put aside, in its older and its newer way."""
    for folder, pattern in ((nodes_folder, "*.disabled"), (nodes_folder / ".disabled", "*")):
        yield from sorted(
            disabled_path.name.removesuffix(".disabled")
            for disabled_path in folder.glob(pattern)
            if disabled_path.is_dir() and disabled_path.name != ".disabled"
        )


def _pin_node(
    node_path: Path, capture_request: CaptureRequest, capture_notes: CaptureNotes, upstreams: Upstreams
) -> NodePin | None:
    subject = f"the node {node_path.name}"
    if node_path.is_file():
        capture_notes.reasons.append(
            f"{subject} is a single file from no repository; leave it out with --leave-out {node_path.name}"
        )
        return None
    checkout = read_checkout(node_path)
    if checkout is not None:
        return pin_checkout(subject, checkout, capture_request, capture_notes, upstreams)
    registry_identity = read_registry_identity(node_path)
    if registry_identity is None:
        capture_notes.reasons.append(
            f"{subject} is neither a git checkout nor from the node registry; "
            f"leave it out with --leave-out {node_path.name}"
        )
        return None
    try:
        repo_spec = RepoSpec(
            repo=f"{REGISTRY_SCHEME}{registry_identity[0]}", ref=registry_identity[1], folder=node_path.name
        )
        return make_node_pin(fetch_source(repo_spec, origin=subject, upstreams=upstreams), frozenset())
    except EnvError as error:
        capture_notes.reasons.append(f"{subject} {registry_identity[1]} of the node registry: {error.message}")
        return None


def read_registry_identity(folder: Path) -> tuple[str, str] | None:
    """Return the id and version of a pack that ComfyUI-Manager installed from the registry (it leaves a .tracking
    file).
    """
    import tomllib

    # Without that file a pyproject.toml proves nothing: developers have one, too.
    if not (folder / ".tracking").is_file():
        return None
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8-sig")).get("project", {})
    except (OSError, ValueError):
        return None
    package_name, version = (project.get("name"), project.get("version")) if isinstance(project, dict) else (None, None)
    return (package_name, version) if isinstance(package_name, str) and isinstance(version, str) else None

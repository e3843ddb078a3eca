"""Captures a lock from an installed ComfyUI: its commits, its venv's packages, its models. The folder is only read."""

import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from comfypin.addresses import hide_credentials
from comfypin.digest import Digest
from comfypin.digest_cache import DigestCache
from comfypin.errors import EnvError
from comfypin.lock.model import DEFAULT_PYTHON, EngineSpec, Lock, ModelPin, NodePin, PythonPins, RepoPin
from comfypin.lock.requirements import RequirementSet
from comfypin.locking.create import MadeLock, package_notes, pin_exactly
from comfypin.locking.errors import CaptureRefused, NotComfyUI
from comfypin.locking.installed_models import find_models
from comfypin.locking.left_out import is_left_out, require_known
from comfypin.locking.missing_packages import find_unmet
from comfypin.locking.model_suspicions import FindProblem
from comfypin.locking.node_registry import REGISTRY_SCHEME
from comfypin.locking.release_files.document import COMFYUI
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.resolve import ResolveRequest
from comfypin.locking.sources import Upstreams, fetch_source, make_node_pin, read_source_requirements
from comfypin.plurals import format_count
from comfypin.tools.git_remote import Checkout, diff_checkout, list_tracked_files, read_checkout
from comfypin.tools.process import run_program
from comfypin.tools.uv import clean_environment

# Mostly waiting for git remotes and the disk.
WORKERS = 8
# Run by the venv's own Python, which may be older than ours: no syntax newer than 3.8.
_LIST_PACKAGES = """
import importlib.metadata as m, json, sys
found = []
for d in m.distributions():
    text = d.read_text("direct_url.json")
    name = d.metadata["Name"]
    if name:
        found.append({"name": name, "version": d.version, "direct": json.loads(text) if text else None})
print(json.dumps({"python": "%d.%d" % sys.version_info[:2], "packages": found}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureRequest:
    """How to capture a ComfyUI.

    `allow_dirty` stores changes as diffs; `verify` asks every remote for its commit; `left_out` are folders of nodes
    and names of packages to skip.
    """

    name: str
    folder: Path
    interpreter: Path | None = None
    models_dir: Path | None = None
    allow_dirty: bool = False
    verify: bool = True
    with_models: bool = True
    left_out: frozenset[str] = frozenset()
    engine: EngineSpec = field(default_factory=EngineSpec)
    question: ResolveRequest = field(
        default_factory=lambda: ResolveRequest(
            needs=RequirementSet(), python=DEFAULT_PYTHON, platforms=("linux-x86_64",)
        )
    )


# What is not ComfyUI's own in its folder, though the .gitignore of some fork may not say so.
_NOT_COMFYUI = frozenset(
    {
        *("custom_nodes", "models", "output", "input", "temp", "user"),
        *("venv", ".venv", "extra_model_paths.yaml"),
    }
)


@dataclass(slots=True)
class _CaptureNotes:
    """What was found, with every reason why something cannot be pinned, so that all are reported at once."""

    nodes: list[NodePin] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    # Every name that --leave-out could have meant.
    names: list[str] = field(default_factory=list)


def _no_problem(_: Path) -> str | None:
    return None


def capture_lock(
    capture_request: CaptureRequest,
    *,
    upstreams: Upstreams,
    digests: DigestCache,
    report: Callable[[str], None],
    find_problem: FindProblem = _no_problem,
) -> MadeLock:
    """Make a lock of an installed ComfyUI; `find_problem` says what is wrong with a model's file.

    Raises `NotComfyUI`, `CaptureRefused` (with every reason), `PackagesNowhere`.
    """
    capture_notes = _CaptureNotes()
    capture_request = _enter_comfyui(capture_request, capture_notes)
    folder = capture_request.folder
    report(f"reading {folder}")
    # Everything is looked at before anything is refused, so that a user sees all reasons in one run.
    checkout = read_checkout(folder, _NOT_COMFYUI)
    comfyui = _pin_comfyui(checkout, capture_request, capture_notes, upstreams)
    _pin_nodes(capture_request, capture_notes, upstreams)
    python, requirements = _installed_packages(capture_request, capture_notes)
    if capture_notes.reasons:
        raise CaptureRefused(where=str(folder), reasons=capture_notes.reasons)
    require_known(capture_request.left_out, capture_notes.names, where=str(folder))
    pins = pin_exactly(
        requirements,
        replace(capture_request.question, python=python, proxies=upstreams.proxies, wheels=upstreams.wheels),
        report,
    )
    _note_unmet(capture_request, pins, capture_notes)
    models = (
        _pin_models(capture_request, digests, capture_notes, report, find_problem)
        if capture_request.with_models
        else ()
    )
    lock = Lock(
        version_name=capture_request.name,
        comfyui=comfyui,
        custom_nodes=tuple(capture_notes.nodes),
        python=pins,
        models=models,
        engine=capture_request.engine,
    )
    return MadeLock(lock=lock, notes=(*capture_notes.notes, *package_notes(pins)))


def _note_unmet(capture_request: CaptureRequest, pins: PythonPins, capture_notes: _CaptureNotes) -> None:
    """Note what the installed packages lack of what ComfyUI and the nodes require, as their files there say it."""
    nodes_folder = capture_request.folder / "custom_nodes"
    folders = {"ComfyUI": capture_request.folder} | {
        f"the node {node.folder}": nodes_folder / node.folder for node in capture_notes.nodes
    }
    needs = sum(
        (read_source_requirements(_reader_of(folder), origin, frozenset()) for origin, folder in folders.items()),
        RequirementSet(),
    )
    python = pins.version or capture_request.question.python
    unmet = find_unmet(needs, pins, replace(capture_request.question, python=python))
    # Only noted: the env is a living one, which works as it is, or its owner knows.
    capture_notes.notes += [f"not satisfied: {unmet_need}" for unmet_need in unmet]


def _reader_of(folder: Path) -> Callable[[str], bytes | None]:
    def read(file_name: str) -> bytes | None:
        file_path = folder / file_name
        return file_path.read_bytes() if file_path.is_file() else None

    return read


def _pin_comfyui(
    checkout: Checkout | None, capture_request: CaptureRequest, capture_notes: _CaptureNotes, upstreams: Upstreams
) -> RepoPin | None:
    if checkout is None:
        capture_notes.reasons.append(
            f"{capture_request.folder} is not a git checkout, so nobody knows which ComfyUI it is"
            f"{_clone_hint(capture_request.folder)}"
        )
        return None
    node_pin = _pin_checkout("ComfyUI", checkout, capture_request, capture_notes, upstreams)
    return (
        None
        if node_pin is None
        else RepoPin(repo=node_pin.repo, ref=node_pin.ref, commit=node_pin.commit, patch=node_pin.patch)
    )


def _clone_hint(folder: Path) -> str:
    """Return how to get a checkout of the same version, if the folder says which version it is."""
    version_file = folder / "comfyui_version.py"
    version_text = version_file.read_text(errors="replace") if version_file.is_file() else ""
    version = re.search(r'__version__ = "([0-9.]+)"', version_text)
    if version is None:
        return ""
    return (
        f"; it says {version[1]}: git clone --branch v{version[1]} {COMFYUI} beside it, "
        "and move models, custom_nodes and the venv there"
    )


def _pin_checkout(
    subject: str,
    checkout: Checkout,
    capture_request: CaptureRequest,
    capture_notes: _CaptureNotes,
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


def _pin_nodes(capture_request: CaptureRequest, capture_notes: _CaptureNotes, upstreams: Upstreams) -> None:
    nodes_folder = capture_request.folder / "custom_nodes"
    # ComfyUI ships example nodes in custom_nodes; its commit pins them already.
    own_names = {
        tracked_path.split("/")[1]
        for tracked_path in _tracked_files(capture_request.folder)
        if tracked_path.startswith("custom_nodes/")
    }
    entries = sorted(nodes_folder.iterdir()) if nodes_folder.is_dir() else []
    capture_notes.names += [entry.name for entry in entries]
    wanted_paths = [node_path for node_path in entries if _is_wanted_node(node_path, own_names, capture_request)]
    capture_notes.notes += [
        f"the node {node_name} is disabled there, so it is left out" for node_name in _disabled_nodes(nodes_folder)
    ]

    def read_node(entry: Path) -> tuple[NodePin | None, _CaptureNotes]:
        node_notes = _CaptureNotes()
        return _pin_node(entry, capture_request, node_notes, upstreams), node_notes

    with ThreadPoolExecutor(WORKERS) as pool:
        for node_pin, node_notes in pool.map(read_node, wanted_paths):
            capture_notes.reasons += node_notes.reasons
            capture_notes.notes += node_notes.notes
            if node_pin is not None:
                capture_notes.nodes.append(node_pin)


def _tracked_files(folder: Path) -> frozenset[str]:
    return list_tracked_files(folder) if (folder / ".git").exists() else frozenset()


def _is_wanted_node(node_path: Path, own_names: set[str], capture_request: CaptureRequest) -> bool:
    # Caches, hidden folders, and what ComfyUI skips: `.disabled` packs and `.py.example` files.
    hidden = node_path.name.startswith((".", "__")) or node_path.name.endswith((".disabled", ".example"))
    return (
        not hidden
        and node_path.name not in own_names
        and not is_left_out(capture_request.left_out, node_path.name)
        and (node_path.is_dir() or node_path.suffix == ".py")
    )


def _disabled_nodes(nodes_folder: Path) -> Iterator[str]:
    """Yield nodes that ComfyUI-Manager has put aside, in its older and its newer way."""
    for folder, pattern in ((nodes_folder, "*.disabled"), (nodes_folder / ".disabled", "*")):
        yield from sorted(
            disabled_path.name.removesuffix(".disabled")
            for disabled_path in folder.glob(pattern)
            if disabled_path.is_dir() and disabled_path.name != ".disabled"
        )


def _pin_node(
    node_path: Path, capture_request: CaptureRequest, capture_notes: _CaptureNotes, upstreams: Upstreams
) -> NodePin | None:
    subject = f"the node {node_path.name}"
    if node_path.is_file():
        capture_notes.reasons.append(
            f"{subject} is a single file from no repository; leave it out with --leave-out {node_path.name}"
        )
        return None
    checkout = read_checkout(node_path)
    if checkout is not None:
        return _pin_checkout(subject, checkout, capture_request, capture_notes, upstreams)
    registry_identity = _read_registry_identity(node_path)
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


def _read_registry_identity(folder: Path) -> tuple[str, str] | None:
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


def _installed_packages(capture_request: CaptureRequest, capture_notes: _CaptureNotes) -> tuple[str, list[str]]:
    """Return the venv's Python version and its packages as requirements; note those that only this machine has."""
    interpreter = capture_request.interpreter or _find_interpreter(capture_request.folder)
    if interpreter is None:
        capture_notes.reasons.append("there is no venv beside it (.venv, venv); name one with --venv")
        return DEFAULT_PYTHON, []
    # `-I` keeps the user's own site-packages and PYTHONPATH out of the list.
    interpreter_run = run_program([interpreter, "-I", "-c", _LIST_PACKAGES], env=clean_environment(), timeout_s=120)
    if interpreter_run.exit_code:
        capture_notes.reasons.append(f"{interpreter} did not list its packages: {interpreter_run.error_summary}")
        return DEFAULT_PYTHON, []
    try:
        # The last line: a sitecustomize or a .pth file may print before it.
        interpreter_facts = json.loads(interpreter_run.stdout_text.strip().rpartition("\n")[2])
    except ValueError:
        capture_notes.reasons.append(f"{interpreter} did not answer like Python: {interpreter_run.stdout_text[:200]!r}")
        return DEFAULT_PYTHON, []
    requirements_by_name: dict[str, str] = {}
    for package in interpreter_facts["packages"]:
        package_name = str(package["name"])
        capture_notes.names.append(package_name)
        # pip comes with every venv and is no requirement of anything.
        if package_name.lower() == "pip" or is_left_out(capture_request.left_out, package_name):
            continue
        requirement_line = _package_requirement(package_name, str(package["version"]), package["direct"])
        if requirement_line is None:
            capture_notes.reasons.append(
                f"the package {package_name} {package['version']} is installed from this machine's own files; "
                f"leave it out with --leave-out {package_name}"
            )
        else:
            # A package may be found twice on the path; Python imports the first.
            requirements_by_name.setdefault(package_name.lower(), requirement_line)
    return str(interpreter_facts["python"]), list(requirements_by_name.values())


def _enter_comfyui(capture_request: CaptureRequest, capture_notes: _CaptureNotes) -> CaptureRequest:
    """Point the request at ComfyUI itself if it names its home, as COMFY_HOME does. Raises `NotComfyUI`."""
    named_folder = capture_request.folder
    if (named_folder / "main.py").is_file():
        return capture_request
    if not (named_folder / "ComfyUI" / "main.py").is_file():
        raise NotComfyUI(where=str(named_folder), lacks="main.py, nor a ComfyUI/main.py")
    models_folder = capture_request.models_dir
    if models_folder is None and (named_folder / "models").is_dir():
        models_folder = named_folder / "models"
        capture_notes.notes.append(f"the models are those in {models_folder}; --models-dir names another folder")
    return replace(capture_request, folder=named_folder / "ComfyUI", models_dir=models_folder)


def _find_interpreter(folder: Path) -> Path | None:
    for base in (folder, folder.parent):
        for folder_name in (".venv", "venv"):
            python = base / folder_name / "bin" / "python"
            if python.exists():
                return python
    return None


def _package_requirement(package_name: str, version: str, direct_url: object) -> str | None:
    """Return a package as pip would ask for it again (PEP 610), or None if only this machine has it."""
    if not isinstance(direct_url, dict):
        return f"{package_name}=={version}"
    package_url = str(direct_url.get("url", ""))
    vcs_info = direct_url.get("vcs_info")
    # pip records the commit that it installed, so a moved branch does no harm.
    if isinstance(vcs_info, dict) and vcs_info.get("vcs") == "git" and not package_url.startswith("file:"):
        return f"{package_name} @ git+{package_url}@{vcs_info.get('commit_id')}"
    if "archive_info" in direct_url and package_url.startswith(("http:", "https:")):
        return f"{package_name} @ {package_url}"
    return None


def _pin_models(
    capture_request: CaptureRequest,
    digests: DigestCache,
    survey: _CaptureNotes,
    report: Callable[[str], None],
    find_problem: FindProblem,
) -> tuple[ModelPin, ...]:
    """Pin the models, hashed in parallel. Nobody knows where they came from: users add their sources."""
    own = {
        capture_request.folder / tracked_path
        for tracked_path in _tracked_files(capture_request.folder)
        if tracked_path.startswith("models/")
    }
    installed_models = find_models(
        capture_request.folder,
        capture_request.models_dir or capture_request.folder / "models",
        left_out=own,
        find_problem=find_problem,
    )
    survey.notes += installed_models.notes
    if installed_models.files:
        total = sum(model_path.stat().st_size for model_path in installed_models.files.values())
        report(f"hashing {format_count(len(installed_models.files), 'model')}, {total / 1e9:.2f} GB")
    # hashlib releases the GIL, so threads hash on all cores.
    with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
        model_digests = list(pool.map(digests.digest_of, installed_models.files.values()))
    return tuple(
        ModelPin(
            name=model_path.name,
            target_path=f"$MODELS_DIR/{relative_target}",
            sha256=digest,
            size_bytes=model_path.stat().st_size,
        )
        for (relative_target, model_path), digest in zip(installed_models.files.items(), model_digests, strict=True)
    )

"""A lock from a ComfyUI that lives: its commits, its venv's packages, its models. The folder is only read."""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from comfypin.addresses import hide_credentials
from comfypin.digest import Digest
from comfypin.digest_cache import DigestCache
from comfypin.errors import EnvError
from comfypin.lock.model import Lock, ModelPin, NodePin, RepoPin
from comfypin.lock.requirements import Needs
from comfypin.locking.create import Made, package_notes, pin_all
from comfypin.locking.errors import CaptureRefused, NotComfyUI
from comfypin.locking.installed_models import find_models
from comfypin.locking.node_registry import SCHEME
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.resolve import Question
from comfypin.locking.sources import Places, node_pin, read_part
from comfypin.tools.git_remote import Checkout, diff_checkout, list_tracked_files, read_checkout
from comfypin.tools.process import run_program
from comfypin.tools.uv import clean_environment

WORKERS = 8
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
class CaptureWishes:
    """How a ComfyUI is to be captured.

    `allow_dirty` stores changes as diffs; `verify` asks every remote for its commit; `left_out` are folders of nodes
    and names of packages that are not wanted.
    """

    name: str
    folder: Path
    interpreter: Path | None = None
    models_dir: Path | None = None
    allow_dirty: bool = False
    verify: bool = True
    with_models: bool = True
    left_out: frozenset[str] = frozenset()
    question: Question = field(
        default_factory=lambda: Question(needs=Needs(), python="3.12", platforms=("linux-x86_64",))
    )


# What is not ComfyUI's own in its folder, though the .gitignore of some fork may not say so.
_APART = frozenset(
    {
        *("custom_nodes", "models", "output", "input", "temp", "user"),
        *("venv", ".venv", "extra_model_paths.yaml"),
    }
)


@dataclass(slots=True)
class _Survey:
    """What was found, and everything that cannot be pinned, to be said at once."""

    nodes: list[NodePin] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def capture(wishes: CaptureWishes, *, places: Places, digests: DigestCache, tell: Callable[[str], None]) -> Made:
    """Make a lock of a living ComfyUI. Raises `NotComfyUI`, `CaptureRefused` (with every reason), `PackagesNowhere`."""
    survey = _Survey()
    wishes = _in_comfyui(wishes, survey)
    folder = wishes.folder
    tell(f"reading {folder}")
    checkout = read_checkout(folder, _APART)
    comfyui = _comfyui(checkout, wishes, survey, places)
    _nodes(wishes, survey, places)
    python, requirements = _installed(wishes, survey)
    if survey.reasons:
        raise CaptureRefused(where=str(folder), reasons=survey.reasons)
    pins = pin_all(requirements, replace(wishes.question, python=python, proxies=places.proxies), tell)
    models = _models(wishes, digests, survey, tell) if wishes.with_models else ()
    digests.save()
    lock = Lock(
        version_name=wishes.name,
        comfyui=comfyui,
        custom_nodes=tuple(survey.nodes),
        python=pins,
        models=models,
    )
    return Made(lock=lock, notes=(*survey.notes, *package_notes(pins)))


def _comfyui(checkout: Checkout | None, wishes: CaptureWishes, survey: _Survey, places: Places) -> RepoPin | None:
    if checkout is None:
        survey.reasons.append(f"{wishes.folder} is no git checkout, so nobody knows which ComfyUI it is")
        return None
    pin = _repo_pin("ComfyUI", checkout, wishes, survey, places)
    return None if pin is None else RepoPin(repo=pin.repo, ref=pin.ref, commit=pin.commit, patch=pin.patch)


def _repo_pin(what: str, checkout: Checkout, wishes: CaptureWishes, survey: _Survey, places: Places) -> NodePin | None:
    """The pin of a checkout; None with a reason where no other machine could have it."""
    if checkout.remote is None:
        survey.reasons.append(f"{what} has no git remote, so no other machine can fetch it")
        return None
    remote = _shareable(checkout.remote)
    patch = None
    if checkout.changed and not wishes.allow_dirty:
        named = ", ".join(checkout.changed[:5]) + (", ..." if len(checkout.changed) > 5 else "")
        survey.reasons.append(f"{what} has changes ({named}); commit them, or store them with --allow-dirty")
        return None
    if checkout.changed:
        patch = diff_checkout(checkout) or None
        survey.notes.append(f"{what} has changes in {len(checkout.changed)} files; the lock holds them as a diff")
    script = None
    if wishes.verify:
        try:
            spec = RepoSpec(repo=remote, ref=checkout.commit, folder=checkout.folder.name)
            script = read_part(spec, origin=what, places=places).install_script
        except EnvError as error:
            survey.reasons.append(f"{what}: {error.message} (--no-verify takes the commit unasked)")
            return None
    elif (checkout.folder / "install.py").is_file():
        script = (checkout.folder / "install.py").read_bytes()
    return NodePin(
        name=checkout.folder.name,
        repo=remote,
        ref=checkout.branch,
        commit=checkout.commit,
        patch=patch,
        install_script_sha256=None if script is None else Digest.of(script),
    )


def _shareable(remote: str) -> str:
    """A remote without a user's token; a path becomes a URL."""
    return Path(remote).resolve().as_uri() if remote.startswith(("/", ".", "~")) else _without_user(remote)


def _without_user(remote: str) -> str:
    return hide_credentials(remote) if urlsplit(remote).scheme in ("http", "https") else remote


def _nodes(wishes: CaptureWishes, survey: _Survey, places: Places) -> None:
    root = wishes.folder / "custom_nodes"
    own = {name.split("/")[1] for name in _tracked(wishes.folder) if name.startswith("custom_nodes/")}
    entries = sorted(root.iterdir()) if root.is_dir() else []
    wanted = [entry for entry in entries if _is_node(entry, own, wishes)]
    survey.notes += [f"the node {name} is disabled there, so it is left out" for name in _disabled(root)]

    def read(entry: Path) -> tuple[NodePin | None, _Survey]:
        part = _Survey()
        return _node(entry, wishes, part, places), part

    with ThreadPoolExecutor(WORKERS) as pool:
        for pin, part in pool.map(read, wanted):
            survey.reasons += part.reasons
            survey.notes += part.notes
            if pin is not None:
                survey.nodes.append(pin)


def _tracked(folder: Path) -> frozenset[str]:
    return list_tracked_files(folder) if (folder / ".git").exists() else frozenset()


def _is_node(entry: Path, own: set[str], wishes: CaptureWishes) -> bool:
    hidden = entry.name.startswith((".", "__")) or entry.name.endswith((".disabled", ".example"))
    return (
        not hidden
        and entry.name not in own
        and entry.name not in wishes.left_out
        and (entry.is_dir() or entry.suffix == ".py")
    )


def _disabled(root: Path) -> Iterator[str]:
    """Nodes that ComfyUI-Manager has put aside, in its older and its newer way."""
    for folder, pattern in ((root, "*.disabled"), (root / ".disabled", "*")):
        yield from sorted(
            path.name.removesuffix(".disabled")
            for path in folder.glob(pattern)
            if path.is_dir() and path.name != ".disabled"
        )


def _node(entry: Path, wishes: CaptureWishes, survey: _Survey, places: Places) -> NodePin | None:
    what = f"the node {entry.name}"
    if entry.is_file():
        survey.reasons.append(f"{what} is a single file from no repository; leave it out with --leave-out {entry.name}")
        return None
    checkout = read_checkout(entry)
    if checkout is not None:
        return _repo_pin(what, checkout, wishes, survey, places)
    found = _registry_identity(entry)
    if found is None:
        survey.reasons.append(
            f"{what} is neither a git checkout nor from the node registry; leave it out with --leave-out {entry.name}"
        )
        return None
    try:
        spec = RepoSpec(repo=f"{SCHEME}{found[0]}", ref=found[1], folder=entry.name)
        return node_pin(read_part(spec, origin=what, places=places), frozenset())
    except EnvError as error:
        survey.reasons.append(f"{what} {found[1]} of the node registry: {error.message}")
        return None


def _registry_identity(folder: Path) -> tuple[str, str] | None:
    """The id and version of a pack that ComfyUI-Manager installed from the registry; it leaves a .tracking file."""
    import tomllib

    if not (folder / ".tracking").is_file():
        return None
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8-sig")).get("project", {})
    except (OSError, ValueError):
        return None
    name, version = (project.get("name"), project.get("version")) if isinstance(project, dict) else (None, None)
    return (name, version) if isinstance(name, str) and isinstance(version, str) else None


def _installed(wishes: CaptureWishes, survey: _Survey) -> tuple[str, list[str]]:
    """The Python version of the venv, and its packages as requirements; what is from this machine alone is a reason."""
    interpreter = wishes.interpreter or _find_interpreter(wishes.folder)
    if interpreter is None:
        survey.reasons.append("there is no venv beside it (.venv, venv); name its interpreter with --venv")
        return "3.12", []
    asked = run_program([interpreter, "-I", "-c", _LIST_PACKAGES], env=clean_environment(), timeout_s=120)
    if asked.exit_code:
        survey.reasons.append(f"{interpreter} cannot say its packages: {asked.error_summary}")
        return "3.12", []
    try:
        facts = json.loads(asked.stdout_text.strip().rpartition("\n")[2])
    except ValueError:
        survey.reasons.append(f"{interpreter} does not answer as Python does: {asked.stdout_text[:200]!r}")
        return "3.12", []
    lines: dict[str, str] = {}
    for package in facts["packages"]:
        name = str(package["name"])
        if name.lower() in {"pip", *(item.lower() for item in wishes.left_out)}:
            continue
        line = _requirement(name, str(package["version"]), package["direct"])
        if line is None:
            survey.reasons.append(
                f"the package {name} {package['version']} is installed from this machine's own files; "
                f"leave it out with --leave-out {name}"
            )
        else:
            lines.setdefault(name.lower(), line)
    return str(facts["python"]), list(lines.values())


def _in_comfyui(wishes: CaptureWishes, survey: _Survey) -> CaptureWishes:
    """The wishes for the ComfyUI itself, if its home was named, as COMFY_HOME names it. Raises `NotComfyUI`."""
    home = wishes.folder
    if (home / "main.py").is_file():
        return wishes
    if not (home / "ComfyUI" / "main.py").is_file():
        raise NotComfyUI(where=str(home), lacks="main.py, nor a ComfyUI/main.py")
    models = wishes.models_dir
    if models is None and (home / "models").is_dir():
        models = home / "models"
        survey.notes.append(f"the models are those in {models}; --models-dir names another folder")
    return replace(wishes, folder=home / "ComfyUI", models_dir=models)


def _find_interpreter(folder: Path) -> Path | None:
    for base in (folder, folder.parent):
        for name in (".venv", "venv"):
            python = base / name / "bin" / "python"
            if python.exists():
                return python
    return None


def _requirement(name: str, version: str, direct: object) -> str | None:
    """A package as pip would ask for it again (PEP 610), None where only this machine has it."""
    if not isinstance(direct, dict):
        return f"{name}=={version}"
    url = str(direct.get("url", ""))
    vcs = direct.get("vcs_info")
    if isinstance(vcs, dict) and vcs.get("vcs") == "git" and not url.startswith("file:"):
        return f"{name} @ git+{url}@{vcs.get('commit_id')}"
    if "archive_info" in direct and url.startswith(("http:", "https:")):
        return f"{name} @ {url}"
    return None


def _models(
    wishes: CaptureWishes, digests: DigestCache, survey: _Survey, tell: Callable[[str], None]
) -> tuple[ModelPin, ...]:
    """The models, hashed in parallel. Nobody knows where they came from: their sources are to be added."""
    own = {wishes.folder / name for name in _tracked(wishes.folder) if name.startswith("models/")}
    found = find_models(wishes.folder, wishes.models_dir or wishes.folder / "models", left_out=own)
    survey.notes += found.notes
    if found.files:
        total = sum(path.stat().st_size for path in found.files.values())
        tell(f"hashing {len(found.files)} models, {total / 1e9:.2f} GB")
    with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
        hashed = list(pool.map(digests.digest_of, found.files.values()))
    return tuple(
        ModelPin(name=path.name, target_path=f"$MODELS_DIR/{target}", sha256=digest, size_bytes=path.stat().st_size)
        for (target, path), digest in zip(found.files.items(), hashed, strict=True)
    )

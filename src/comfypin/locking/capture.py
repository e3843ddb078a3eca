"""Captures a lock from an installed ComfyUI: its commits, its venv's packages, its models. The folder is only read."""

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from comfypin.digest_cache import DigestCache
from comfypin.lock.model import Lock, ModelPin, PythonPins, RepoPin
from comfypin.lock.requirements import RequirementSet
from comfypin.locking.capture_request import CaptureNotes, CaptureRequest
from comfypin.locking.captured_nodes import WORKERS, pin_checkout, pin_nodes, tracked_files
from comfypin.locking.captured_packages import installed_packages
from comfypin.locking.create import MadeLock, package_notes, pin_exactly
from comfypin.locking.errors import CaptureRefused, NotComfyUI
from comfypin.locking.installed_models import find_models
from comfypin.locking.left_out import require_known
from comfypin.locking.missing_packages import find_unmet
from comfypin.locking.model_suspicions import FindProblem
from comfypin.locking.release_files.document import COMFYUI
from comfypin.locking.sources import Upstreams, read_source_requirements
from comfypin.plurals import format_count
from comfypin.tools.git_remote import Checkout, read_checkout

# What is not ComfyUI's own in its folder, though the .gitignore of some fork may not say so.
_NOT_COMFYUI = frozenset(
    {
        *("custom_nodes", "models", "output", "input", "temp", "user"),
        *("venv", ".venv", "extra_model_paths.yaml"),
    }
)


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
    capture_notes = CaptureNotes()
    capture_request = _enter_comfyui(capture_request, capture_notes)
    folder = capture_request.folder
    report(f"reading {folder}")
    # Everything is looked at before anything is refused, so that a user sees all reasons in one run.
    checkout = read_checkout(folder, _NOT_COMFYUI)
    comfyui = _pin_comfyui(checkout, capture_request, capture_notes, upstreams)
    pin_nodes(capture_request, capture_notes, upstreams)
    python, requirements = installed_packages(capture_request, capture_notes)
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


def _note_unmet(capture_request: CaptureRequest, pins: PythonPins, capture_notes: CaptureNotes) -> None:
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
    checkout: Checkout | None, capture_request: CaptureRequest, capture_notes: CaptureNotes, upstreams: Upstreams
) -> RepoPin | None:
    if checkout is None:
        capture_notes.reasons.append(
            f"{capture_request.folder} is not a git checkout, so nobody knows which ComfyUI it is"
            f"{_clone_hint(capture_request.folder)}"
        )
        return None
    node_pin = pin_checkout("ComfyUI", checkout, capture_request, capture_notes, upstreams)
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


def _enter_comfyui(capture_request: CaptureRequest, capture_notes: CaptureNotes) -> CaptureRequest:
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


def _pin_models(
    capture_request: CaptureRequest,
    digests: DigestCache,
    survey: CaptureNotes,
    report: Callable[[str], None],
    find_problem: FindProblem,
) -> tuple[ModelPin, ...]:
    """Pin the models, hashed in parallel. Nobody knows where they came from: users add their sources."""
    own = {
        capture_request.folder / tracked_path
        for tracked_path in tracked_files(capture_request.folder)
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

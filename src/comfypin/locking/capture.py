"""Captures a lock from an installed ComfyUI: its commits, its venv's packages, its models. The folder is only read."""

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from comfypin.addresses import hide_credentials
from comfypin.digest_cache import DigestCache
from comfypin.lock.model import Lock, ModelPin, PythonPins, RepoPin
from comfypin.lock.requirements import RequirementSet
from comfypin.locking.capture_request import CaptureNotes, CaptureRequest
from comfypin.locking.captured_nodes import (
    NOT_COMFYUI,
    SHIPPED_FILES,
    WORKERS,
    pin_checkout,
    pin_nodes,
    read_comfyui_version,
    without_own_folders,
)
from comfypin.locking.captured_packages import installed_packages
from comfypin.locking.create import MadeLock, package_notes, pin_exactly
from comfypin.locking.errors import CaptureRefused, NotComfyUI
from comfypin.locking.installed_models import find_models
from comfypin.locking.installed_requirements import UnmetRequirement
from comfypin.locking.left_out import require_known
from comfypin.locking.missing_packages import find_unmet, missing_for_comfyui, note_unmet
from comfypin.locking.model_suspicions import FindProblem
from comfypin.locking.repository_refs import COMFYUI, RepoSpec
from comfypin.locking.sources import Upstreams, read_source_requirements
from comfypin.plurals import format_count, format_size
from comfypin.tools.git_overlay import overlay_checkout
from comfypin.tools.git_remote import Checkout, list_tracked_files, read_checkout, resolve_ref


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
    with _open_checkout(capture_request, upstreams) as checkout_folder:
        checkout = read_checkout(checkout_folder, NOT_COMFYUI)
        capture_notes.own_files = SHIPPED_FILES if checkout is None else list_tracked_files(checkout_folder)
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
    unmet = _find_unmet_needs(capture_request, pins, capture_notes)
    # Only noted: the env is a living one, which works as it is, or its owner knows.
    capture_notes.notes += note_unmet(unmet)
    models = (
        _pin_models(capture_request, digests, capture_notes, report, find_problem)
        if capture_request.with_models
        else ()
    )
    lock = Lock(
        version_name=capture_request.name,
        comfyui=comfyui,
        custom_nodes=tuple(capture_notes.nodes),
        python=replace(pins, requirements=missing_for_comfyui(unmet)),
        models=models,
        engine=capture_request.engine,
    )
    return MadeLock(lock=lock, notes=(*capture_notes.notes, *package_notes(pins)))


def _find_unmet_needs(
    capture_request: CaptureRequest, pins: PythonPins, capture_notes: CaptureNotes
) -> tuple[UnmetRequirement, ...]:
    """Return what the installed packages lack of what ComfyUI and the nodes require, as their files there say it."""
    nodes_folder = capture_request.folder / "custom_nodes"
    folders = {"ComfyUI": capture_request.folder} | {
        f"the node {node.folder}": nodes_folder / node.folder for node in capture_notes.nodes
    }
    needs = sum(
        (read_source_requirements(_reader_of(folder), origin, frozenset()) for origin, folder in folders.items()),
        RequirementSet(),
    )
    python = pins.version or capture_request.question.python
    return find_unmet(needs, pins, replace(capture_request.question, python=python))


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
            f"{capture_request.folder} is not a git checkout, so nobody knows which ComfyUI it is; name its commit, "
            f"which its files are compared with: {_suggest_flag(capture_request.folder)}"
        )
        return None
    named = capture_request.comfyui
    ref = checkout.branch
    if named is not None:
        if (capture_request.folder / ".git").exists():
            capture_notes.reasons.append(
                f"{capture_request.folder} is a git checkout and says itself which commit it is; omit --comfyui"
            )
            return None
        checkout = without_own_folders(checkout, capture_request.folder)
        if checkout.changed and not capture_request.allow_dirty:
            capture_notes.reasons.append(_say_differences(checkout, capture_request.folder, named))
            return None
        # A commit is no ref, as in locks that are created.
        ref = None if checkout.commit.startswith((named.ref or "").lower()) else named.ref
    node_pin = pin_checkout("ComfyUI", checkout, capture_request, capture_notes, upstreams)
    return (
        None if node_pin is None else RepoPin(repo=node_pin.repo, ref=ref, commit=node_pin.commit, patch=node_pin.patch)
    )


@contextlib.contextmanager
def _open_checkout(capture_request: CaptureRequest, upstreams: Upstreams) -> Iterator[Path]:
    """Give the folder in which git can say how ComfyUI's files differ from its commit, which --comfyui may name."""
    folder, named = capture_request.folder, capture_request.comfyui
    if named is None or (folder / ".git").exists():
        yield folder
        return
    commit = resolve_ref(named.repo, named.ref)
    repository = upstreams.commits.obtain_repository(named.repo, commit)
    with overlay_checkout(folder, repository, commit, named.repo) as overlay_folder:
        yield overlay_folder


def _say_differences(checkout: Checkout, folder: Path, named: RepoSpec) -> str:
    shown = [path if (folder / path).exists() else f"{path} is missing" for path in checkout.changed[:5]]
    files = ", ".join(shown) + (", ..." if len(checkout.changed) > 5 else "")
    return (
        f"ComfyUI differs from {hide_credentials(named.repo)}@{named.ref or checkout.commit} in "
        f"{format_count(len(checkout.changed), 'file')} ({files}); name the right commit with --comfyui, or store the "
        "differences with --allow-dirty"
    )


def _suggest_flag(folder: Path) -> str:
    """Return the flag that names ComfyUI's commit, with the version that the folder says it is."""
    version = read_comfyui_version(folder)
    return "--comfyui URL@REF" if version is None else f"--comfyui {COMFYUI}@v{version}"


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
        capture_request.folder / tracked_path for tracked_path in survey.own_files if tracked_path.startswith("models/")
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
        report(f"hashing {format_count(len(installed_models.files), 'model')}, {format_size(total)}")
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

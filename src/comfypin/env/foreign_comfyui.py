"""Compares a ComfyUI that comfypin did not install with a lock: commits, node packs, packages, models. Only reads."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.env.interpreter import describe_interpreter
from comfypin.env.layout import COMFYUI_FOLDER, Home
from comfypin.env.package_drifts import is_same_version
from comfypin.env.package_selection import choose_target, normalize_name, select_packages
from comfypin.env.receipt import read_receipt
from comfypin.errors import ComfypinError
from comfypin.lock.check import is_commit
from comfypin.lock.codec import env_digest
from comfypin.lock.model import Lock, NodePin, RepoPin
from comfypin.locking.captured_nodes import (
    NOT_COMFYUI,
    SHIPPED_FILES,
    find_loaded_nodes,
    read_comfyui_version,
    read_registry_identity,
    without_own_folders,
)
from comfypin.locking.captured_packages import list_installed
from comfypin.models.target_paths import TargetRoots, list_targets
from comfypin.tools.errors import CommitNotHere
from comfypin.tools.git import CommitSource
from comfypin.tools.git_overlay import overlay_checkout
from comfypin.tools.git_remote import diff_checkout, list_tracked_files, read_checkout

if TYPE_CHECKING:
    from comfypin.env.package_selection import Interpreter

# Every venv has it, and no lock does.
_NOT_LOCKED = frozenset({"pip"})


def is_realized_from(lock: Lock, home: Path) -> bool:
    """Return whether a home, or a folder that is a build itself, holds the env of this lock."""
    link = Home(root=home).current_link
    receipt = read_receipt(link if link.is_symlink() else home)
    return receipt is not None and receipt.env_digest == env_digest(lock)


def find_main_script(home: Path) -> Path | None:
    """Return ComfyUI's main.py in its home, or in the folder itself."""
    scripts = (home / COMFYUI_FOLDER / "main.py", home / "main.py")
    return next((script for script in scripts if script.is_file()), None)


def find_differences(
    lock: Lock, comfyui: Path, python: Path | None, roots: TargetRoots, commits: CommitSource
) -> list[str]:
    """Return what of a ComfyUI is not as the lock says, or cannot be known; empty if all that is compared is the same.

    Models are compared by path and size: reading them takes minutes. Folders without `.git` are compared with their
    commits if `commits` has these already. Raises nothing for what cannot be read: it is in the list.
    """
    differences: list[str] = []
    parts = (
        _compare_comfyui(lock.comfyui, comfyui, commits),
        _compare_nodes(lock, comfyui, commits),
        _compare_packages(lock, python),
        _compare_models(lock, roots),
    )
    for part in parts:
        try:
            differences.extend(part)
        except ComfypinError as error:
            differences.append(error.message.rstrip("."))
        except (OSError, ValueError) as error:
            differences.append(f"a part of it cannot be read ({error})")
    return differences


def _compare_comfyui(pin: RepoPin | None, folder: Path, commits: CommitSource) -> Iterator[str]:
    if pin is None or pin.commit is None:
        yield "the lock pins no commit of ComfyUI"
        return
    version, locked = read_comfyui_version(folder), (pin.ref or "").removeprefix("v")
    # Equal versions prove little, since development goes on under the last one; different ones are a difference.
    if not (folder / ".git").exists() and version is not None and locked[:1].isdigit() and version != locked:
        yield f"ComfyUI is {version}, the lock says {locked}"
        return
    yield from _compare_checkout("ComfyUI", folder, pin, commits, NOT_COMFYUI)


def _compare_checkout(
    subject: str,
    folder: Path,
    pin: RepoPin | NodePin,
    commits: CommitSource,
    ignored_names: frozenset[str] = frozenset(),
) -> Iterator[str]:
    with _open_checkout(folder, pin, commits) as checkout_folder:
        checkout = read_checkout(checkout_folder, ignored_names)
        if checkout is not None and ignored_names:
            checkout = without_own_folders(checkout, folder)
        if checkout is None:
            yield (
                f"{subject} has no .git, and commit {(pin.commit or 'none')[:12]} is not in comfypin's cache, so its "
                "files cannot be compared (comfypin realize of this lock fetches the commit, or use git clone)"
            )
        elif checkout.commit != pin.commit:
            yield f"{subject} is at commit {checkout.commit[:12]}, the lock says {(pin.commit or 'none')[:12]}"
        elif (diff_checkout(checkout) if checkout.changed else "") != (pin.patch or ""):
            changed = ", ".join(checkout.changed[:3]) or "none of the lock's changes is there"
            yield f"{subject} has other changes than the lock ({changed})"


@contextlib.contextmanager
def _open_checkout(folder: Path, pin: RepoPin | NodePin, commits: CommitSource) -> Iterator[Path]:
    """Give the folder in which git can say how the files differ from the commit; the folder itself if nothing can."""
    repository = None
    if pin.repo is not None and is_commit(pin.commit) and not (folder / ".git").exists():
        # Only what is here already: no job waits for a clone.
        with contextlib.suppress(CommitNotHere):
            repository = replace(commits, offline=True).obtain_repository(pin.repo, str(pin.commit))
    if repository is None:
        yield folder
        return
    with overlay_checkout(folder, repository, str(pin.commit), str(pin.repo)) as overlay_folder:
        yield overlay_folder


def _compare_nodes(lock: Lock, comfyui: Path, commits: CommitSource) -> Iterator[str]:
    own_files = list_tracked_files(comfyui) if (comfyui / ".git").exists() else SHIPPED_FILES
    loaded = {node_path.name: node_path for node_path in find_loaded_nodes(comfyui, own_files)}
    for pin in sorted(lock.custom_nodes, key=lambda node_pin: node_pin.folder):
        folder = loaded.pop(pin.folder, None)
        if folder is None:
            yield f"the node {pin.folder} is not there"
        elif pin.archive is None:
            yield from _compare_checkout(f"the node {pin.folder}", folder, pin, commits)
        else:
            identity = read_registry_identity(folder)
            if identity is None or identity[1] != pin.ref:
                found = "of no known version" if identity is None else identity[1]
                yield f"the node {pin.folder} is {found}, the lock says {pin.ref or 'an archive without a version'}"
    yield from (f"the node {folder_name} is not in the lock" for folder_name in sorted(loaded))


def _compare_packages(lock: Lock, python: Path | None) -> Iterator[str]:
    if python is None:
        yield "its Python was not found (--python names it), so its packages are not known"
        return
    interpreter = describe_interpreter(python)
    wanted_python = ".".join((lock.python.version or "").split(".")[:2])
    if wanted_python and interpreter.minor_version != wanted_python:
        yield f"its Python is {interpreter.version}, the lock says {lock.python.version}"
    pinned = _pinned_versions(lock, interpreter)
    installed: dict[str, str] = {}
    for package in list_installed(python).packages:
        # A package may be found twice on the path; Python imports the first.
        installed.setdefault(normalize_name(package.name), package.version)
    for name, version in sorted(pinned.items()):
        if name not in installed:
            yield f"the package {name} {version} is not installed"
        elif not is_same_version(version, installed[name]):
            yield f"the package {name} is {installed[name]}, the lock says {version}"
    for name in sorted(installed.keys() - pinned.keys() - _NOT_LOCKED):
        yield f"the package {name} {installed[name]} is not in the lock"


def _pinned_versions(lock: Lock, interpreter: "Interpreter") -> dict[str, str]:
    """Return the versions of the lock's packages for this Python. Raises `TargetMissing`, `WheelUnfit`."""
    target = choose_target(lock, interpreter.machine, None)
    return {normalize_name(pin.name): pin.version for pin in select_packages(lock, target, interpreter)}


def _compare_models(lock: Lock, roots: TargetRoots) -> Iterator[str]:
    for pin, path in list_targets(lock, roots):
        try:
            size = path.stat().st_size
        except OSError:
            yield f"the model {pin.name} is not at {pin.target_path}"
            continue
        if pin.size_bytes is not None and size != pin.size_bytes:
            yield f"the model {pin.name} has {size:,} bytes, the lock says {pin.size_bytes:,}"

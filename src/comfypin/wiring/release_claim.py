"""Decides which release results may claim: the lock's only if what runs was realized from it or compared with it."""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from comfypin.addresses import hide_credentials
from comfypin.errors import EngineError
from comfypin.wiring.envs import holds_foreign_comfyui, make_lock_places

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from comfypin.lock.model import Lock, Release
    from comfypin.wiring.engines import EngineChoice

log = logging.getLogger(__name__)

# Whoever must know the rest compares the lock with `lock capture`.
_SHOWN = 3


def name_release(lock: "Lock | None", choice: "EngineChoice", *, is_logged: bool = True) -> "Release":
    """Return the release that this engine is known to run; if it is none, the doubt says why, and is logged.

    `is_logged` is False if the caller shows the job's warnings, which say the same.

    An env of ours is the lock's, since `ensure_env` refuses any other. A ComfyUI of the user's is compared with the
    lock, which takes about a second. It blocks; call it where no event loop runs.
    """
    from comfypin.lock.codec import release_identity
    from comfypin.lock.model import UNPINNED, Release

    if lock is None:
        return UNPINNED
    doubt = _find_doubt(lock, choice)
    if doubt is None:
        return release_identity(lock)
    release = Release(name=UNPINNED.name, digest=None, doubt=doubt)
    if is_logged:
        log.warning("unpinned", extra={"action": "unpinned", "reason": doubt, "lock": lock.version_name})
    return release


def _find_doubt(lock: "Lock", choice: "EngineChoice") -> str | None:
    if choice.kind == "remote":
        return _doubt_of_address(lock, choice)
    if choice.kind != lock.engine.kind:
        names = {"embedded": "the built-in engine", "comfyui": "a ComfyUI", "remote": "a ComfyUI at an address"}
        return f"{names[choice.kind]} runs, and the lock {lock.version_name} is for {names[lock.engine.kind]}."
    is_own_env = choice.model_settings is not None or not holds_foreign_comfyui(choice.settings)
    if choice.kind == "embedded" or is_own_env:
        return None
    return _doubt_of_folder(lock, choice, choice.settings.machine.comfy_home)


def _doubt_of_folder(lock: "Lock", choice: "EngineChoice", home: Path) -> str | None:
    from comfypin.engine.command import choose_python
    from comfypin.env.foreign_comfyui import find_differences, find_main_script, is_realized_from
    from comfypin.models.target_paths import TargetRoots

    if is_realized_from(lock, home):
        return None
    main_script = find_main_script(home)
    if main_script is None:
        return f"{home} holds no ComfyUI, so nothing could be compared with the lock {lock.version_name}."
    machine = choice.settings.machine
    python = None
    with contextlib.suppress(EngineError):
        python = choose_python(home, main_script, choice.settings.variables, named_python=machine.comfy_python)
    # Without a folder of its own that is named, ComfyUI reads its own one.
    has_models_dir = machine.named_models_dir or machine.models_dir.is_dir()
    models_dir = machine.models_dir if has_models_dir else main_script.parent / "models"
    roots = TargetRoots(models_dir=models_dir.absolute(), comfy_home=home.absolute())
    commits = make_lock_places(choice.settings).commits
    differences = find_differences(lock, main_script.parent, python, roots, commits)
    return _say_differences(f"the ComfyUI in {home}", lock, differences) if differences else None


def _doubt_of_address(lock: "Lock", choice: "EngineChoice") -> str | None:
    address = hide_credentials(choice.spec.url or "")
    subject = f"the ComfyUI at {address}"
    try:
        told = asyncio.run(_ask_system(choice.spec.url or ""))
    except EngineError as error:
        return f"{subject} could not be compared with the lock {lock.version_name}: {error.message}"
    differences = _compare_told(lock, told)
    if differences:
        return _say_differences(subject, lock, differences)
    if choice.url_home is None:
        return (
            f"{subject} was not compared with the lock {lock.version_name}: an address tells no commits and no "
            "packages. If it runs on this machine, name its folder with --comfy-home."
        )
    if not _runs_from(choice.url_home, told, urlsplit(address).hostname):
        return (
            f"{subject} does not say that it runs from {choice.url_home} on this machine; start it by the whole path "
            "of its main.py, so that its folder can be compared with the lock."
        )
    return _doubt_of_folder(lock, choice, choice.url_home)


async def _ask_system(url: str) -> "Mapping[str, object]":
    """Return what /system_stats tells of the system. Raises `EngineError`."""
    from comfypin.engine.http_transport import EngineTimeouts
    from comfypin.engine.remote import read_system

    return await read_system(url, timeouts=EngineTimeouts(connect_s=5.0, request_s=10.0))


def _compare_told(lock: "Lock", told: "Mapping[str, object]") -> list[str]:
    """Return what a ComfyUI tells of itself that is not as the lock says."""
    from comfypin.env.package_drifts import is_same_version

    torch = next((pin.version for pin in lock.python.packages if pin.name.lower() == "torch"), None)
    ref = lock.comfyui.ref if lock.comfyui is not None else None
    version = ref.removeprefix("v") if ref is not None and ref.removeprefix("v")[:1].isdigit() else None
    wanted = {"comfyui_version": ("ComfyUI", version), "pytorch_version": ("torch", torch)}
    differences = []
    for field, (subject, locked) in wanted.items():
        found = told.get(field)
        if isinstance(found, str) and locked is not None and not is_same_version(found.removeprefix("v"), locked):
            differences.append(f"{subject} is {found}, the lock says {locked}")
    python_words = str(told.get("python_version") or "").split()
    found_python = ".".join(python_words[0].split(".")[:2]) if python_words else ""
    locked_python = ".".join((lock.python.version or "").split(".")[:2])
    if found_python and locked_python and found_python != locked_python:
        differences.append(f"its Python is {found_python}, the lock says {locked_python}")
    return differences


def _runs_from(home: Path, told: "Mapping[str, object]", host: str | None) -> bool:
    """Return whether the process at an address of this machine says that it is the main.py of this home."""
    from comfypin.env.foreign_comfyui import find_main_script

    arguments, main_script = told.get("argv"), find_main_script(home)
    if host not in ("127.0.0.1", "localhost", "::1") or main_script is None:
        return False
    if not isinstance(arguments, list) or not arguments or not Path(str(arguments[0])).is_absolute():
        return False
    try:
        return Path(str(arguments[0])).samefile(main_script)
    except (OSError, ValueError):
        return False


def _say_differences(subject: str, lock: "Lock", differences: "Sequence[str]") -> str:
    more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    return f"{subject} is not known to be the lock {lock.version_name}: {'; '.join(differences[:_SHOWN])}{more}."

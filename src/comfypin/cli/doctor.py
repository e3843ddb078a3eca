"""Say what this machine has and lacks for running releases: Python, tools, a GPU, an engine, extras, buckets, disk."""

import argparse
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from comfypin import __version__
from comfypin.atomic_files import free_bytes
from comfypin.errors import ComfypinError
from comfypin.outputs.modes import OutputMode, named_mode
from comfypin.settings.environment import Settings
from comfypin.settings.machine import MachineSettings
from comfypin.storage.registry import KINDS

Verdict = Literal["good", "absent", "bad"]
_SIGNS: dict[Verdict, str] = {"good": "+", "absent": "-", "bad": "!"}
_ENOUGH_FREE_BYTES = 1 << 30
_PROGRAM_TIMEOUT_S = 10
_EXTRAS = {
    **{kind.name: (kind.sdk, f"delivery to {kind.title}") for kind in KINDS.values()},
    "serve": ("fastapi", "the HTTP API"),
    "worker": ("runpod", "RunPod Serverless"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at: `absent` one may do without, `bad` is in the way, `remedy` says what to do."""

    name: str
    verdict: Verdict
    found: str
    remedy: str | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `doctor`."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def execute(arguments: argparse.Namespace) -> int:
    """Look, print, and return 1 where something is in the way."""
    checks = list(examine(arguments.settings))
    if arguments.json:
        print(json.dumps({"checks": [asdict(check) for check in checks]}))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print(f"{_SIGNS[check.verdict]} {check.name:<{width}}  {check.found}")
            if check.remedy is not None:
                print(f"  {'':<{width}}  {check.remedy}")
    return 1 if any(check.verdict == "bad" for check in checks) else 0


def examine(settings: Settings) -> Iterator[Check]:
    """Everything that is looked at, in order; settings that cannot be read are a finding like any other."""
    yield Check(name="comfypin", verdict="good", found=__version__)
    version = platform.python_version()
    yield Check(name="python", verdict="good", found=f"{version} at {sys.executable}")
    yield from _programs()
    yield _gpu(settings)
    try:
        machine, mode = settings.machine, named_mode(settings.variables)
    except ComfypinError as error:
        yield Check(name="settings", verdict="bad", found=error.message, remedy="Correct or unset the variable.")
        return
    yield _engine(machine)
    yield _release(machine)
    yield from (_extra(extra, module, purpose) for extra, (module, purpose) in _EXTRAS.items())
    yield from _outputs(settings, mode)
    yield from (_disk(name, path) for name, path in (("models", machine.models_dir), ("here", Path.cwd())))


def _programs() -> Iterator[Check]:
    for name, beside, purpose in (
        ("uv", Path(sys.executable).with_name("uv"), "installing Python packages"),
        ("git", None, "fetching ComfyUI and nodes"),
        ("docker", None, "building images"),
    ):
        program = str(beside) if beside is not None and beside.exists() else shutil.which(name)
        if program is None:
            yield Check(
                name=name, verdict="absent", found=f"not found; needed for {purpose}", remedy=f"Install {name}."
            )
        else:
            yield Check(name=name, verdict="good", found=_said(program, "--version") or program)


def _gpu(settings: Settings) -> Check:
    program = shutil.which("nvidia-smi")
    if program is not None:
        query = "--query-gpu=name,memory.total,driver_version"
        said = _said(program, query, "--format=csv,noheader")
        if said:
            return Check(name="gpu", verdict="good", found=said)
    from comfypin.engine.command import has_gpu

    if has_gpu(settings.variables):
        return Check(name="gpu", verdict="good", found="there is an accelerator (nvidia-smi says nothing of it)")
    return Check(name="gpu", verdict="absent", found="none; ComfyUI will be started with --cpu")


def _engine(machine: MachineSettings) -> Check:
    from comfypin.engine.command import comfyui_child
    from comfypin.lock.model import EngineSpec

    home = machine.comfy_home
    try:
        child = comfyui_child(home, EngineSpec(), {}, gpu=False)
    except ComfypinError:
        remedy = "Set COMFY_HOME, or make one with comfypin realize; the embedded engine needs none."
        return Check(name="comfyui", verdict="absent", found=f"none in {home}", remedy=remedy)
    return Check(name="comfyui", verdict="good", found=f"{child.argv[1]} with {child.argv[0]}")


def _release(machine: MachineSettings) -> Check:
    from comfypin.lock.codec import read_lock
    from comfypin.lock.lookup import find_lock, list_releases, release_folders

    if machine.lock_path is None and machine.version_name is None:
        known = ", ".join(dict.fromkeys(list_releases(release_folders()))) or "none"
        return Check(name="release", verdict="absent", found=f"none chosen; found by name: {known}")
    try:
        path = find_lock(None, lock_path=machine.lock_path, version_name=machine.version_name)
        lock = read_lock(path).lock
    except ComfypinError as error:
        return Check(name="release", verdict="bad", found=error.message)
    return Check(name="release", verdict="good", found=f"{lock.version_name} ({lock.engine.kind}) from {path}")


def _extra(extra: str, module: str, purpose: str) -> Check:
    if _is_installed(module):
        return Check(name=f"[{extra}]", verdict="good", found=f"installed: {purpose}")
    remedy = f"pip install 'comfypin[{extra}]'"
    return Check(name=f"[{extra}]", verdict="absent", found=f"not installed: {purpose}", remedy=remedy)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _outputs(settings: Settings, named: OutputMode | None) -> Iterator[Check]:
    from comfypin import wiring
    from comfypin.settings.errors import SettingMissing

    for mode in KINDS:
        try:
            wiring.make_sink(mode, settings)
        except SettingMissing as error:
            verdict: Verdict = "bad" if named == mode else "absent"
            yield Check(name=mode, verdict=verdict, found=error.message)
        except ComfypinError as error:
            yield Check(name=mode, verdict="bad", found=error.message)
        else:
            yield Check(name=mode, verdict="good", found="configured; the bucket answers")


def _disk(name: str, path: Path) -> Check:
    free = free_bytes(path)
    verdict: Verdict = "good" if free >= _ENOUGH_FREE_BYTES else "bad"
    remedy = None if verdict == "good" else "Free some space: less than 1 GB is left."
    return Check(name=f"disk ({name})", verdict=verdict, found=f"{free / 1e9:.1f} GB free at {path}", remedy=remedy)


def _said(*command: str) -> str | None:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_PROGRAM_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return "; ".join(answer.stdout.split("\n")).strip("; ") or None

"""Say what this machine has and lacks for running releases: Python, tools, a GPU, an engine, extras, buckets, disk."""

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from comfypin import __version__
from comfypin.atomic_files import free_bytes
from comfypin.errors import ComfypinError
from comfypin.installation import extra_command
from comfypin.outputs.modes import OutputMode, named_mode
from comfypin.plurals import format_size
from comfypin.settings.environment import Settings
from comfypin.settings.machine import MachineSettings
from comfypin.storage.registry import KINDS, variable_prefixes

if TYPE_CHECKING:
    from comfypin.storage.registry import StoreKind

Verdict = Literal["good", "absent", "bad"]
_SIGNS: dict[Verdict, str] = {"good": "+", "absent": "-", "bad": "!"}
# The variables that change what comfypin does; of others even the names are nobody's business.
_OUR_VARIABLES = (
    *variable_prefixes(),
    *("COMFY", "AWS_", "RUNPOD_", "OUTPUT_", "MODELS_DIR", "LOCK_PATH", "HTTP_PROXY"),
    *("HTTPS_PROXY", "NO_PROXY", "SSL_CERT"),
)
# An env without torch takes about this much; with less, nothing that was asked for would work.
_ENOUGH_FREE_BYTES = 1 << 30
# nvidia-smi hangs if the driver is broken.
_PROGRAM_TIMEOUT_S = 10
_CHOOSE_RELEASE = "Set COMFY_VERSION_NAME or LOCK_PATH, or give --lock to each command."
_EXTRAS = {
    **{kind.name: (kind.sdk, f"delivery to {kind.title}") for kind in KINDS.values()},
    "serve": ("fastapi", "the HTTP API"),
    "worker": ("runpod", "Runpod Serverless"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineCheck:
    """One finding: `absent` is optional, `bad` prevents runs, and `remedy` says what to do."""

    name: str
    verdict: Verdict
    found: str
    remedy: str | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `doctor`."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--bucket", action="store_true", help="also write to each configured bucket, and read it back")
    parser.add_argument("--issue", action="store_true", help="print what to paste into an issue; it holds no secrets")


def execute(arguments: argparse.Namespace) -> int:
    """Print the findings; return 1 if something prevents runs."""
    # All of them first: the longest name sets the column's width.
    checks = list(examine_machine(arguments.settings, write_to_buckets=arguments.bucket))
    if arguments.json:
        print(json.dumps({"checks": [asdict(check) for check in checks]}))
    elif arguments.issue:
        print("\n".join(_describe_for_issue(checks, arguments.settings)))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print(f"{_SIGNS[check.verdict]} {check.name:<{width}}  {check.found}")
            if check.remedy is not None:
                print(f"  {'':<{width}}  {check.remedy}")
    return 1 if any(check.verdict == "bad" for check in checks) else 0


def _describe_for_issue(checks: Sequence[MachineCheck], settings: Settings) -> Iterator[str]:
    """Yield lines of Markdown: the findings without this machine's paths and names, and which variables are set."""
    yield "```"
    yield f"system: {platform.platform()}, {os.cpu_count()} CPUs"
    for check in checks:
        # What follows a colon in a failure quotes addresses, buckets and paths.
        finding_text = check.found if check.verdict == "good" else check.found.partition(":")[0]
        for private, placeholder in ((str(Path.home()), "~"), (str(Path.cwd()), ".")):
            finding_text = finding_text.replace(private, placeholder) if len(private) > 1 else finding_text
        yield f"{_SIGNS[check.verdict]} {check.name}: {finding_text}"
    ours = sorted(variable_name for variable_name in settings.variables if variable_name.startswith(_OUR_VARIABLES))
    yield f"variables that are set (values left out): {', '.join(ours) or 'none'}"
    yield "```"


def examine_machine(settings: Settings, *, write_to_buckets: bool = False) -> Iterator[MachineCheck]:
    """Yield every finding in order; settings that cannot be read are a finding too."""
    yield MachineCheck(name="comfypin", verdict="good", found=__version__)
    version = platform.python_version()
    yield MachineCheck(name="python", verdict="good", found=f"{version} at {sys.executable}")
    yield from _check_programs()
    yield _check_gpu(settings)
    try:
        machine, mode = settings.machine, named_mode(settings.variables)
    except ComfypinError as error:
        yield MachineCheck(
            name="settings", verdict="bad", found=error.command_message, remedy="Correct or unset the variable."
        )
        return
    yield _check_comfyui(machine)
    yield _check_release(settings)
    yield from (_check_extra(extra, module, purpose) for extra, (module, purpose) in _EXTRAS.items())
    yield from _check_buckets(settings, mode, write=write_to_buckets)
    yield from (
        _check_disk(disk_label, path) for disk_label, path in (("models", machine.models_dir), ("here", Path.cwd()))
    )


def _check_programs() -> Iterator[MachineCheck]:
    for program_name, bundled, purpose in (
        # uv is installed with comfypin, beside its Python, which need not be on PATH.
        ("uv", Path(sys.executable).with_name("uv"), "installing Python packages"),
        ("git", None, "fetching ComfyUI and nodes"),
        ("docker", None, "building images"),
    ):
        program = str(bundled) if bundled is not None and bundled.exists() else shutil.which(program_name)
        if program is None:
            yield MachineCheck(
                name=program_name,
                verdict="absent",
                found=f"not found; needed for {purpose}",
                remedy=f"Install {program_name}.",
            )
        elif program_name == "docker" and (why_not := _find_daemon_fault(program)) is not None:
            version = _output_of(program, "--version") or program
            remedy = "Start it (systemctl start docker, or Docker Desktop); buildah and podman need no daemon."
            yield MachineCheck(name="docker", verdict="absent", found=f"{version}, but {why_not}", remedy=remedy)
        else:
            yield MachineCheck(name=program_name, verdict="good", found=_output_of(program, "--version") or program)


def _find_daemon_fault(program: str) -> str | None:
    """Return why docker's daemon cannot be used; None if it answers."""
    query = [program, "version", "--format", "{{.Server.Version}}"]
    try:
        completed = subprocess.run(query, capture_output=True, text=True, timeout=_PROGRAM_TIMEOUT_S, check=False)
    except subprocess.SubprocessError:
        return "its daemon does not answer"
    except (OSError, UnicodeDecodeError):
        return "it cannot be asked"
    if completed.returncode == 0:
        return None
    is_refused = "permission denied" in completed.stderr.lower()
    return "this user may not use its daemon (group docker)" if is_refused else "its daemon does not run"


def _check_gpu(settings: Settings) -> MachineCheck:
    program = shutil.which("nvidia-smi")
    if program is not None:
        query = "--query-gpu=name,memory.total,driver_version"
        gpu_names = _output_of(program, query, "--format=csv,noheader")
        if gpu_names:
            return MachineCheck(name="gpu", verdict="good", found=gpu_names)
    # There are accelerators without nvidia-smi.
    from comfypin.engine.command import has_gpu

    if has_gpu(settings.variables):
        return MachineCheck(name="gpu", verdict="good", found="an accelerator that nvidia-smi does not list")
    return MachineCheck(name="gpu", verdict="absent", found="none; ComfyUI will be started with --cpu")


def _check_comfyui(machine: MachineSettings) -> MachineCheck:
    from comfypin.engine.command import comfyui_child
    from comfypin.engine.errors import EnginePythonNotFound
    from comfypin.lock.model import EngineSpec

    comfy_home = machine.comfy_home
    try:
        child = comfyui_child(comfy_home, EngineSpec(), {}, gpu=False, python=machine.comfy_python)
    except EnginePythonNotFound as error:
        return MachineCheck(name="comfyui", verdict="bad", found=error.command_message)
    except ComfypinError:
        remedy = (
            "Set COMFY_HOME, or give --comfy-home to run and serve, or install one with comfypin realize; the embedded "
            "engine needs none."
        )
        return MachineCheck(name="comfyui", verdict="absent", found=f"none in {comfy_home}", remedy=remedy)
    return MachineCheck(name="comfyui", verdict="good", found=f"{child.argv[1]} with {child.argv[0]}")


def _check_release(settings: Settings) -> MachineCheck:
    from comfypin.cli.common import read_named_lock
    from comfypin.lock.lookup import list_releases, release_folders

    machine = settings.machine
    if not any((machine.lock_path, machine.version_name, machine.carried_lock, machine.lock_url)):
        known_names = ", ".join(dict.fromkeys(list_releases(release_folders()))) or "none"
        return MachineCheck(
            name="release", verdict="absent", found=f"none chosen; found by name: {known_names}", remedy=_CHOOSE_RELEASE
        )
    try:
        where, reading = read_named_lock(None, settings)
    except ComfypinError as error:
        return MachineCheck(name="release", verdict="bad", found=error.command_message)
    return MachineCheck(
        name="release", verdict="good", found=f"{reading.lock.version_name} ({reading.lock.engine.kind}) from {where}"
    )


def _check_extra(extra: str, module: str, purpose: str) -> MachineCheck:
    if _is_installed(module):
        return MachineCheck(name=f"[{extra}]", verdict="good", found=f"installed: {purpose}")
    remedy = extra_command(extra)
    return MachineCheck(name=f"[{extra}]", verdict="absent", found=f"not installed: {purpose}", remedy=remedy)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    # `find_spec` of a dotted name imports its parent, which may be missing.
    except ImportError:
        return False


def _check_buckets(settings: Settings, chosen_mode: OutputMode | None, *, write: bool) -> Iterator[MachineCheck]:
    from comfypin import wiring
    from comfypin.settings.errors import SettingMissing

    for mode, kind in KINDS.items():
        # Asked first: that a library is missing is only bad for a bucket that is wanted.
        if chosen_mode != mode and not _is_installed(kind.sdk) and not _names_bucket(kind, settings):
            yield MachineCheck(name=mode, verdict="absent", found=f"no bucket of {kind.title} is configured")
            continue
        try:
            # Opening a bucket asks it, so a wrong key shows here.
            wiring.make_sink(mode, settings)
        # Most machines need one bucket: an unset one is only bad if OUTPUT_MODE names it.
        except SettingMissing as error:
            verdict: Verdict = "bad" if chosen_mode == mode else "absent"
            yield MachineCheck(name=mode, verdict=verdict, found=error.command_message)
        except ComfypinError as error:
            yield MachineCheck(name=mode, verdict="bad", found=error.command_message)
        else:
            yield (
                _try_writing(kind, settings)
                if write
                else MachineCheck(
                    name=mode, verdict="good", found="configured; the bucket responds (--bucket writes to it)"
                )
            )


def _names_bucket(kind: "StoreKind", settings: Settings) -> bool:
    try:
        return kind.is_configured(settings.variables)
    except ComfypinError:
        # A wrong variable is to be seen, so go on and let it show.
        return True


def _try_writing(kind: "StoreKind", settings: Settings) -> MachineCheck:
    """Write a small object below the prefix, and read it back; it stays there, since stores here remove nothing."""
    from comfypin.digest import Digest
    from comfypin.storage.interface import Payload

    content = b"comfypin doctor --bucket wrote this; it may be removed.\n"
    try:
        bucket_settings = kind.read_settings(settings.variables)
        store = kind.open_store(bucket_settings)
        key = f"{bucket_settings.prefix.rstrip('/')}/comfypin-doctor.txt".lstrip("/")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "probe")
            path.write_bytes(content)
            began_s = time.monotonic()
            stored = store.put(key, Payload(path=path, size_bytes=len(content), sha256=Digest.of(content)))
        is_same = b"".join(store.read(key)) == content
    except ComfypinError as error:
        return MachineCheck(name=kind.name, verdict="bad", found=error.command_message)
    elapsed_s = time.monotonic() - began_s
    if not is_same:
        return MachineCheck(name=kind.name, verdict="bad", found=f"{stored.uri} was written, and reads differently")
    return MachineCheck(name=kind.name, verdict="good", found=f"wrote and read {stored.uri} in {elapsed_s:.1f} s")


def _check_disk(disk_name: str, path: Path) -> MachineCheck:
    free = free_bytes(path)
    verdict: Verdict = "good" if free >= _ENOUGH_FREE_BYTES else "bad"
    remedy = None if verdict == "good" else "Free some space: less than 1 GB is left."
    return MachineCheck(
        name=f"disk ({disk_name})", verdict=verdict, found=f"{format_size(free)} free at {path}", remedy=remedy
    )


def _output_of(*command: str) -> str | None:
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=_PROGRAM_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return "; ".join(completed.stdout.split("\n")).strip("; ") or None

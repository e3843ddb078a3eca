"""The Python interpreters of this machine: found by uv, asked for what they are, wired into a venv again."""

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfypin.atomic_files import write_atomically
from comfypin.env.errors import PackagesUnavailable, PythonMissing
from comfypin.env.layout import VENV_FOLDER, venv_python
from comfypin.env.package_selection import Interpreter, machine_name
from comfypin.lease import process_token
from comfypin.tools.errors import ToolTimedOut
from comfypin.tools.process import run_program
from comfypin.tools.uv import clean_environment, run_uv

# Asked of the interpreter itself: its `sys` decides which wheels fit, not ours.
_FACTS_SCRIPT = """
import json, os, platform, sys, sysconfig
v = sys.version_info
print(json.dumps({
  "version": "%d.%d.%d" % v[:3], "cache_tag": sys.implementation.cache_tag,
  "platform": sysconfig.get_platform(), "machine": platform.machine(),
  "base": os.path.realpath(sys.executable), "home": sys.base_prefix,
  "markers": {
    "implementation_name": sys.implementation.name, "implementation_version": "%d.%d.%d" % v[:3],
    "os_name": os.name, "platform_machine": platform.machine(), "platform_release": platform.release(),
    "platform_system": platform.system(), "platform_version": platform.version(),
    "python_full_version": platform.python_version(),
    "platform_python_implementation": platform.python_implementation(),
    "python_version": "%d.%d" % v[:2], "sys_platform": sys.platform, "extra": ""}}))
"""


_VERSION_SCRIPT = "import sys; print('%d.%d.%d' % sys.version_info[:3] if sys.implementation.name == 'cpython' else '')"
VENV_CONFIG_FILE = "pyvenv.cfg"
_VENV_SETTINGS = ("implementation = CPython", "include-system-site-packages = false", "relocatable = true")


def find_interpreter(python_version: str, *, notes: Path | None = None, uv_cache: Path | None = None) -> Interpreter:
    """Return an interpreter of the wanted minor version (`3.12` of `3.12.4`). Raises `PythonMissing`.

    `notes` is a folder that remembers what an interpreter said, valid until its file or PATH changes; `uv_cache` is
    where uv remembers it.
    """
    minor_version = ".".join(python_version.split(".")[:2])
    note_path = notes / f"{minor_version}.json" if notes else None
    if note_path is not None and (interpreter_facts := _read_note(note_path)) is not None:
        return _parse_facts(interpreter_facts)
    interpreter_facts = _find_on_path(minor_version) or _find_with_uv(minor_version, uv_cache)
    if note_path is not None:
        with contextlib.suppress(OSError):  # a cache that cannot be written is only slower
            write_atomically(
                note_path,
                json.dumps({**interpreter_facts, **_note_conditions(interpreter_facts)}).encode(),
                durable=False,
            )
    return _parse_facts(interpreter_facts)


def describe_interpreter(interpreter_path: Path) -> Interpreter:
    """Return what this interpreter says of itself. Raises `PythonMissing` if it does not run."""
    return _parse_facts(_ask_interpreter(interpreter_path))


def _find_on_path(minor_version: str) -> dict[str, Any] | None:
    """Return the facts of `python3.12` on PATH if it is a plain CPython: a third of the time that uv takes."""
    program_path = shutil.which(f"python{minor_version}")
    if program_path is None:
        return None
    with contextlib.suppress(PythonMissing, ToolTimedOut, ValueError, KeyError, TypeError):
        interpreter_facts = _ask_interpreter(Path(program_path))
        # A virtual environment that has a copy of an interpreter can be gone tomorrow.
        is_copied = (Path(interpreter_facts["base"]).parent.parent / VENV_CONFIG_FILE).exists()
        is_plain = interpreter_facts["version"].startswith(f"{minor_version}.") and interpreter_facts[
            "cache_tag"
        ].startswith("cpython-")
        return interpreter_facts if is_plain and not is_copied else None
    return None


def _find_with_uv(minor_version: str, uv_cache: Path | None) -> dict[str, Any]:
    """Return the facts of the interpreter that uv finds, which may be one that uv installed. Raises `PythonMissing`."""
    finished = run_uv(["python", "find", "--no-project", "--system", minor_version], cache=uv_cache, timeout_s=60)
    interpreter_path = Path(finished.stdout_text.strip())
    if finished.exit_code or not interpreter_path.is_file():
        raise PythonMissing(version=minor_version, reason="uv finds none, on PATH or among its own")
    return _ask_interpreter(interpreter_path)


def _read_note(note_path: Path) -> dict[str, Any] | None:
    try:
        interpreter_facts = json.loads(note_path.read_bytes())
        return (
            interpreter_facts
            if isinstance(interpreter_facts, dict)
            and _note_conditions(interpreter_facts).items() <= interpreter_facts.items()
            else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _note_conditions(interpreter_facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must not have changed for a note to be valid."""
    file_status = Path(interpreter_facts["base"]).stat()
    kernel_release = platform.release()
    return {
        "mtime_ns": file_status.st_mtime_ns,
        "size": file_status.st_size,
        "path": os.environ.get("PATH"),
        "kernel": kernel_release,
    }


def _ask_interpreter(interpreter_path: Path) -> dict[str, Any]:
    """Ask an interpreter what it is. Raises `PythonMissing` if it does not run."""
    finished = run_program([interpreter_path, "-I", "-S", "-c", _FACTS_SCRIPT], env=clean_environment(), timeout_s=60)
    if finished.exit_code:
        raise PythonMissing(version=interpreter_path.name, reason=finished.error_summary)
    interpreter_facts: dict[str, Any] = json.loads(finished.stdout_text)
    return interpreter_facts


def _parse_facts(interpreter_facts: Mapping[str, Any]) -> Interpreter:
    from packaging.tags import Tag, compatible_tags, cpython_tags, platform_tags

    major_minor = tuple(int(version_part) for version_part in interpreter_facts["version"].split(".")[:2])
    # packaging asks this process for platforms; ours and the env's Python run on one machine.
    platforms = list(platform_tags())
    short_tag = f"cp{major_minor[0]}{major_minor[1]}"
    wheel_tags: set[Tag] = {
        *cpython_tags(major_minor, [short_tag], platforms),
        *compatible_tags(major_minor, short_tag, platforms),
    }
    return Interpreter(
        path=Path(interpreter_facts["base"]),
        version=interpreter_facts["version"],
        cache_tag=interpreter_facts["cache_tag"],
        machine=machine_name(interpreter_facts["markers"]["platform_system"], interpreter_facts["machine"]),
        tags=frozenset(wheel_tags),
        markers=interpreter_facts["markers"],
    )


def make_venv(build_folder: Path, interpreter: Interpreter) -> None:
    """Make an empty venv with just what the interpreter and uv look at."""
    library_folder = build_folder / VENV_FOLDER / "lib" / f"python{interpreter.minor_version}" / "site-packages"
    library_folder.mkdir(parents=True)
    # As `python -m venv` does on 64-bit Linux.
    (build_folder / VENV_FOLDER / "lib64").symlink_to("lib")
    rewire_venv(build_folder, interpreter)


def add_activation_scripts(build_folder: Path, interpreter: Interpreter, uv_cache: Path) -> None:
    """Give the venv the scripts that people source in their shells, taken from a venv that uv makes beside it."""
    aside_folder = build_folder / f"{VENV_FOLDER}-aside"
    finished = run_uv(
        ["venv", "--quiet", "--relocatable", "--no-project", "--python", interpreter.path, aside_folder], cache=uv_cache
    )
    if finished.exit_code:
        raise PackagesUnavailable(reason=finished.error_summary)
    for script_path in (aside_folder / "bin").iterdir():
        if not script_path.name.startswith("python"):
            script_path.rename(build_folder / VENV_FOLDER / "bin" / script_path.name)
    shutil.rmtree(aside_folder)


def rewire_venv(build_folder: Path, interpreter: Interpreter) -> None:
    """Make the venv of a build run on this interpreter: rewrite its absolute paths, atomically."""
    setting_lines = (f"home = {interpreter.path.parent}", f"version_info = {interpreter.version}", *_VENV_SETTINGS)
    write_atomically(build_folder / VENV_FOLDER / VENV_CONFIG_FILE, ("\n".join(setting_lines) + "\n").encode())
    python_link = venv_python(build_folder)
    python_link.parent.mkdir(parents=True, exist_ok=True)
    replace_link(python_link, str(interpreter.path))
    # Scripts name the interpreter in any of these ways.
    for link_name in ("python3", f"python{interpreter.minor_version}"):
        replace_link(python_link.with_name(link_name), "python")


def is_venv_wired(build_folder: Path) -> bool:
    """Return whether the venv's settings are ours: one more line could let in the system's packages."""
    setting_lines = [
        setting_line
        for setting_line in _read_venv_config(build_folder)
        if not setting_line.startswith(("home = ", "version_info = "))
    ]
    return setting_lines == list(_VENV_SETTINGS)


def _read_venv_config(build_folder: Path) -> list[str]:
    try:
        return (build_folder / VENV_FOLDER / VENV_CONFIG_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def read_venv_version(build_folder: Path, minor_version: str) -> str | None:
    """Return the version (`3.12.4`) that the venv's interpreter reports, or None if it is not of this minor version."""
    finished = run_program(
        [venv_python(build_folder), "-I", "-S", "-c", _VERSION_SCRIPT], env=clean_environment(), timeout_s=60
    )
    reported_version = finished.stdout_text.strip()
    return reported_version if not finished.exit_code and reported_version.startswith(f"{minor_version}.") else None


def replace_link(link_path: Path, link_target: str) -> None:
    """Point a symbolic link somewhere, atomically."""
    if link_path.is_symlink() and str(link_path.readlink()) == link_target:
        return
    # `symlink` cannot replace a link; a rename can, and nobody sees a moment without it.
    temporary_link = link_path.with_name(f".{link_path.name}.{process_token()}.tmp")
    temporary_link.symlink_to(link_target)
    temporary_link.replace(link_path)


def is_venv_usable(build_folder: Path, minor_version: str) -> bool:
    """Return whether we wired the venv to an interpreter of the wanted minor version, without starting it."""
    python_link = venv_python(build_folder)
    library_folder = build_folder / VENV_FOLDER / "lib" / f"python{minor_version}"
    is_present = python_link.is_symlink() and os.access(python_link, os.X_OK) and library_folder.is_dir()
    return (
        is_present
        and is_venv_wired(build_folder)
        and f"home = {python_link.readlink().parent}" in _read_venv_config(build_folder)
    )

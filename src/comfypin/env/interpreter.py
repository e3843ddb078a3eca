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


def find_interpreter(version: str, *, notes: Path | None = None, uv_cache: Path | None = None) -> Interpreter:
    """Return an interpreter of the wanted minor version (`3.12` of `3.12.4`). Raises `PythonMissing`.

    `notes` is a folder that remembers what an interpreter said, valid until its file or PATH changes; `uv_cache` is
    where uv remembers it.
    """
    minor = ".".join(version.split(".")[:2])
    note = notes / f"{minor}.json" if notes else None
    if note is not None and (facts := _read_note(note)) is not None:
        return _parse_facts(facts)
    facts = _find_on_path(minor) or _find_with_uv(minor, uv_cache)
    if note is not None:
        with contextlib.suppress(OSError):  # a cache that cannot be written is only slower
            write_atomically(note, json.dumps({**facts, **_note_conditions(facts)}).encode(), durable=False)
    return _parse_facts(facts)


def _find_on_path(minor: str) -> dict[str, Any] | None:
    """Return the facts of `python3.12` on PATH if it is a plain CPython: a third of the time that uv takes."""
    program = shutil.which(f"python{minor}")
    if program is None:
        return None
    with contextlib.suppress(PythonMissing, ToolTimedOut, ValueError, KeyError, TypeError):
        facts = _ask_interpreter(Path(program))
        # A virtual environment that has a copy of an interpreter can be gone tomorrow.
        copied = (Path(facts["base"]).parent.parent / VENV_CONFIG_FILE).exists()
        plain = facts["version"].startswith(f"{minor}.") and facts["cache_tag"].startswith("cpython-")
        return facts if plain and not copied else None
    return None


def _find_with_uv(minor: str, uv_cache: Path | None) -> dict[str, Any]:
    """Return the facts of the interpreter that uv finds, perhaps one of its own. Raises `PythonMissing`."""
    found = run_uv(["python", "find", "--no-project", "--system", minor], cache=uv_cache, timeout_s=60)
    path = Path(found.stdout_text.strip())
    if found.exit_code or not path.is_file():
        raise PythonMissing(version=minor, reason="uv finds none, on PATH or among its own")
    return _ask_interpreter(path)


def _read_note(note: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads(note.read_bytes())
        return facts if isinstance(facts, dict) and _note_conditions(facts).items() <= facts.items() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _note_conditions(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must not have changed for a note to be valid."""
    status = Path(facts["base"]).stat()
    kernel = platform.release()
    return {"mtime_ns": status.st_mtime_ns, "size": status.st_size, "path": os.environ.get("PATH"), "kernel": kernel}


def _ask_interpreter(path: Path) -> dict[str, Any]:
    """Ask an interpreter what it is. Raises `PythonMissing` if it does not run."""
    asked = run_program([path, "-I", "-S", "-c", _FACTS_SCRIPT], env=clean_environment(), timeout_s=60)
    if asked.exit_code:
        raise PythonMissing(version=path.name, reason=asked.error_summary)
    facts: dict[str, Any] = json.loads(asked.stdout_text)
    return facts


def _parse_facts(facts: Mapping[str, Any]) -> Interpreter:
    from packaging.tags import Tag, compatible_tags, cpython_tags, platform_tags

    major_minor = tuple(int(part) for part in facts["version"].split(".")[:2])
    # packaging asks this process for platforms; ours and the env's Python run on one machine.
    platforms = list(platform_tags())
    short = f"cp{major_minor[0]}{major_minor[1]}"
    tags: set[Tag] = {*cpython_tags(major_minor, [short], platforms), *compatible_tags(major_minor, short, platforms)}
    return Interpreter(
        path=Path(facts["base"]),
        version=facts["version"],
        cache_tag=facts["cache_tag"],
        machine=machine_name(facts["markers"]["platform_system"], facts["machine"]),
        tags=frozenset(tags),
        markers=facts["markers"],
    )


def make_venv(build: Path, interpreter: Interpreter) -> None:
    """Make an empty venv with just what the interpreter and uv look at."""
    library = build / VENV_FOLDER / "lib" / f"python{interpreter.minor_version}" / "site-packages"
    library.mkdir(parents=True)
    # As `python -m venv` does on 64-bit Linux.
    (build / VENV_FOLDER / "lib64").symlink_to("lib")
    rewire_venv(build, interpreter)


def add_activation_scripts(build: Path, interpreter: Interpreter, uv_cache: Path) -> None:
    """Give the venv the scripts that people source in their shells, taken from a venv that uv makes beside it."""
    aside = build / f"{VENV_FOLDER}-aside"
    made = run_uv(
        ["venv", "--quiet", "--relocatable", "--no-project", "--python", interpreter.path, aside], cache=uv_cache
    )
    if made.exit_code:
        raise PackagesUnavailable(reason=made.error_summary)
    for script in (aside / "bin").iterdir():
        if not script.name.startswith("python"):
            script.rename(build / VENV_FOLDER / "bin" / script.name)
    shutil.rmtree(aside)


def rewire_venv(build: Path, interpreter: Interpreter) -> None:
    """Make the venv of a build run on this interpreter: rewrite its absolute paths, atomically."""
    lines = (f"home = {interpreter.path.parent}", f"version_info = {interpreter.version}", *_VENV_SETTINGS)
    write_atomically(build / VENV_FOLDER / VENV_CONFIG_FILE, ("\n".join(lines) + "\n").encode())
    python = venv_python(build)
    python.parent.mkdir(parents=True, exist_ok=True)
    replace_link(python, str(interpreter.path))
    # Scripts name the interpreter in any of these ways.
    for name in ("python3", f"python{interpreter.minor_version}"):
        replace_link(python.with_name(name), "python")


def is_venv_wired(build: Path) -> bool:
    """Return whether the venv's settings are ours: one more line could let in the system's packages."""
    lines = [line for line in _read_venv_config(build) if not line.startswith(("home = ", "version_info = "))]
    return lines == list(_VENV_SETTINGS)


def _read_venv_config(build: Path) -> list[str]:
    try:
        return (build / VENV_FOLDER / VENV_CONFIG_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def read_venv_version(build: Path, minor: str) -> str | None:
    """Return the version (`3.12.4`) that the venv's interpreter reports, or None if it is not of this minor version."""
    asked = run_program([venv_python(build), "-I", "-S", "-c", _VERSION_SCRIPT], env=clean_environment(), timeout_s=60)
    said = asked.stdout_text.strip()
    return said if not asked.exit_code and said.startswith(f"{minor}.") else None


def replace_link(link: Path, target: str) -> None:
    """Point a symbolic link somewhere, atomically."""
    if link.is_symlink() and str(link.readlink()) == target:
        return
    # `symlink` cannot replace a link; a rename can, and nobody sees a moment without it.
    temporary = link.with_name(f".{link.name}.{process_token()}.tmp")
    temporary.symlink_to(target)
    temporary.replace(link)


def is_venv_usable(build: Path, minor: str) -> bool:
    """Return whether we wired the venv to an interpreter of the wanted minor version, without starting it."""
    python = venv_python(build)
    library = build / VENV_FOLDER / "lib" / f"python{minor}"
    there = python.is_symlink() and os.access(python, os.X_OK) and library.is_dir()
    return there and is_venv_wired(build) and f"home = {python.readlink().parent}" in _read_venv_config(build)

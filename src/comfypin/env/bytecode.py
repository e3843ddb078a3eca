"""Byte-code for every module of a build, compiled once, beside the build: it may be in use.

A pack brings a list of its packages' byte-code by sha256: Python runs it without a look at the source, so that an edit
of it would be seen by nobody else.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from comfypin.env.layout import BYTECODE_FILE, COMFYUI_FOLDER, VENV_FOLDER, site_packages, venv_python
from comfypin.tools.process import run_program
from comfypin.tools.uv import clean_environment

# Generous, since a network volume is slow with tens of thousands of small files.
COMPILE_TIMEOUT_S = 3600.0


def compile_modules(build: Path, scratch: Path) -> dict[str, Path]:
    """Compile into the scratch folder; each file by the name it is to have in the build.

    Packages do not change, so their byte-code is never compared with its source. That of ComfyUI and the nodes is, by
    hash, so that an edit of theirs counts. Neither depends on times, so it is valid wherever it is unpacked.
    """
    build = build.resolve()
    environment = {**clean_environment(), "PYTHONPYCACHEPREFIX": str(scratch)}
    for folder, mode in ((site_packages(build), "unchecked-hash"), (build / COMFYUI_FOLDER, "checked-hash")):
        # `-j 0` uses every core, and `-q -q` hides files that are not meant to compile.
        command: list[str | Path] = [venv_python(build), "-m", "compileall", "-q", "-q", "-j", "0"]
        command += ["--invalidation-mode", mode]
        # Templates and files for other Pythons do not compile; that is no failure, nobody imports them.
        run_program([*command, "-s", build, folder], cwd=scratch, env=environment, timeout_s=COMPILE_TIMEOUT_S)
    root = scratch / str(build).lstrip("/")
    found = {}
    for path in root.rglob("*.pyc"):
        relative = path.relative_to(root)
        found[str(relative.parent / "__pycache__" / relative.name)] = path
    return found


def list_bytecode(modules: Mapping[str, Path]) -> bytes:
    """Return the packages' byte-code among these modules by sha256, as JSON for a pack."""
    names = sorted(name for name in modules if name.startswith(f"{VENV_FOLDER}/"))
    with ThreadPoolExecutor() as pool:
        # Hashing releases the interpreter's lock, so threads use every core.
        digests = pool.map(lambda name: hashlib.sha256(modules[name].read_bytes()).hexdigest(), names)
        return json.dumps(dict(zip(names, digests, strict=True)), separators=(",", ":")).encode()


def find_changed_bytecode(build: Path) -> tuple[str, ...]:
    """Return the packages' byte-code that differs from what the env's pack brought; missing files do not count.

    Empty for an env that was built here: Python itself compares its byte-code with the source.
    """
    try:
        listed = json.loads((build / BYTECODE_FILE).read_bytes())
        expected = {str(name): str(digest) for name, digest in listed.items()}
    except (OSError, ValueError, AttributeError):
        return ()
    with ThreadPoolExecutor() as pool:
        return tuple(
            name
            for name, same in zip(
                expected, pool.map(_matches_digest, (build / name for name in expected), expected.values()), strict=True
            )
            if not same
        )


def _matches_digest(path: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except FileNotFoundError:
        return True

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


def compile_modules(build_folder: Path, temporary_folder: Path) -> dict[str, Path]:
    """Compile into the scratch folder; each file by the name it is to have in the build.

    Packages do not change, so their byte-code is never compared with its source. That of ComfyUI and the nodes is, by
    hash, so that an edit of theirs counts. Neither depends on times, so it is valid wherever it is unpacked.
    """
    build_folder = build_folder.resolve()
    environment = {**clean_environment(), "PYTHONPYCACHEPREFIX": str(temporary_folder)}
    for folder, invalidation_mode in (
        (site_packages(build_folder), "unchecked-hash"),
        (build_folder / COMFYUI_FOLDER, "checked-hash"),
    ):
        # `-j 0` uses every core, and `-q -q` hides files that are not meant to compile.
        command: list[str | Path] = [venv_python(build_folder), "-m", "compileall", "-q", "-q", "-j", "0"]
        command += ["--invalidation-mode", invalidation_mode]
        # Templates and files for other Pythons do not compile; that is not a failure, because nobody imports them.
        run_program(
            [*command, "-s", build_folder, folder], cwd=temporary_folder, env=environment, timeout_s=COMPILE_TIMEOUT_S
        )
    compiled_root = temporary_folder / str(build_folder).lstrip("/")
    compiled_files = {}
    for compiled_path in compiled_root.rglob("*.pyc"):
        relative = compiled_path.relative_to(compiled_root)
        compiled_files[str(relative.parent / "__pycache__" / relative.name)] = compiled_path
    return compiled_files


def list_bytecode(compiled_modules: Mapping[str, Path]) -> bytes:
    """Return the packages' byte-code among these modules by sha256, as JSON for a pack."""
    package_paths = sorted(
        relative_path for relative_path in compiled_modules if relative_path.startswith(f"{VENV_FOLDER}/")
    )
    with ThreadPoolExecutor() as thread_pool:
        # Hashing releases the interpreter's lock, so threads use every core.
        file_digests = thread_pool.map(
            lambda relative_path: hashlib.sha256(compiled_modules[relative_path].read_bytes()).hexdigest(),
            package_paths,
        )
        return json.dumps(dict(zip(package_paths, file_digests, strict=True)), separators=(",", ":")).encode()


def find_changed_bytecode(build_folder: Path) -> tuple[str, ...]:
    """Return the packages' byte-code that differs from what the env's pack brought; missing files do not count.

    Empty for an env that was built here: Python itself compares its byte-code with the source.
    """
    try:
        listed_digests = json.loads((build_folder / BYTECODE_FILE).read_bytes())
        expected_digests = {str(relative_path): str(digest) for relative_path, digest in listed_digests.items()}
    except (OSError, ValueError, AttributeError):
        return ()
    with ThreadPoolExecutor() as thread_pool:
        return tuple(
            relative_path
            for relative_path, is_same in zip(
                expected_digests,
                thread_pool.map(
                    _matches_digest,
                    (build_folder / relative_path for relative_path in expected_digests),
                    expected_digests.values(),
                ),
                strict=True,
            )
            if not is_same
        )


def _matches_digest(path: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except FileNotFoundError:
        return True

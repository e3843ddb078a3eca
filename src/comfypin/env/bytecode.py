"""Byte-code for every module of a build, compiled once, beside the build: it may be in use."""

from pathlib import Path

from comfypin.env.layout import COMFYUI, site_packages, venv_python
from comfypin.tools.packages import clean_environment
from comfypin.tools.process import run

COMPILE_TIMEOUT_S = 3600.0


def compile_modules(build: Path, scratch: Path) -> dict[str, Path]:
    """Compile into the scratch folder; each file by the name it is to have in the build.

    Packages do not change, so their byte-code is never compared with its source. That of ComfyUI and the nodes is, by
    hash, so that an edit of theirs counts. Neither depends on times, so it is valid wherever it is unpacked.
    """
    build = build.resolve()
    environment = {**clean_environment(), "PYTHONPYCACHEPREFIX": str(scratch)}
    for folder, mode in ((site_packages(build), "unchecked-hash"), (build / COMFYUI, "checked-hash")):
        command: list[str | Path] = [venv_python(build), "-m", "compileall", "-q", "-q", "-j", "0"]
        command += ["--invalidation-mode", mode]
        # Templates and files for other Pythons do not compile; that is no failure, nobody imports them.
        run([*command, "-s", build, folder], cwd=scratch, env=environment, timeout_s=COMPILE_TIMEOUT_S)
    root = scratch / str(build).lstrip("/")
    found = {}
    for path in root.rglob("*.pyc"):
        relative = path.relative_to(root)
        found[str(relative.parent / "__pycache__" / relative.name)] = path
    return found

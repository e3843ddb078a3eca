"""Nodes' install.py, by the lock's policy: reviewed by its hash, and never free to move what the lock pins."""

from collections.abc import Callable
from pathlib import Path

from comfypin.digest import Digest
from comfypin.env.errors import InstallScriptChanged, InstallScriptFailed
from comfypin.env.file_manifest import FileStamp, stamp_files
from comfypin.env.layout import COMFYUI_FOLDER, VENV_FOLDER, site_packages, venv_python
from comfypin.env.package_selection import normalize_name
from comfypin.env.realize_plan import EnvRecipe, node_folder
from comfypin.lock.model import NodePin
from comfypin.temp_folders import temp_folder
from comfypin.tools.process import run_program
from comfypin.tools.uv import clean_environment, find_uv

# Some scripts compile CUDA extensions.
SCRIPT_TIMEOUT_S = 1800.0
# Scripts call `python -m pip install ...` or `pip install ...`; a locked venv has no pip, and that of the system would
# change the system. uv answers to both names, held to the lock's pins, and without the flags that only pip knows.
_PIP_SHIM = """\
import os, sys
uv = {uv!r}
deaf = ("--user", "--no-warn-script-location", "--disable-pip-version-check", "--no-input", "--root-user-action")
arguments = [word for word in sys.argv[1:] if word.partition("=")[0] not in deaf]
os.execv(uv, [uv, "--no-config", "--no-progress", "pip", *arguments])
"""
_PIP_PROGRAM = """\
#!/bin/sh
exec python -m pip "$@"
"""


def run_install_scripts(build: Path, recipe: EnvRecipe, *, offline: bool, report: Callable[[str], None]) -> None:
    """Run the scripts that the lock says are to be run.

    Raises `InstallScriptChanged` (before anything is run) and `InstallScriptFailed`.
    """
    wanted = [node for node in recipe.nodes if node.install_script == "run"]
    scripts = [(node, build / node_folder(node) / "install.py") for node in wanted]
    present = [(node, path) for node, path in scripts if _check_script(node, path)]
    if not present:
        return
    before = _list_distributions(build)
    with temp_folder("pip") as folder:
        shim = Path(folder, "pip")
        shim.mkdir()
        (shim / "__init__.py").write_text("", encoding="utf-8")
        (shim / "__main__.py").write_text(_PIP_SHIM.format(uv=str(find_uv())), encoding="utf-8")
        _write_programs(Path(folder, "bin"))
        pins = Path(folder, "pins.txt")
        lines = [f"{pin.name}=={pin.version}" for pin in recipe.packages]
        pins.write_text("\n".join(lines) + "\n", encoding="utf-8")
        for node, path in present:
            report(f"Running install.py of {node.name}.")
            sources = _stamp_sources(build, node)
            _run_script(build, node, path, _script_environment(build, str(folder), pins, offline=offline))
            _require_same_packages(node, before, _list_distributions(build))
            _require_same_sources(node, sources, build)


def _write_programs(folder: Path) -> None:
    folder.mkdir()
    for name in ("pip", "pip3"):
        program = folder / name
        program.write_text(_PIP_PROGRAM, encoding="utf-8")
        program.chmod(0o755)


def _check_script(node: NodePin, path: Path) -> bool:
    if not path.is_file():
        if node.install_script_sha256 is not None:
            raise InstallScriptChanged(node=node.name, expected=node.install_script_sha256.hex, actual="(no file)")
        return False
    actual = Digest.of_file(path)
    if node.install_script_sha256 is not None and actual != node.install_script_sha256:
        raise InstallScriptChanged(node=node.name, expected=node.install_script_sha256.hex, actual=actual.hex)
    return True


def _run_script(build: Path, node: NodePin, path: Path, environment: dict[str, str]) -> None:
    done = run_program([venv_python(build), path], cwd=path.parent, env=environment, timeout_s=SCRIPT_TIMEOUT_S)
    if done.exit_code:
        end = f"exit code {done.exit_code}" if done.exit_code > 0 else f"ended by signal {-done.exit_code}"
        raise InstallScriptFailed(node=node.name, reason=f"{end}: {done.error_summary or 'no output'}")


def _require_same_packages(node: NodePin, before: dict[str, str], after: dict[str, str]) -> None:
    moved = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if moved:
        reason = f"it installed or changed packages that are not in the lock: {', '.join(moved)}; lock them instead"
        raise InstallScriptFailed(node=node.name, reason=reason)


def _stamp_sources(build: Path, node: NodePin) -> dict[str, FileStamp]:
    """Return the stamps of ComfyUI and the other nodes. A script may add files there, and change its own node
    freely.
    """
    own = f"{node_folder(node)}/"
    return {path: stamp for path, stamp in stamp_files(build, COMFYUI_FOLDER).items() if not path.startswith(own)}


def _require_same_sources(node: NodePin, before: dict[str, FileStamp], build: Path) -> None:
    after = _stamp_sources(build, node)
    changed = sorted(path for path, stamp in before.items() if after.get(path) != stamp)
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        reason = f"it changed files outside its own folder: {', '.join(changed[:5])}{more}"
        raise InstallScriptFailed(node=node.name, reason=reason)


def _list_distributions(build: Path) -> dict[str, str]:
    names = [folder.name.removesuffix(".dist-info") for folder in site_packages(build).glob("*.dist-info")]
    return {normalize_name(name.rpartition("-")[0]): name.rpartition("-")[2] for name in names}


def _script_environment(build: Path, shim: str, pins: Path, *, offline: bool) -> dict[str, str]:
    ours = clean_environment()
    venv = build / VENV_FOLDER
    return {
        **ours,
        "PATH": f"{venv / 'bin'}:{shim}/bin:{ours.get('PATH', '')}",
        "VIRTUAL_ENV": str(venv),
        "PYTHONPATH": shim,
        "PYTHONNOUSERSITE": "1",
        # Byte-code of a script would not belong to any package.
        "PYTHONDONTWRITEBYTECODE": "1",
        # A script that asks for another version of a locked package fails here, not at run time.
        "UV_CONSTRAINT": str(pins),
        # A script may edit what it installs; a hard link would edit uv's cache.
        "UV_LINK_MODE": "copy",
        "COMFYUI_PATH": str(build / COMFYUI_FOLDER),
        **({"UV_OFFLINE": "1"} if offline else {}),
    }

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


def run_install_scripts(build_folder: Path, recipe: EnvRecipe, *, offline: bool, report: Callable[[str], None]) -> None:
    """Run the scripts that the lock says are to be run.

    Raises `InstallScriptChanged` (before anything is run) and `InstallScriptFailed`.
    """
    scripted_nodes = [node_pin for node_pin in recipe.nodes if node_pin.install_script == "run"]
    script_paths = [(node_pin, build_folder / node_folder(node_pin) / "install.py") for node_pin in scripted_nodes]
    present_scripts = [
        (node_pin, script_path) for node_pin, script_path in script_paths if _check_script(node_pin, script_path)
    ]
    if not present_scripts:
        return
    versions_before = _list_distributions(build_folder)
    with temp_folder("pip") as temporary_folder:
        shim_folder = Path(temporary_folder, "pip")
        shim_folder.mkdir()
        (shim_folder / "__init__.py").write_text("", encoding="utf-8")
        (shim_folder / "__main__.py").write_text(_PIP_SHIM.format(uv=str(find_uv())), encoding="utf-8")
        _write_programs(Path(temporary_folder, "bin"))
        pins_path = Path(temporary_folder, "pins.txt")
        pin_lines = [f"{package_pin.name}=={package_pin.version}" for package_pin in recipe.packages]
        pins_path.write_text("\n".join(pin_lines) + "\n", encoding="utf-8")
        for node_pin, script_path in present_scripts:
            report(f"Running install.py of {node_pin.name}.")
            source_stamps = _stamp_sources(build_folder, node_pin)
            _run_script(
                build_folder,
                node_pin,
                script_path,
                _script_environment(build_folder, str(temporary_folder), pins_path, offline=offline),
            )
            _require_same_packages(node_pin, versions_before, _list_distributions(build_folder))
            _require_same_sources(node_pin, source_stamps, build_folder)


def _write_programs(programs_folder: Path) -> None:
    programs_folder.mkdir()
    for program_name in ("pip", "pip3"):
        program_path = programs_folder / program_name
        program_path.write_text(_PIP_PROGRAM, encoding="utf-8")
        program_path.chmod(0o755)


def _check_script(node_pin: NodePin, script_path: Path) -> bool:
    if not script_path.is_file():
        if node_pin.install_script_sha256 is not None:
            raise InstallScriptChanged(
                node=node_pin.name, expected=node_pin.install_script_sha256.hex, actual="(no file)"
            )
        return False
    actual_digest = Digest.of_file(script_path)
    if node_pin.install_script_sha256 is not None and actual_digest != node_pin.install_script_sha256:
        raise InstallScriptChanged(
            node=node_pin.name, expected=node_pin.install_script_sha256.hex, actual=actual_digest.hex
        )
    return True


def _run_script(build_folder: Path, node_pin: NodePin, script_path: Path, environment: dict[str, str]) -> None:
    finished = run_program(
        [venv_python(build_folder), script_path], cwd=script_path.parent, env=environment, timeout_s=SCRIPT_TIMEOUT_S
    )
    if finished.exit_code:
        exit_reason = (
            f"exit code {finished.exit_code}" if finished.exit_code > 0 else f"ended by signal {-finished.exit_code}"
        )
        raise InstallScriptFailed(node=node_pin.name, reason=f"{exit_reason}: {finished.error_summary or 'no output'}")


def _require_same_packages(node_pin: NodePin, versions_before: dict[str, str], versions_after: dict[str, str]) -> None:
    moved_packages = sorted(
        package_name
        for package_name in versions_before.keys() | versions_after.keys()
        if versions_before.get(package_name) != versions_after.get(package_name)
    )
    if moved_packages:
        reason = (
            f"it installed or changed packages that are not in the lock: {', '.join(moved_packages)}; lock them instead"
        )
        raise InstallScriptFailed(node=node_pin.name, reason=reason)


def _stamp_sources(build_folder: Path, node_pin: NodePin) -> dict[str, FileStamp]:
    """Return the stamps of ComfyUI and the other nodes. A script may add files there, and change its own node
    freely.
    """
    own_prefix = f"{node_folder(node_pin)}/"
    return {
        relative_path: file_stamp
        for relative_path, file_stamp in stamp_files(build_folder, COMFYUI_FOLDER).items()
        if not relative_path.startswith(own_prefix)
    }


def _require_same_sources(node_pin: NodePin, stamps_before: dict[str, FileStamp], build_folder: Path) -> None:
    stamps_after = _stamp_sources(build_folder, node_pin)
    changed_paths = sorted(
        relative_path
        for relative_path, file_stamp in stamps_before.items()
        if stamps_after.get(relative_path) != file_stamp
    )
    if changed_paths:
        omitted_note = f" and {len(changed_paths) - 5} more" if len(changed_paths) > 5 else ""
        reason = f"it changed files outside its own folder: {', '.join(changed_paths[:5])}{omitted_note}"
        raise InstallScriptFailed(node=node_pin.name, reason=reason)


def _list_distributions(build_folder: Path) -> dict[str, str]:
    distribution_names = [
        dist_info.name.removesuffix(".dist-info") for dist_info in site_packages(build_folder).glob("*.dist-info")
    ]
    return {
        normalize_name(distribution_name.rpartition("-")[0]): distribution_name.rpartition("-")[2]
        for distribution_name in distribution_names
    }


def _script_environment(build_folder: Path, shim_folder: str, pins_path: Path, *, offline: bool) -> dict[str, str]:
    clean_variables = clean_environment()
    venv_folder = build_folder / VENV_FOLDER
    return {
        **clean_variables,
        "PATH": f"{venv_folder / 'bin'}:{shim_folder}/bin:{clean_variables.get('PATH', '')}",
        "VIRTUAL_ENV": str(venv_folder),
        "PYTHONPATH": shim_folder,
        "PYTHONNOUSERSITE": "1",
        # Byte-code of a script would not belong to any package.
        "PYTHONDONTWRITEBYTECODE": "1",
        # A script that asks for another version of a locked package fails here, not at run time.
        "UV_CONSTRAINT": str(pins_path),
        # A script may edit what it installs; a hard link would edit uv's cache.
        "UV_LINK_MODE": "copy",
        "COMFYUI_PATH": str(build_folder / COMFYUI_FOLDER),
        **({"UV_OFFLINE": "1"} if offline else {}),
    }

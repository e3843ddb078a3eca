"""Find the Python of a ComfyUI: a virtual environment in or beside it, conda's, the portable one, the system's."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

# What installers and guides call the environment in or beside ComfyUI; portable builds bring a bare interpreter.
_ENV_NAMES = (".venv", "venv", "env", ".env", "conda", ".conda", "python_embeded", "python_embedded", "standalone-env")
_PYTHONS = ("bin/python", "bin/python3", "python")
_CONDA_HOMES = ("miniconda3", "anaconda3", "miniforge3", "mambaforge", "micromamba")
# ComfyUI imports both before it does anything else.
_RUNS_COMFYUI = "import importlib.util as u, sys; sys.exit(not (u.find_spec('torch') and u.find_spec('aiohttp')))"
# Importing torch from a cold disk takes tens of seconds.
_ANSWER_TIMEOUT_S = 30


def find_python(home: Path, main: Path, environ: Mapping[str, str]) -> tuple[Path | None, tuple[Path, ...]]:
    """Return the Python for `main` (main.py) and all places that were looked at; None if none of them fits.

    An environment in or beside ComfyUI is taken as it is. Others belong to something else as often as not, so they must
    have torch and aiohttp.
    """
    looked_for: list[Path] = []
    for python in _pythons_beside(home, main):
        looked_for.append(python)
        if python.is_file():
            return python, tuple(looked_for)
    # The candidates of a home are many; what was not there need not be listed name by name.
    looked_for = [root / ".venv" / "bin" / "python" for root in _roots(home, main)]
    for python in dict.fromkeys(_pythons_elsewhere(environ)):
        if python.is_file():
            looked_for.append(python)
            if _has_torch(python, environ):
                return python, tuple(looked_for)
    return None, tuple(looked_for)


def _roots(home: Path, main: Path) -> tuple[Path, ...]:
    # People put the environment into ComfyUI, or beside it.
    return tuple(dict.fromkeys((home, main.parent, main.parent.parent)))


def _pythons_beside(home: Path, main: Path) -> Iterator[Path]:
    for root in _roots(home, main):
        for folder_name in _ENV_NAMES:
            yield from (root / folder_name / python for python in _PYTHONS)
    # The home may be the environment itself (`python -m venv ~/comfy`).
    if (home / "pyvenv.cfg").is_file() or (home / "conda-meta").is_dir():
        yield home / "bin" / "python"


def _pythons_elsewhere(environ: Mapping[str, str]) -> Iterator[Path]:
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if environ.get(variable):
            yield Path(environ[variable]) / "bin" / "python"
    user_home = Path(environ.get("HOME") or "/")
    conda_homes = [*(user_home / folder_name for folder_name in _CONDA_HOMES), Path("/opt/conda")]
    if environ.get("CONDA_EXE"):
        conda_homes.insert(0, Path(environ["CONDA_EXE"]).parent.parent)
    for conda_home in conda_homes:
        yield from sorted(conda_home.glob("envs/*[cC]omf*/bin/python"))
        yield conda_home / "bin" / "python"
    for program_name in ("python3", "python"):
        if (python_path := shutil.which(program_name, path=environ.get("PATH"))) is not None:
            yield Path(python_path)


def _has_torch(python: Path, environ: Mapping[str, str]) -> bool:
    # Its own packages only: our PYTHONPATH is not the child's.
    own = {variable_name: value for variable_name, value in environ.items() if not variable_name.startswith("PYTHON")}
    try:
        completed = subprocess.run(
            [python, "-c", _RUNS_COMFYUI], env=own, capture_output=True, timeout=_ANSWER_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return completed.returncode == 0

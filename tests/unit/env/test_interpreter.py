"""Which Python an env is made with: the plain one on PATH, else the one that uv finds."""

import os
import sys
import venv
from pathlib import Path

import pytest

from comfypin.env.errors import PythonMissing
from comfypin.env.interpreter import find_interpreter

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
BASE = os.path.realpath(sys.executable)


def only_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    # uv looks among its own Pythons, too.
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))


def test_a_link_on_path_leads_to_the_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"python{MINOR}").symlink_to(BASE)
    only_on_path(tmp_path, monkeypatch)
    assert find_interpreter(f"{MINOR}.0").path == Path(BASE)


def test_a_copy_in_a_virtual_environment_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.EnvBuilder(symlinks=False, with_pip=False).create(tmp_path)
    program = tmp_path / f"bin/python{MINOR}"
    if not program.exists() or program.is_symlink():
        pytest.skip("this Python's venv makes links")
    only_on_path(tmp_path / "bin", monkeypatch)
    with pytest.raises(PythonMissing):
        find_interpreter(MINOR)


@pytest.mark.parametrize("says", ["exit 3", "echo no JSON", "echo '{}'"])
def test_a_program_that_is_no_python_is_passed_over(says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python3.7"
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    only_on_path(tmp_path, monkeypatch)
    with pytest.raises(PythonMissing, match=r"3\.7"):
        find_interpreter("3.7")

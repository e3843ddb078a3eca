"""The runner of `make test`: what fails beside others gets one more try alone, and only that."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[3]

TESTS = """
from pathlib import Path
import pytest

@pytest.mark.xdist_group("a-group")
def test_fails_once():
    mark = Path(__file__).with_name("mark")
    if not mark.exists():
        mark.touch()
        raise AssertionError

@pytest.mark.parametrize("number", range(int(Path(__file__).with_name("wrong").read_text())), ids="{}@x".format)
def test_is_wrong(number):
    raise AssertionError
"""


def run_tests(folder: Path, *, wrong: int) -> tuple[int, str]:
    (folder / "test_some.py").write_text(TESTS)
    (folder / "wrong").write_text(str(wrong))
    (folder / "mark").unlink(missing_ok=True)
    # Not this project's settings and plugins, but workers and groups.
    addopts = "-p xdist.plugin -p xdist.looponfail --dist loadgroup"
    own_settings = {"PYTHONPATH": str(PROJECT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": addopts}
    environment = {**os.environ, **own_settings}
    command = [sys.executable, "-m", "tools.run_tests", "-n", "1"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_what_passes_alone_is_named_as_flaky(tmp_path: Path) -> None:
    exit_code, output = run_tests(tmp_path, wrong=0)
    assert exit_code == 0
    assert "FLAKY" in output
    assert output.endswith("test_some.py::test_fails_once\n")


def test_many_failures_are_not_tried_again(tmp_path: Path) -> None:
    exit_code, output = run_tests(tmp_path, wrong=5)
    assert exit_code == 1
    assert "Trying again" not in output

"""The supported Pythons stand in one place, the Makefile; what must repeat them agrees."""

import re
import tomllib
from pathlib import Path

import pytest

from comfypin.lock.model import DEFAULT_PYTHON

ROOT = Path(__file__).parents[3]


def supported_pythons() -> list[str]:
    line = re.search(r"^PYTHONS := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert line is not None
    return line[1].split()


def test_the_package_says_the_same_pythons() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    prefix = "Programming Language :: Python :: 3."
    versions = [line.rsplit(" ", 1)[1] for line in project["classifiers"] if line.startswith(prefix)]
    assert versions == supported_pythons()
    assert project["requires-python"] == f">={supported_pythons()[0]}"


def test_ci_tests_the_same_pythons() -> None:
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    matrix = re.search(r"^ +python: \[(.+)\]$", workflow, re.MULTILINE)
    assert matrix is not None
    assert re.findall(r'"([\d.]+)"', matrix[1]) == supported_pythons()


def test_the_checkers_hold_the_code_to_the_oldest_one() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    oldest = supported_pythons()[0]
    assert tools["mypy"]["python_version"] == oldest
    assert tools["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("docker/Dockerfile", r"BASE=python:([\d.]+)-"),
        (".devcontainer/devcontainer.json", r"/python:([\d.]+)-"),
        (".github/workflows/release.yml", r'python-version: "([\d.]+)"'),
        ("docs/examples/image.yml", r'python-version: "([\d.]+)"'),
    ],
)
def test_images_and_releases_take_the_default_python(file: str, pattern: str) -> None:
    assert set(re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"))) == {DEFAULT_PYTHON}
    assert DEFAULT_PYTHON in supported_pythons()

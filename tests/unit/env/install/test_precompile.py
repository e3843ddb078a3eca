"""Modules compiled ahead of a start: which ones, whether Python takes them, and when they are left alone."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from comfypin.env.install.compile_script import find_imports
from comfypin.env.install.precompile import Precompiler


@pytest.mark.parametrize(
    ("source", "package", "found"),
    [
        ("import a, b.c as d  # why\n", "", ["a", "b.c"]),
        ("from a.b import (\n    c,  # why\n    d as e,\n)\n", "", ["a.b", "a.b.c", "a.b.d"]),
        ("from . import x\nfrom ..y import z\n", "p.q", ["p.q", "p.q.x", "p.y", "p.y.z"]),
        ("try:\n    import a\nexcept ImportError:\n    import b\n", "", ["a", "b"]),
        ("def f():\n    import a\nimport b\n", "", ["b"]),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import b\n", "", ["b"]),
        ("from ... import x\n", "p", []),
    ],
)
def test_the_imports_that_importing_a_module_reaches(source: str, package: str, found: list[str]) -> None:
    assert list(find_imports(source, package)) == found


class Place:
    """A ComfyUI, unpacked wheels, and a site-packages folder that shares their files, as uv makes it."""

    def __init__(self, root: Path) -> None:
        self.root, self.site, self.comfyui = root, root / "site", root / "ComfyUI"
        self.site.mkdir()

    def write(self, folder: str, files: Mapping[str, str]) -> Path:
        for name, text in files.items():
            path = self.root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self.root / folder

    def wheel(self, name: str, files: Mapping[str, str]) -> str:
        folder = self.write(name, {**files, f"{name}-1.0.dist-info/RECORD": ""})
        for path in files:
            (self.site / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(folder / path, self.site / path)
        return str(folder)

    def byte_code(self, module: str) -> Path:
        path = self.site / module
        return path.with_name("__pycache__") / f"{path.stem}.{sys.implementation.cache_tag}.pyc"


def wait_for(path: Path, *, gone: bool = False) -> None:
    until = time.monotonic() + 30
    while path.exists() is gone and time.monotonic() < until:
        time.sleep(0.01)
    assert path.exists() is not gone


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_a_start_imports_is_compiled_and_python_takes_it(place: Place) -> None:
    place.write("ComfyUI", {"main.py": "import comfy\n", "comfy.py": "from alpha import more\n"})
    folder = place.wheel("alpha", {"alpha/__init__.py": "", "alpha/more.py": "import beta\n", "alpha/idle.py": ""})
    with Precompiler(Path(sys.executable), place.site) as compiler:
        compiler.add_comfyui(place.comfyui, [])
        compiler.add_unpacked(folder)
        # What arrives later is what somebody waits for.
        wait_for(place.byte_code("alpha/more.py"))
        compiler.add_unpacked(place.wheel("beta", {"beta.py": ""}))
        wait_for(place.byte_code("beta.py"))
    asked = [sys.executable, "-B", "-v", "-c", "import alpha.more"]
    environment = {**os.environ, "PYTHONPATH": str(place.site)}
    said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60, env=environment).stderr
    for module in ("alpha/__init__.py", "alpha/more.py", "beta.py"):
        assert f"{place.byte_code(module).name} matches {place.site / module}" in said
    assert not place.byte_code("alpha/idle.py").exists()


def test_packages_that_are_tried_first_are_compiled_without_an_import(place: Place) -> None:
    place.write("ComfyUI", {"main.py": ""})
    with Precompiler(Path(sys.executable), place.site) as compiler:
        compiler.add_unpacked(place.wheel("Al_pha", {"alpha.py": ""}))
        compiler.add_comfyui(place.comfyui, ["al-pha"])
        wait_for(place.byte_code("alpha.py"))


def test_what_two_packages_bring_is_left_to_the_start(place: Place) -> None:
    place.write("ComfyUI", {"main.py": "import tests\nimport last\n"})
    with Precompiler(Path(sys.executable), place.site) as compiler:
        compiler.add_unpacked(place.wheel("one", {"tests/__init__.py": "x = 1\n"}))
        compiler.add_comfyui(place.comfyui, [])
        wait_for(place.byte_code("tests/__init__.py"))
        (place.site / "tests/__init__.py").unlink()
        compiler.add_unpacked(place.wheel("two", {"tests/__init__.py": "x = 2\n"}))
        wait_for(place.byte_code("tests/__init__.py"), gone=True)


def test_a_module_that_does_not_compile_keeps_none_from_it(place: Place) -> None:
    place.write("ComfyUI", {"main.py": "import broken\nimport sound\n"})
    with Precompiler(Path(sys.executable), place.site) as compiler:
        compiler.add_unpacked(place.wheel("broken", {"broken.py": "def\n", "sound.py": ""}))
        compiler.add_comfyui(place.comfyui, [])
        wait_for(place.byte_code("sound.py"))


def test_a_nodes_own_files_are_left_to_the_start(place: Place) -> None:
    place.write("ComfyUI", {"main.py": "", "custom_nodes/n/__init__.py": "import alpha\n"})
    with Precompiler(Path(sys.executable), place.site) as compiler:
        compiler.add_unpacked(place.wheel("alpha", {"alpha.py": ""}))
        compiler.add_comfyui(place.comfyui, [])
        wait_for(place.byte_code("alpha.py"))
    assert not list(place.comfyui.glob("custom_nodes/n/__pycache__/*"))


def test_nothing_is_started_where_nothing_is_unpacked(place: Place) -> None:
    with Precompiler(Path("/nonexistent/python"), place.site) as compiler:
        compiler.add_comfyui(place.comfyui, [])


def test_without_its_process_nothing_is_missed(place: Place) -> None:
    with Precompiler(Path("/nonexistent/python"), place.site) as compiler:
        compiler.add_unpacked(place.wheel("alpha", {"alpha.py": ""}))
        compiler.add_comfyui(place.comfyui, [])

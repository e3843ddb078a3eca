"""The wheel and the sdist: installed into an empty environment elsewhere, they run the demo from their own data."""

import email
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from comfypin import __version__
from tests.support.door import ROOT, clean_environ

pytestmark = pytest.mark.timeout(400)

UV = Path(sys.executable).with_name("uv")


def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, cwd=cwd, env=clean_environ(), timeout=170, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--quiet", "--out-dir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an empty environment with nothing but the wheel and what it depends on."""
    environment = tmp_path_factory.mktemp("elsewhere") / "env"
    run(UV, "venv", "--quiet", "--python", sys.executable, environment, cwd=environment.parent)
    (wheel,) = built.glob("*.whl")
    run(UV, "pip", "install", "--quiet", "--python", environment / "bin" / "python", wheel, cwd=environment.parent)
    return environment / "bin" / "python"


def test_the_wheel_holds_both_packages_and_the_demo_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert roots == {"comfypin", "rp_handler"}
    assert {"comfypin/data/workflows/demo.json", "comfypin/data/workflows/demo.png"} <= set(names)
    assert "comfypin/data/lockfiles/comfy-demo.lock.json" in names
    assert "comfypin/py.typed" in names
    assert {"comfypin/server/page/index.html", "comfypin/server/page/vendor/htm-preact.js"} <= set(names)


def test_the_index_would_take_both_files(built: Path) -> None:
    files = sorted([*built.glob("*.whl"), *built.glob("*.tar.gz")])
    assert len(files) == 2
    checked = run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=built)
    assert checked.stdout.count("PASSED") == 2


def test_the_wheel_fits_every_machine_and_says_where_the_project_lives(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"comfypin-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    addresses = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL", []))
    assert addresses.keys() == {"Documentation", "Repository", "Changelog", "Issues"}
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"


def test_uvx_runs_the_demo_from_the_wheel_alone(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    words = ["tool", "run", "--quiet", "--python", sys.executable, "--from", wheel, "comfypin", "demo"]
    run(UV, *words, "--out-file", "demo.png", cwd=tmp_path)
    assert (tmp_path / "demo.png").stat().st_size > 10_000


def test_the_installed_command_runs_the_demo(python: Path, tmp_path: Path) -> None:
    run(python.with_name("comfypin"), "demo", "--out-file", "demo.png", cwd=tmp_path)
    with Image.open(tmp_path / "demo.png") as picture:
        assert picture.size == (1280, 800)


def test_the_installed_door_runs_a_release_by_its_name(python: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text("{}")
    words = ["--lock", "demo", "--workflow", "empty.json", "--output", "file", "--out-dir", "out", "--json"]
    done = run(python, "-m", "rp_handler.main", *words, cwd=tmp_path)
    (output,) = json.loads(done.stdout)["outputs"]
    assert (tmp_path / output["uri"]).is_file()


def test_the_base_install_needs_no_sdk(python: Path, tmp_path: Path) -> None:
    program = "import importlib.util as u; print([m for m in ('google', 'runpod', 'fastapi') if u.find_spec(m)])"
    assert run(python, "-c", program, cwd=tmp_path).stdout.strip() == "[]"

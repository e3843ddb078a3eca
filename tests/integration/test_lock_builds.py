"""Packages without a wheel: who asks for them and which wheel would do, when a lock or an env is made."""

import io
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.env.errors import PackageUnbuilt
from comfypin.env.install.sources import SourceLocations
from comfypin.env.layout import Home
from comfypin.env.realize import RealizeOptions, realize_env
from comfypin.lock.model import PackagePin
from comfypin.lock.requirements import read_requirements
from comfypin.locking.errors import PackageUnbuildable
from comfypin.locking.resolve import ResolveRequest, resolve_packages
from comfypin.locking.wheel_hints import source_notes
from tests.support.package_index import package_index
from tests.support.releases import PYTHON, Repo, make_wheel, small_release

BROKEN = "raise RuntimeError('there is no nvcc here')\n"
BACKEND = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def silent(_: str) -> None:
    """Nobody listens."""


def make_source(folder: Path, name: str, version: str) -> Path:
    """A source archive whose build fails, and which says nothing before it is built."""
    path = folder / f"{name}-{version}.tar.gz"
    files = {"pyproject.toml": BACKEND, "backend.py": BROKEN, "PKG-INFO": f"Metadata-Version: 1.0\nName: {name}\n"}
    with tarfile.open(path, "w:gz") as archive:
        for file, text in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{file}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("index")
    make_source(folder, "flash_thing", "2.0")
    make_wheel(folder, "flash_thing", "1.0", {"flash_thing.py": ""})
    make_source(folder, "one_python", "1.0")
    made = make_wheel(folder, "one_python", "1.0", {"one_python.py": ""})
    wheel = folder / str(made.url).rpartition("/")[2]
    shutil.move(wheel, folder / "one_python-1.0-cp312-cp312-manylinux_2_17_x86_64.whl")
    with package_index(folder) as server:
        yield f"{server.url}/simple"


def a_question(index: str, requirement: str) -> ResolveRequest:
    needs = read_requirements("r.txt", origin="the node blur", read={"r.txt": requirement}.get)
    return ResolveRequest(needs=needs, python=PYTHON, platforms=("linux-x86_64",), indexes=(index,))


def test_a_build_that_fails_names_the_node_the_package_and_the_version_that_has_a_wheel(index: str) -> None:
    with pytest.raises(PackageUnbuildable) as caught:
        resolve_packages(a_question(index, "flash-thing==2.0\n"), report=silent)
    assert "flash-thing 2.0 has no wheel (flash-thing (the node blur))" in caught.value.message
    assert "--override 'flash-thing==1.0'" in caught.value.message
    assert "nvcc" in caught.value.message


def test_a_source_that_is_locked_is_said_with_the_python_that_has_a_wheel(index: str) -> None:
    question = a_question(index, "one-python\n")
    pins = resolve_packages(question, report=silent).packages
    (note,) = source_notes(pins, question.needs, python=PYTHON, platform="linux-x86_64", indexes=(index,))
    assert "one-python (the node blur) 1.0 has no wheel" in note
    assert "one-python 1.0 has a wheel for Python 3.12: --python 3.12" in note


def test_realize_names_the_node_whose_package_cannot_be_built(tmp_path: Path) -> None:
    release = small_release(tmp_path)
    source = make_source(tmp_path, "flash_thing", "2.0")
    pin = PackagePin(name="flash-thing", version="2.0", url=source.as_uri(), sha256=(Digest.of_file(source),))
    commit = Repo(release.nodes["node-one"].folder).commit({"requirements.txt": "flash_thing>=2\n"})
    nodes = tuple(
        replace(node, commit=commit) if node.name == "node-one" else node for node in release.lock.custom_nodes
    )
    lock = replace(
        release.lock,
        custom_nodes=nodes,
        python=replace(release.lock.python, packages=(*release.lock.python.packages, pin)),
    )
    options = RealizeOptions(
        home=Home(root=tmp_path / "home"),
        models_dir=tmp_path / "models",
        locations=SourceLocations(cache=tmp_path / "cache"),
    )
    with pytest.raises(PackageUnbuilt, match=r"flash-thing 2\.0 \(the node node-one wants flash_thing>=2\) has"):
        realize_env(lock, options)

"""What a user takes of a file of another tool."""

from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.lock.model import Lock, PackagePin, PythonPins
from comfypin.lock.model_spec import ModelSpec
from comfypin.lock.requirements import RequirementLine, RequirementSet
from comfypin.locking.errors import CaptureRefused, FileWithoutComfyUI, NothingToLeaveOut
from comfypin.locking.from_file import FileChoices, choose_parts, differing_packages
from comfypin.locking.installed_requirements import find_unmet_requirements
from comfypin.locking.node_registry import NodeRegistry
from comfypin.locking.release_files.document import ReleaseFile, UnpinnablePart
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.sources import Upstreams
from comfypin.tools.git import CommitSource
from tests.support.repositories import commit


@pytest.fixture
def comfyui(tmp_path: Path) -> RepoSpec:
    ref = commit(tmp_path / "comfyui", {"main.py": "", "custom_nodes/websocket_image_save.py": ""})
    return RepoSpec(repo=(tmp_path / "comfyui").as_uri(), ref=ref)


@pytest.fixture
def places(tmp_path: Path) -> Upstreams:
    return Upstreams(
        commits=CommitSource(cache=tmp_path / "git"),
        registry=NodeRegistry(url="http://127.0.0.1:9"),
        archives=tmp_path / "archives",
    )


@pytest.fixture
def release(comfyui: RepoSpec) -> ReleaseFile:
    return ReleaseFile(
        kind="a snapshot",
        comfyui=comfyui,
        nodes=(RepoSpec(repo="https://x.org/o/My-Pack", ref="1" * 40, folder="My-Pack"),),
        installed=("lazr.uri==1.0.6", "GPUtil==1.4.0", "torch==2.8.0", "torchvision==0.23.0"),
        models=(ModelSpec(sources=("https://x.org/a",), target="vae/a.pth", name="A"),),
    )


def chosen(release: ReleaseFile, places: Upstreams, **choices: object) -> ReleaseFile:
    return choose_parts(release, FileChoices(path="x.json", **choices), places).release  # type: ignore[arg-type]


def test_names_of_packages_are_compared_as_indexes_do(release: ReleaseFile, places: Upstreams) -> None:
    left = chosen(release, places, left_out=frozenset({"lazr-uri", "gputil"})).installed
    assert left == ("torch==2.8.0", "torchvision==0.23.0")


def test_leaving_torch_out_leaves_torchvision_in(release: ReleaseFile, places: Upstreams) -> None:
    assert "torchvision==0.23.0" in chosen(release, places, left_out=frozenset({"torch"})).installed


@pytest.mark.parametrize("name", ["my_pack", "https://x.org/o/My-Pack"])
def test_a_node_is_left_out_by_its_folder_or_its_address(name: str, release: ReleaseFile, places: Upstreams) -> None:
    assert chosen(release, places, left_out=frozenset({name})).nodes == ()


@pytest.mark.parametrize("name", ["a.pth", "vae/a.pth", "A"])
def test_a_model_is_left_out_by_any_of_its_names(name: str, release: ReleaseFile, places: Upstreams) -> None:
    assert chosen(release, places, left_out=frozenset({name})).models == ()


def test_a_name_that_matches_nothing_is_an_error_with_near_names(release: ReleaseFile, places: Upstreams) -> None:
    with pytest.raises(NothingToLeaveOut) as caught:
        chosen(release, places, left_out=frozenset({"torchvisoin"}))
    assert "--leave-out torchvisoin matches nothing in x.json" in caught.value.message
    assert "torchvision" in caught.value.message


def test_what_comfyuis_own_commit_has_is_no_node(release: ReleaseFile, places: Upstreams) -> None:
    with_file = replace(release, node_files=("websocket_image_save.py",))
    assert "websocket_image_save.py is ComfyUI's own and no node" in chosen(with_file, places).notes


def test_a_node_file_of_somebody_is_refused_until_it_is_left_out(release: ReleaseFile, places: Upstreams) -> None:
    with_file = replace(release, node_files=("mine.py",))
    with pytest.raises(CaptureRefused) as caught:
        chosen(with_file, places)
    assert "mine.py comes from no repository (--leave-out mine.py)" in caught.value.message
    assert chosen(with_file, places, left_out=frozenset({"mine.py"})).nodes == release.nodes


def test_everything_that_cannot_be_pinned_is_refused_at_once(release: ReleaseFile, places: Upstreams) -> None:
    parts = tuple(
        UnpinnablePart(kind=kind, names=(kind,), reason=f"the {kind} is nowhere") for kind in ("node", "model")
    )
    with pytest.raises(CaptureRefused) as caught:
        chosen(replace(release, unpinnable=parts), places)
    assert len(caught.value.facts["reasons"]) == 2  # type: ignore[arg-type]


def test_models_that_are_not_wanted_stop_nothing(release: ReleaseFile, places: Upstreams) -> None:
    lost = UnpinnablePart(kind="model", names=("lost",), reason="the model lost is nowhere")
    broken = replace(release, unpinnable=(lost,))
    assert chosen(broken, places, with_models=False).models == ()
    assert chosen(broken, places, only=frozenset({"a.pth"})).models == release.models


def test_only_names_models_that_the_file_has(release: ReleaseFile, places: Upstreams) -> None:
    with pytest.raises(NothingToLeaveOut, match=r"--only b\.pth"):
        chosen(release, places, only=frozenset({"b.pth"}))


def test_a_file_without_a_comfyui_needs_one(release: ReleaseFile, comfyui: RepoSpec, places: Upstreams) -> None:
    without = replace(release, comfyui=None)
    with pytest.raises(FileWithoutComfyUI, match="--comfyui URL@REF"):
        chosen(without, places)
    assert choose_parts(without, FileChoices(path="x", comfyui=comfyui), places).comfyui == comfyui


def test_another_comfyui_than_the_files_is_said(release: ReleaseFile, places: Upstreams) -> None:
    given = RepoSpec(repo="https://x.org/fork", ref="v9")
    parts = choose_parts(release, FileChoices(path="x", comfyui=given), places)
    assert parts.comfyui == given
    assert any("v9 is taken" in note for note in parts.release.notes)
    # Without a ref the flag only says where the file's commit is.
    named = choose_parts(release, FileChoices(path="x", comfyui=replace(given, ref=None)), places).comfyui
    assert release.comfyui is not None
    assert named == RepoSpec(repo="https://x.org/fork", ref=release.comfyui.ref)


def test_packages_that_differ_from_the_file_are_listed() -> None:
    packages = (PackagePin(name="idna", version="3.8"), PackagePin(name="six", version="1"))
    lock = Lock(version_name="x", python=PythonPins(packages=packages))
    assert differing_packages(("IDNA==3.7", "six==1", "pywin32==306"), lock) == [
        "IDNA is 3.7 in the file, and 3.8 in the lock",
        "installed there, and asked for by nobody, so not in the lock: pywin32==306",
    ]


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ("opencv-python", "opencv-python", "it is not installed"),
        ("idna>=4", "idna", "3.7 is installed"),
        ("idna>=3", "idna", None),
        ("Idna==3.*", "idna", None),
        ("pywin32; sys_platform == 'win32'", "pywin32", None),
        ("tomli; python_version < '3.11'", "tomli", None),
        ("idna @ https://x.org/idna-3.7-py3-none-any.whl", "idna", None),
    ],
)
def test_requirements_are_compared_with_what_was_installed(text: str, name: str, found: str | None) -> None:
    needs = RequirementSet(requirements=(RequirementLine(text=text, name=name, origin="the node X"),))
    packages = (PackagePin(name="idna", version="3.7"),)
    unmet = find_unmet_requirements(needs, packages, python="3.12", platform="linux-x86_64")
    assert [str(item) for item in unmet] == ([] if found is None else [f"the node X wants {text}: {found}"])

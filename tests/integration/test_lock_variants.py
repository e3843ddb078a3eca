"""Packages that overwrite each other: found when a lock is made, chosen, kept; seen in an env that was not chosen."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.env.install.sources import SourceLocations
from comfypin.env.layout import Home, site_packages, venv_python
from comfypin.env.realize import RealizeOptions, realize_env
from comfypin.env.status import check_env
from comfypin.lock.codec import env_digest, parse_lock, render_lock
from comfypin.lock.model import Lock, VariantChoice
from comfypin.lock.requirements import RequirementSet
from comfypin.locking.create import LockRequest, MadeLock, create_lock, pin_exactly
from comfypin.locking.errors import PackagesOverlap, VariantUnknown
from comfypin.locking.node_registry import NodeRegistry
from comfypin.locking.repository_refs import parse_repo_spec
from comfypin.locking.resolve import ResolveRequest
from comfypin.locking.sources import Upstreams
from comfypin.locking.upgrade import UpgradeRequest, resolve_request_of, upgrade_lock
from comfypin.locking.wheel_contents import WheelReader
from comfypin.tools.git import CommitSource
from tests.support.package_index import package_index
from tests.support.releases import PYTHON, Repo, comfyui_files, make_wheel, small_release

OPENCV = {
    "opencv_python": {"cv2/__init__.py": "WHO = 'plain'\n"},
    "opencv_python_headless": {"cv2/__init__.py": "WHO = 'headless'\n"},
    "opencv_contrib_python": {"cv2/__init__.py": "WHO = 'contrib'\n", "cv2/ximgproc.py": "def guidedFilter(): ...\n"},
    "opencv_contrib_python_headless": {
        "cv2/__init__.py": "WHO = 'contrib-headless'\n",
        "cv2/ximgproc.py": "def guidedFilter(): ...\n",
    },
}
OTHERS = {
    "idle_a": {"tests/__init__.py": "WHO = 'a'\n", "idle_a.py": ""},
    "idle_b": {"tests/__init__.py": "WHO = 'b'\n", "idle_b.py": ""},
}


def silent(_: str) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for name, modules in {**OPENCV, **OTHERS}.items():
        for version in ("1.0", "2.0"):
            make_wheel(folder, name, version, modules)
    return folder


@pytest.fixture(scope="module")
def index(wheels: Path) -> Iterator[str]:
    with package_index(wheels) as server:
        yield f"{server.url}/simple"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repositories")


@pytest.fixture(scope="module")
def places(root: Path) -> Upstreams:
    cache = root / "cache"
    return Upstreams(
        commits=CommitSource(cache=cache / "git"),
        registry=NodeRegistry(url="http://127.0.0.1:9"),
        archives=cache / "archives",
    )


def a_request(root: Path, index: str, requirements: dict[str, str], **question: object) -> LockRequest:
    """One node for each of the requirement files."""
    Repo(root / "ComfyUI").commit(comfyui_files())
    specs = []
    for name, text in requirements.items():
        Repo(root / name).commit({"__init__.py": "NODE_CLASS_MAPPINGS = {}\n", "requirements.txt": text})
        specs.append(parse_repo_spec((root / name).as_uri()))
    asked = ResolveRequest(
        needs=RequirementSet(),
        python=PYTHON,
        platforms=("linux-x86_64",),
        indexes=(index,),
        **question,  # type: ignore[arg-type]
    )
    return LockRequest(
        name="rel", comfyui=parse_repo_spec((root / "ComfyUI").as_uri()), nodes=tuple(specs), question=asked
    )


def make(request: LockRequest, places: Upstreams) -> MadeLock:
    def describe(source: str) -> object:
        raise AssertionError(source)

    return create_lock(request, upstreams=places, describe_model=describe, report=silent)  # type: ignore[arg-type]


def versions(lock: Lock) -> dict[str, str]:
    return {pin.name: pin.version for pin in lock.python.packages}


THREE = {"face": "opencv-python\n", "layer": "opencv-contrib-python\n", "video": "opencv-python-headless\n"}


@pytest.fixture(scope="module")
def made(root: Path, index: str, places: Upstreams) -> MadeLock:
    return make(a_request(root, index, THREE), places)


def test_of_three_variants_one_superset_is_locked_and_who_asked_is_said(made: MadeLock) -> None:
    assert versions(made.lock) == {"opencv-contrib-python-headless": "2.0"}
    (note,) = (note for note in made.notes if "cv2" in note)
    for asked in ("opencv-python (the node face)", "opencv-contrib-python (the node layer)", "(the node video)"):
        assert asked in note


def test_the_choice_is_in_the_file(made: MadeLock) -> None:
    (choice,) = parse_lock(render_lock(made.lock), where="made").lock.python.variants
    assert (choice.name, choice.imports) == ("opencv-contrib-python-headless", ("cv2",))
    assert choice.replaces == ("opencv-contrib-python", "opencv-python", "opencv-python-headless")


def test_what_was_replaced_is_no_part_of_the_env(made: MadeLock) -> None:
    assert env_digest(made.lock) == env_digest(replace(made.lock, python=replace(made.lock.python, variants=())))


def test_an_upgrade_keeps_the_choice(made: MadeLock, places: Upstreams) -> None:
    chosen = replace(resolve_request_of(made.lock), wanted_variants=frozenset({"opencv-contrib-python"}))
    first = upgrade(made.lock, UpgradeRequest(name="b", question=chosen), places)
    again = upgrade(first, UpgradeRequest(name="c", packages=("opencv-contrib-python",)), places)
    assert (versions(again), again.python.variants) == ({"opencv-contrib-python": "2.0"}, first.python.variants)


def upgrade(lock: Lock, request: UpgradeRequest, places: Upstreams) -> Lock:
    return upgrade_lock(
        lock,
        request,
        upstreams=places,
        describe_model=None,  # type: ignore[arg-type]
        report=silent,
    ).lock


def test_the_import_works_in_the_env(made: MadeLock, root: Path) -> None:
    env = realize_env(made.lock, options(root, "home"))
    line = "from cv2.ximgproc import guidedFilter; import cv2; print(cv2.WHO)"
    done = subprocess.run([venv_python(env.folder), "-c", line], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "contrib-headless\n"
    assert check_env(Home(root=root / "home"), made.lock).drifts == ()


def options(root: Path, home: str) -> RealizeOptions:
    return RealizeOptions(
        home=Home(root=root / home), models_dir=root / "models", locations=SourceLocations(cache=root / "cache")
    )


def test_another_variant_can_be_named_and_an_override_says_its_version(
    root: Path, index: str, places: Upstreams
) -> None:
    request = a_request(
        root,
        index,
        THREE,
        wanted_variants=frozenset({"opencv-python-headless"}),
        overrides=("opencv-python-headless==1.0",),
    )
    assert versions(make(request, places).lock) == {"opencv-python-headless": "1.0"}


def test_the_versions_that_nodes_ask_for_hold_for_the_one_in_their_place(
    root: Path, index: str, places: Upstreams
) -> None:
    request = a_request(root, index, {**THREE, "face": "opencv-python<2\n"})
    assert versions(make(request, places).lock) == {"opencv-contrib-python-headless": "1.0"}


def test_one_variant_alone_stays(root: Path, index: str, places: Upstreams) -> None:
    made = make(a_request(root, index, {"face": "opencv-python\n"}), places)
    assert (versions(made.lock), made.lock.python.variants) == ({"opencv-python": "2.0"}, ())


def test_other_bytes_at_one_path_are_refused_and_both_are_named(root: Path, index: str, places: Upstreams) -> None:
    request = a_request(root, index, {"face": "idle-a\n", "layer": "idle-b\n"})
    with pytest.raises(
        PackagesOverlap, match=r"tests/__init__\.py.*idle-a \(the node face\), idle-b \(the node layer\)"
    ):
        make(request, places)


def test_a_variant_that_chooses_nothing_is_refused(root: Path, index: str, places: Upstreams) -> None:
    request = a_request(root, index, {"face": "idle-a\n"}, wanted_variants=frozenset({"idle-b"}))
    with pytest.raises(VariantUnknown, match="idle-b"):
        make(request, places)


def test_the_chosen_ones_files_are_in_the_env_and_both_packages_stay(root: Path, index: str, places: Upstreams) -> None:
    request = a_request(root, index, {"face": "idle-a\n", "layer": "idle-b\n"}, wanted_variants=frozenset({"idle-a"}))
    lock = make(request, places).lock
    assert lock.python.variants[0].overwrites == ("idle-b",)
    env = realize_env(lock, options(root, "chosen"))
    site = site_packages(env.folder)
    assert (site / "tests/__init__.py").read_text() == "WHO = 'a'\n"
    assert (site / "idle_b.py").is_file()
    assert check_env(Home(root=root / "chosen"), lock).drifts == ()
    other = replace(lock.python, variants=(VariantChoice(name="idle-b", overwrites=("idle-a",)),))
    assert env_digest(lock) != env_digest(replace(lock, python=other))


def test_an_old_lock_with_an_overlap_says_so_in_realize_and_in_status(tmp_path: Path, wheels: Path) -> None:
    release = small_release(tmp_path)
    pins = [
        make_wheel(tmp_path / "wheels", name, "1.0", OPENCV[name])
        for name in ("opencv_python", "opencv_contrib_python")
    ]
    lock = replace(release.lock, python=replace(release.lock.python, packages=(*release.lock.python.packages, *pins)))
    said: list[str] = []
    realize_env(lock, replace(options(tmp_path, "home"), report=said.append))
    assert any("opencv-contrib-python and opencv-python bring cv2/__init__.py" in line for line in said)
    (drift,) = check_env(Home(root=tmp_path / "home"), lock).drifts
    assert (drift.kind, drift.subject) == ("packages-overlap", "cv2")
    assert "--variant" in drift.text


def test_what_was_installed_side_by_side_is_pinned_and_said(index: str) -> None:
    said: list[str] = []
    request = ResolveRequest(
        needs=RequirementSet(), python=PYTHON, platforms=("linux-x86_64",), indexes=(index,), wheels=WheelReader()
    )
    pins = pin_exactly(["opencv-python==1.0", "opencv-contrib-python==1.0"], request, said.append)
    assert len(pins.packages) == 2
    assert any("opencv-contrib-python and opencv-python bring cv2/__init__.py" in line for line in said)


@pytest.mark.parametrize("whole_files_only", [False, True])
def test_a_wheel_is_looked_into_where_it_is(tmp_path: Path, *, whole_files_only: bool) -> None:
    pin = make_wheel(tmp_path, "opencv_python", "1.0", OPENCV["opencv_python"])
    with package_index(tmp_path, whole_files_only=whole_files_only) as server:
        remote = replace(pin, url=f"{server.url}/files/opencv_python-1.0-py3-none-any.whl")
        reader = WheelReader(notes_folder=tmp_path / "notes")
        (contents,), unread = reader.read_contents([remote])
        asked = len(server.requests)
        assert reader.read_contents([remote])[0] == (contents,)
        assert len(server.requests) == asked, "a wheel never changes, so its note does"
    assert unread == ()
    assert set(contents.files) == {
        "cv2/__init__.py",
        *(f"opencv_python-1.0.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD")),
    }


def test_a_package_without_a_wheel_is_named_as_not_looked_into(tmp_path: Path) -> None:
    pin = make_wheel(tmp_path, "a", "1.0", {})
    source = replace(pin, name="b", url="https://x.invalid/b-1.tar.gz")
    contents, unread = WheelReader().read_contents([pin, source])
    assert ([wheel.name for wheel in contents], unread) == (["a"], ("b",))

"""What the caches save a later build: a start of ComfyUI, downloads, second readings; and that none of it is blind."""

import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.env.errors import ProbeFailed
from comfypin.env.install.sources import SourceLocations
from comfypin.env.layout import Home, site_packages, venv_python
from comfypin.env.realize import RealizeOptions, realize_env
from comfypin.lock.model import PackagePin
from tests.support.releases import SmallRelease, make_wheel, small_release
from tests.support.served import served


def options(release: SmallRelease, name: str, **changes: object) -> RealizeOptions:
    home = Home(root=release.root / name)
    given = RealizeOptions(
        home=home,
        models_dir=release.root / "models",
        locations=SourceLocations(cache=release.root / "cache", named_uv_cache=release.root / "uv"),
    )
    return replace(given, **changes)  # type: ignore[arg-type]


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRelease:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return small_release(tmp_path)


def with_node(release: SmallRelease, code: str) -> SmallRelease:
    """The release with other code in its first node."""
    pin = release.lock.custom_nodes[0]
    commit = release.nodes[pin.name].commit({"__init__.py": code})
    nodes = (replace(pin, commit=commit), *release.lock.custom_nodes[1:])
    return release.changed(custom_nodes=nodes)


# -- ComfyUI is started once for the same bytes


def counting(release: SmallRelease) -> tuple[SmallRelease, Path]:
    """A release whose node notes each import in a file outside."""
    starts = release.root / "starts"
    return with_node(release, f"open({str(starts)!r}, 'a').write('.')\nNODE_CLASS_MAPPINGS = {{}}\n"), starts


def test_the_same_bytes_are_started_once_on_a_machine(release: SmallRelease) -> None:
    release, starts = counting(release)
    made = [realize_env(release.lock, options(release, name)) for name in ("first", "second")]
    assert starts.read_text() == "."
    assert made[0].receipt == made[1].receipt


def test_a_rebuild_starts_them_again(release: SmallRelease) -> None:
    release, starts = counting(release)
    realize_env(release.lock, options(release, "home"))
    realize_env(release.lock, options(release, "home", rebuild=True))
    assert starts.read_text() == ".."


def test_other_libraries_of_the_machine_start_them_again(
    release: SmallRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, starts = counting(release)
    realize_env(release.lock, options(release, "first"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(release.root))
    realize_env(release.lock, options(release, "second"))
    assert starts.read_text() == ".."


def test_a_start_that_failed_is_not_remembered(release: SmallRelease) -> None:
    wall = release.root / "wall"
    wall.touch()
    release = with_node(release, f"import os\nassert not os.path.exists({str(wall)!r}), 'a wall'\n")
    with pytest.raises(ProbeFailed, match="a wall"):
        realize_env(release.lock, options(release, "home"))
    wall.unlink()
    assert realize_env(release.lock, options(release, "home")).action == "build"


# -- a wheel whose own RECORD is wrong


def lying_wheel(folder: Path) -> PackagePin:
    """A wheel with another file than its RECORD says."""
    pin = make_wheel(folder, "liar", "1.0", {"liar/__init__.py": "TRUTH = 1\n", "liar/more.py": ""})
    path = folder / "liar-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["liar/__init__.py"] = b"TRUTH = 2\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return replace(pin, sha256=(Digest.of_file(path),))


def test_a_wheel_whose_record_is_wrong_is_not_downloaded_for_each_env(release: SmallRelease) -> None:
    pin = lying_wheel(release.root / "served")
    with served(release.root / "served") as (address, asked):
        pin = replace(pin, url=f"{address}/liar-1.0-py3-none-any.whl")
        pins = replace(release.lock.python, packages=(*release.lock.python.packages, pin))
        release = release.changed(python=pins)
        first = realize_env(release.lock, options(release, "first"))
        asked.clear()
        reports: list[str] = []
        second = realize_env(release.lock, options(release, "second", report=reports.append))
        assert asked == [], reports  # says whether we asked again or uv did
        # An edit is told from the wheel's own fault.
        module = site_packages(second.folder) / "liar/__init__.py"
        assert module.read_text() == "TRUTH = 2\n"
        module.write_text("TRUTH = 3\n")
        third = realize_env(release.lock, options(release, "third"))
        assert (site_packages(third.folder) / "liar/__init__.py").read_text() == "TRUTH = 2\n"
        assert first.receipt == second.receipt == third.receipt


# -- byte-code that starting ComfyUI made


def byte_code(folder: Path) -> Path:
    (found,) = (site_packages(folder) / "alpha/__pycache__").glob("__init__.*.pyc")
    return found


def uses_byte_code(folder: Path) -> bool:
    """Whether Python takes alpha's byte-code as it is there."""
    asked = [str(venv_python(folder)), "-B", "-v", "-c", "import alpha"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stderr
    return f"{byte_code(folder).name} matches {site_packages(folder)}/alpha/__init__.py" in said


def test_the_next_env_starts_with_byte_code(release: SmallRelease) -> None:
    first = realize_env(release.lock, options(release, "first"))
    second = realize_env(release.lock, options(release, "second"))
    assert byte_code(second.folder).samefile(byte_code(first.folder))
    assert uses_byte_code(second.folder)


def edited(listing: Path, code: Path) -> None:
    code.write_bytes(b"other byte-code")


def unlisted(listing: Path, code: Path) -> None:
    listing.unlink()


def damaged(listing: Path, code: Path) -> None:
    listing.write_text("[")


@pytest.mark.parametrize("change", [edited, unlisted, damaged])
def test_byte_code_that_nothing_vouches_for_is_not_used(
    release: SmallRelease, change: Callable[[Path, Path], None]
) -> None:
    first = realize_env(release.lock, options(release, "first"))
    (listing,) = (release.root / "cache/packages").glob("alpha-*.pyc.json")
    change(listing, byte_code(first.folder))
    second = realize_env(release.lock, options(release, "second"))
    assert list(site_packages(second.folder).glob("alpha/__pycache__/*")) == []
    # Once it is made again, it is kept again.
    realize_env(release.lock, options(release, "third", rebuild=True))
    fourth = realize_env(release.lock, options(release, "fourth"))
    assert uses_byte_code(fourth.folder)


# -- compiling ahead


def test_uv_links_an_env_to_what_it_unpacked(release: SmallRelease) -> None:
    """What compiling ahead relies on: without it nothing breaks, but the first start takes longer."""
    realized = realize_env(release.lock, options(release, "home"))
    inode = (site_packages(realized.folder) / "alpha/__init__.py").stat().st_ino
    assert inode in {path.stat().st_ino for path in (release.root / "uv/archive-v0").rglob("__init__.py")}

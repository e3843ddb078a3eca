"""No network: a vendor folder brings everything, and a cache that somebody changed is not believed."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.cli.main import main
from comfypin.env.layout import Home, site_packages
from comfypin.env.realize import RealizeOptions, realize
from comfypin.env.sources import SourcePlaces
from comfypin.env.space import require_space, wheel_sizes
from comfypin.errors.env import DiskTooSmall, PackageDamaged, PackageHashMismatch, PackagesUnavailable
from comfypin.lock.model import PythonPins
from comfypin.tools.vendor import VendorFolder
from tests.support.releases import PYTHON, SmallRelease, resolve_from_pypi, small_release


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRelease:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return small_release(tmp_path)


def options(release: SmallRelease, name: str, places: SourcePlaces | None = None) -> RealizeOptions:
    home = Home(root=release.root / name)
    places = places or SourcePlaces(cache=release.root / "cache")
    return RealizeOptions(home=home, models_dir=home.root / "models", places=places)


def vendored(release: SmallRelease) -> VendorFolder:
    """A vendor folder of the release, and every upstream deleted."""
    folder = VendorFolder(root=release.root / "vendor")
    lock = release.write_lock()
    assert main(["lock", "vendor", str(folder.root), "--lock", str(lock)]) == 0
    for repo in (release.comfyui, *release.nodes.values()):
        shutil.rmtree(repo.folder)
    shutil.rmtree(release.root / "wheels")
    return folder


def test_a_vendor_folder_is_enough(release: SmallRelease) -> None:
    online = realize(release.lock, options(release, "online"))
    folder = vendored(release)
    shutil.rmtree(release.root / "uv")
    places = SourcePlaces(cache=release.root / "empty", vendor=folder, offline=True)
    assert realize(release.lock, options(release, "offline", places)).receipt == online.receipt


def test_a_changed_wheel_in_a_vendor_folder_is_refused(release: SmallRelease) -> None:
    folder = vendored(release)
    wheel = next(folder.wheels.glob("alpha-*"))
    wheel.write_bytes(wheel.read_bytes() + b"more")
    places = SourcePlaces(cache=release.root / "empty", vendor=folder, offline=True)
    with pytest.raises((PackageHashMismatch, PackagesUnavailable), match="alpha"):
        realize(release.lock, options(release, "offline", places))


def from_registry(release: SmallRelease) -> SmallRelease:
    packages = (*resolve_from_pypi(["tqdm", "idna"]), *release.lock.python.packages)
    return replace(release, lock=replace(release.lock, python=PythonPins(version=PYTHON, packages=packages)))


def change_the_cache(root: Path) -> None:
    """What an edit in an env that uv hard-linked does to uv's cache."""
    (changed,) = (root / "uv").rglob("tqdm/std.py")
    changed.write_text(changed.read_text() + "\nCHANGED = True\n")


def test_a_changed_file_in_the_cache_of_uv_does_not_get_into_an_env(release: SmallRelease) -> None:
    release = from_registry(release)
    first = realize(release.lock, options(release, "first"))
    change_the_cache(release.root)
    second = realize(release.lock, options(release, "second"))
    assert "CHANGED" not in (site_packages(second.folder) / "tqdm/std.py").read_text()
    assert second.receipt == first.receipt


def test_a_changed_cache_without_a_network_is_one_error(release: SmallRelease) -> None:
    release = from_registry(release)
    realize(release.lock, options(release, "first"))
    change_the_cache(release.root)
    places = SourcePlaces(cache=release.root / "cache", offline=True)
    with pytest.raises(PackageDamaged, match="tqdm"):
        realize(release.lock, options(release, "second", places))
    assert not (release.root / "second/current").is_symlink()


def test_an_env_shares_no_file_with_the_cache(release: SmallRelease) -> None:
    release = from_registry(release)
    folder = site_packages(realize(release.lock, options(release, "first")).folder)
    assert {path.stat().st_nlink for path in folder.rglob("*.py")} == {1}


def test_too_little_space_is_said_before_in_gb(tmp_path: Path) -> None:
    with pytest.raises(
        DiskTooSmall, match=r"needs 1000000\.00 GB in .*, and \d+\.\d\d GB are free; nothing was started"
    ):
        require_space(tmp_path, 10**15, what="Realizing this lock")


def test_the_need_is_known_from_the_registry(release: SmallRelease) -> None:
    pins = from_registry(release).lock.python.packages
    assert all(size > 0 for size in wheel_sizes(pins, offline=False))

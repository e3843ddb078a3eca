"""No network: a vendor folder brings everything, and a cache that somebody changed is not believed."""

import base64
import hashlib
import io
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.cli.main import main
from comfypin.digest import Digest
from comfypin.env.errors import PackageDamaged, PackageHashMismatch, PackagesUnavailable
from comfypin.env.install.sources import SourceLocations
from comfypin.env.layout import Home, site_packages
from comfypin.env.realize import RealizeOptions, realize_env
from comfypin.env.status import check_env
from comfypin.lock.model import PackagePin, PythonPins
from comfypin.locking.errors import PackageUnbuildable
from comfypin.tools.vendor_folder import VendorFolder
from tests.support.releases import PYTHON, SmallRelease, make_wheel, resolve_from_pypi, small_release


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRelease:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return small_release(tmp_path)


def options(release: SmallRelease, name: str, places: SourceLocations | None = None) -> RealizeOptions:
    home = Home(root=release.root / name)
    places = places or SourceLocations(cache=release.root / "cache", named_uv_cache=release.root / "uv")
    return RealizeOptions(home=home, models_dir=home.root / "models", locations=places)


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
    online = realize_env(release.lock, options(release, "online"))
    folder = vendored(release)
    shutil.rmtree(release.root / "uv")
    places = SourceLocations(cache=release.root / "empty", vendor=folder, offline=True)
    assert realize_env(release.lock, options(release, "offline", places)).receipt == online.receipt


def test_a_changed_wheel_in_a_vendor_folder_is_refused(release: SmallRelease) -> None:
    folder = vendored(release)
    wheel = next(folder.wheels_folder.glob("alpha-*"))
    wheel.write_bytes(wheel.read_bytes() + b"more")
    places = SourceLocations(cache=release.root / "empty", vendor=folder, offline=True)
    with pytest.raises((PackageHashMismatch, PackagesUnavailable), match="alpha"):
        realize_env(release.lock, options(release, "offline", places))


def with_a_source(release: SmallRelease) -> SmallRelease:
    """The release and a package that has no wheel."""
    project = '[project]\nname = "delta"\nversion = "1.0"\n[tool.setuptools]\npy-modules = ["delta"]\n'
    system = '[build-system]\nrequires = ["setuptools>=61"]\nbuild-backend = "setuptools.build_meta"\n'
    path = release.root / "wheels/delta-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in (("pyproject.toml", project + system), ("delta.py", "VALUE = 4\n")):
            member = tarfile.TarInfo(f"delta-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    pin = PackagePin(name="delta", version="1.0", url=path.as_uri(), sha256=(Digest.of_file(path),))
    python = replace(release.lock.python, packages=(*release.lock.python.packages, pin))
    return replace(release, lock=replace(release.lock, python=python))


def test_a_package_without_a_wheel_is_vendored_with_the_one_that_was_built_of_it(
    release: SmallRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = with_a_source(release)
    online = realize_env(release.lock, options(release, "online"))
    folder = vendored(release)
    monkeypatch.setenv("UV_CACHE_DIR", str(release.root / "other-uv"))
    named = release.root / "other-uv"
    places = SourceLocations(cache=release.root / "empty", vendor=folder, offline=True, named_uv_cache=named)
    assert realize_env(release.lock, options(release, "offline", places)).receipt == online.receipt
    (wheel,) = (folder.root / "built").rglob("*.whl")
    wheel.write_bytes(wheel.read_bytes() + b"more")
    changed = replace(places, cache=release.root / "emptier")
    with pytest.raises((PackageHashMismatch, PackagesUnavailable), match="delta"):
        realize_env(release.lock, options(release, "changed", changed))


def test_a_package_that_cannot_be_built_is_not_vendored(release: SmallRelease) -> None:
    release = with_a_source(release)
    path = release.root / "wheels/delta-1.0.tar.gz"
    path.write_bytes(b"no archive")
    *others, pin = release.lock.python.packages
    python = replace(release.lock.python, packages=(*others, replace(pin, sha256=(Digest.of_file(path),))))
    release = replace(release, lock=replace(release.lock, python=python))
    arguments = ["lock", "vendor", str(release.root / "vendor"), "--lock", str(release.write_lock())]
    assert main(arguments) == PackageUnbuildable.exit_code
    assert list((release.root / "vendor").glob(".tmp-*")) == []


def from_registry(release: SmallRelease) -> SmallRelease:
    packages = (*resolve_from_pypi(["tqdm", "idna"]), *release.lock.python.packages)
    return replace(release, lock=replace(release.lock, python=PythonPins(version=PYTHON, packages=packages)))


def change_the_cache(root: Path) -> None:
    """What an edit in an env that uv hard-linked does to uv's cache."""
    (changed,) = (root / "uv").rglob("tqdm/std.py")
    changed.write_text(changed.read_text() + "\nCHANGED = True\n")


def test_a_changed_file_in_the_cache_of_uv_does_not_get_into_an_env(release: SmallRelease) -> None:
    release = from_registry(release)
    first = realize_env(release.lock, options(release, "first"))
    change_the_cache(release.root)
    second = realize_env(release.lock, options(release, "second"))
    assert "CHANGED" not in (site_packages(second.folder) / "tqdm/std.py").read_text()
    assert second.receipt == first.receipt


def test_a_changed_cache_without_a_network_is_one_error(release: SmallRelease) -> None:
    release = from_registry(release)
    realize_env(release.lock, options(release, "first"))
    change_the_cache(release.root)
    places = SourceLocations(cache=release.root / "cache", offline=True, named_uv_cache=release.root / "uv")
    with pytest.raises(PackageDamaged, match="tqdm"):
        realize_env(release.lock, options(release, "second", places))
    assert not (release.root / "second/current").is_symlink()


def test_an_edit_in_one_env_does_not_get_into_the_next(release: SmallRelease) -> None:
    """Envs share their packages' files: the edit is named where it is, and kept out of what is made later."""
    release = from_registry(release)
    first = realize_env(release.lock, options(release, "first"))
    site = site_packages(first.folder)
    changed, listing = site / "tqdm/std.py", next(site.glob("tqdm-*.dist-info")) / "RECORD"
    before = changed.read_bytes()
    wrong = before.replace(b"import", b"export", 1)
    digests = [base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=") for data in (before, wrong)]
    times = changed.stat()
    changed.write_bytes(wrong)
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    listing.write_bytes(listing.read_bytes().replace(digests[0], digests[1]))
    named = [(drift.kind, drift.subject) for drift in check_env(Home(root=release.root / "first"), None).drifts]
    assert named == [("package-edited", "tqdm")]
    second = realize_env(release.lock, options(release, "second"))
    assert (site_packages(second.folder) / "tqdm/std.py").read_bytes() == before
    assert second.receipt == first.receipt


def test_a_file_that_two_packages_fight_for_is_the_same_every_time(release: SmallRelease) -> None:
    wheels = release.root / "wheels"
    rivals = tuple(
        make_wheel(wheels, name, "1.0", {"shared/__init__.py": f"WHO = {name!r}\n", f"{name}.py": ""})
        for name in ("rival_a", "rival_b")
    )
    pins = replace(release.lock.python, packages=(*release.lock.python.packages, *rivals))
    lock = replace(release.lock, python=pins)
    made = [realize_env(lock, options(release, name)) for name in ("first", "second")]
    assert made[0].receipt == made[1].receipt
    assert "rival_b" in (site_packages(made[0].folder) / "shared/__init__.py").read_text()
    assert check_env(Home(root=release.root / "second"), None).drifts == ()

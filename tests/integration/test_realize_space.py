"""The disk an env needs, asked before anything is made."""

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.env.cache.package_cache import PackageCache
from comfypin.env.errors import NoRoomForEnv
from comfypin.env.install.disk_space import MARGIN_BYTES, SOURCE_BYTES, file_system_id, list_space_needs, require_space
from comfypin.env.install.sources import SourceLocations
from comfypin.env.install.wheel_size import BLOCK_BYTES, UNPACKED_PER_WHEEL, unpacked_sizes
from comfypin.env.layout import Home, site_packages
from comfypin.env.package_selection import platform_for_python
from comfypin.env.realize import RealizeOptions, realize_env
from comfypin.http.proxies import Proxies
from comfypin.lock.model import PythonPins
from comfypin.tools.download import download_file
from tests.support.connect_proxy import connect_proxy
from tests.support.releases import PYTHON, SmallRelease, resolve_from_pypi, small_release
from tests.support.served import served


@pytest.fixture
def release(tmp_path: Path) -> SmallRelease:
    return small_release(tmp_path)


def on_disk(folder: Path) -> int:
    """What the files of a folder take, in whole blocks, byte-code left out."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sum(-(-size // BLOCK_BYTES) * BLOCK_BYTES for size in sizes)


def test_too_little_space_is_said_before_in_gb(tmp_path: Path) -> None:
    with pytest.raises(
        NoRoomForEnv, match=r"needs 1000000\.00 GB in .*, which has \d+\.\d\d GB free; nothing was started"
    ):
        require_space(tmp_path, 10**15, what="Realizing this lock")


def test_the_registry_tells_what_a_wheel_holds(tmp_path: Path) -> None:
    pins = resolve_from_pypi(["numpy", "idna"])
    for pin, size in zip(pins, unpacked_sizes(pins, offline=False), strict=True):
        download_file(pin.url or "", tmp_path / pin.name, pin.sha256)
        with zipfile.ZipFile(tmp_path / pin.name) as wheel:
            wheel.extractall(tmp_path / f"{pin.name}-unpacked")
        assert size == on_disk(tmp_path / f"{pin.name}-unpacked")


def test_what_is_asked_for_is_what_an_env_takes(release: SmallRelease) -> None:
    pins = resolve_from_pypi(["numpy"])
    packages = (*release.lock.python.packages, *pins)
    lock = replace(release.lock, python=PythonPins(version=PYTHON, packages=packages))
    home = Home(root=release.root / "home")
    cache = release.root / "cache"
    (need,) = list_space_needs(home.root, cache / "uv", packages, offline=False)
    places = SourceLocations(cache=cache)
    realized = realize_env(lock, RealizeOptions(home=home, models_dir=release.root / "models", locations=places))
    taken = on_disk(site_packages(realized.folder))
    # What uv itself puts beside them (INSTALLER, scripts) is within the margin.
    assert abs(need.size_bytes - SOURCE_BYTES - taken) < 100_000
    kept = PackageCache(root=places.package_cache, platform=platform_for_python(PYTHON))
    assert all(kept.has_package(pin) for pin in packages), "so the next env takes nothing for them"


def test_a_cache_on_another_disk_is_asked_too(release: SmallRelease) -> None:
    elsewhere = Path("/dev/shm")
    if not os.access(elsewhere, os.W_OK) or file_system_id(elsewhere) == file_system_id(release.root):
        pytest.skip("one file system is all that is here")
    here, there = list_space_needs(release.root, elsewhere / "uv", release.lock.python.packages, offline=True)
    unpacked = sum(unpacked_sizes(release.lock.python.packages, offline=True))
    assert unpacked > 0
    assert (here.size_bytes, there.size_bytes) == (SOURCE_BYTES + unpacked, MARGIN_BYTES + unpacked)


def test_a_server_without_parts_makes_it_an_estimate(release: SmallRelease) -> None:
    pin = release.lock.python.packages[0]
    wheel = release.root / "wheels/alpha-1.0-py3-none-any.whl"
    with served(wheel.parent) as (address, _):
        sizes = unpacked_sizes([replace(pin, url=f"{address}/{wheel.name}")], offline=False)
    assert sizes == [int(wheel.stat().st_size * UNPACKED_PER_WHEEL)]


def test_servers_of_wheels_are_asked_by_the_proxy(release: SmallRelease) -> None:
    pin = release.lock.python.packages[0]
    wheel = release.root / "wheels/alpha-1.0-py3-none-any.whl"
    with served(wheel.parent) as (address, _), connect_proxy() as proxy:
        url = f"{address}/{wheel.name}"
        proxies = Proxies.from_variables({"HTTP_PROXY": proxy.url})
        (size,) = unpacked_sizes([replace(pin, url=url)], offline=False, proxies=proxies)
    assert size > 0
    assert proxy.asked == [f"GET {url}"]


def test_what_is_no_wheel_or_not_there_counts_nothing(release: SmallRelease, tmp_path: Path) -> None:
    pin = release.lock.python.packages[0]
    (tmp_path / "page.whl").write_text("<html>")
    urls = [(tmp_path / "page.whl").as_uri(), (tmp_path / "missing.whl").as_uri(), "http://127.0.0.1:9/x.whl"]
    assert unpacked_sizes([replace(pin, url=url) for url in urls], offline=False) == [0, 0, 0]

"""What `env gc` removes, and what it leaves."""

from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.cli.main import main
from comfypin.env.gc import collect, find_garbage
from comfypin.env.layout import Home
from comfypin.env.realize import RealizeOptions, realize
from comfypin.env.sources import SourcePlaces
from comfypin.lease import acquire
from comfypin.lock.model import Lock
from tests.support.releases import SmallRelease, small_release


@pytest.fixture
def two(tmp_path: Path) -> tuple[Home, Lock, Lock]:
    """A home with the envs of two locks; the second is current."""
    release: SmallRelease = small_release(tmp_path)
    home = Home(root=tmp_path / "home")
    options = RealizeOptions(home=home, models_dir=tmp_path / "models", places=SourcePlaces(cache=tmp_path / "cache"))
    fewer = replace(release.lock, version_name="fewer", custom_nodes=())
    realize(release.lock, options)
    realize(fewer, options)
    return home, release.lock, fewer


def test_an_env_that_no_kept_lock_needs_goes(two: tuple[Home, Lock, Lock]) -> None:
    home, _, _ = two
    garbage = find_garbage(home, [])
    assert [item.what for item in garbage] == ["an env of no kept lock"]
    assert collect(home, garbage) == garbage[0].size_bytes > 0
    assert [path.name for path in home.builds.iterdir()] == [home.current.readlink().name]


def test_what_is_shared_with_the_cache_does_not_count(two: tuple[Home, Lock, Lock]) -> None:
    home, _, _ = two
    (item,) = find_garbage(home, [])
    shared = sum(path.lstat().st_size for path in item.path.rglob("gamma/__init__.py"))
    whole = sum(path.lstat().st_size for path in item.path.rglob("*") if not path.is_dir() or path.is_symlink())
    assert shared > 0
    assert item.size_bytes <= whole - shared


def test_an_env_of_a_kept_lock_stays(two: tuple[Home, Lock, Lock]) -> None:
    home, first, _ = two
    assert find_garbage(home, [first]) == []


def test_what_a_killed_run_left_goes(two: tuple[Home, Lock, Lock]) -> None:
    home, first, _ = two
    left = home.builds / f".tmp-{'0' * 64}@elsewhere-1-1-x"
    left.mkdir()
    (left / "file").write_text("half")
    assert [item.path for item in find_garbage(home, [first])] == [left]


def test_an_env_that_is_worked_on_is_left(two: tuple[Home, Lock, Lock]) -> None:
    home, _, _ = two
    garbage = find_garbage(home, [])
    with acquire(home.lease(garbage[0].path.name)):
        assert collect(home, garbage) == 0
    assert garbage[0].path.is_dir()


def test_the_command_only_says_until_it_is_told_to(
    two: tuple[Home, Lock, Lock], capsys: pytest.CaptureFixture[str]
) -> None:
    home, _, _ = two
    assert main(["env", "gc", "--home", str(home.root)]) == 0
    assert "would go; --yes removes it" in capsys.readouterr().out
    assert len(list(home.builds.iterdir())) == 2
    assert main(["env", "gc", "--home", str(home.root), "--yes"]) == 0
    assert len(list(home.builds.iterdir())) == 1

"""What `env gc` removes, and what it leaves."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.cli.main import main
from comfypin.digest import Digest
from comfypin.env.gc import EnvGarbage, collect_garbage, find_garbage
from comfypin.env.install.sources import SourceLocations
from comfypin.env.layout import Home, site_packages
from comfypin.env.pack.write import write_pack
from comfypin.env.realize import RealizeOptions, realize_env
from comfypin.lease import acquire_lease, process_token
from comfypin.lock.model import Lock, NodePin
from tests.support.releases import SmallRelease, make_wheel, small_release

PACKAGES = {"alpha", "beta", "gamma"}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceLocations:
    monkeypatch.setenv("COMFYPIN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    return SourceLocations(cache=tmp_path / "cache")


@pytest.fixture
def release(tmp_path: Path) -> SmallRelease:
    return small_release(tmp_path)


def options(release: SmallRelease, places: SourceLocations, name: str = "home") -> RealizeOptions:
    home = Home(root=release.root / name)
    return RealizeOptions(home=home, models_dir=release.root / "models", locations=places)


@pytest.fixture
def two(release: SmallRelease, places: SourceLocations) -> tuple[Home, Lock, Lock]:
    """A home with the envs of two locks; the second is current, and has one package less: gamma."""
    given = options(release, places)
    python = replace(release.lock.python, packages=release.lock.python.packages[:2])
    fewer = replace(release.lock, version_name="fewer", custom_nodes=(), python=python)
    realize_env(release.lock, given)
    realize_env(fewer, given)
    return given.home, release.lock, fewer


def kinds(garbage: list[EnvGarbage]) -> list[str]:
    return [item.kind for item in garbage]


def cached(places: SourceLocations) -> set[str]:
    """The packages that the cache of installed ones holds."""
    return {path.name.rpartition("-")[0] for path in (places.cache / "packages").iterdir() if path.is_dir()}


def unpacked(places: SourceLocations) -> set[str]:
    """The packages that uv's cache holds."""
    return {path.name.partition("-")[0] for path in (places.cache / "uv/archive-v0").glob("*/*.dist-info")}


def test_an_env_that_no_kept_lock_needs_goes(two: tuple[Home, Lock, Lock], places: SourceLocations) -> None:
    home, _, current = two
    garbage = find_garbage(home, [current], places)
    assert garbage[0].what == "an env of no kept lock"
    assert collect_garbage(home, garbage, places) == sum(item.size_bytes for item in garbage) > 0
    assert [path.name for path in home.builds_folder.iterdir()] == [home.current_link.readlink().name]


def test_a_package_that_only_it_needed_goes_from_both_caches(
    two: tuple[Home, Lock, Lock], places: SourceLocations
) -> None:
    home, _, current = two
    assert cached(places) == unpacked(places) == PACKAGES
    garbage = find_garbage(home, [current], places)
    assert kinds(garbage) == ["env", "package", "download", "commit", "commit", "note"]
    collect_garbage(home, garbage, places)
    assert cached(places) == unpacked(places) == {"alpha", "beta"}
    assert not list((places.cache / "packages").glob("gamma*")), "its notes are gone too"
    assert find_garbage(home, [current], places) == []


def test_what_it_says_is_what_becomes_free(two: tuple[Home, Lock, Lock], places: SourceLocations) -> None:
    """Counted by blocks of the disk, for which the bytes of small files are a lower bound."""
    home, _, current = two
    everything = {(s.st_dev, s.st_ino): s.st_size for s in _files(home.root, places.cache)}
    garbage = find_garbage(home, [current], places)
    collect_garbage(home, garbage, places)
    gone = everything.keys() - {(s.st_dev, s.st_ino) for s in _files(home.root, places.cache)}
    told = sum(item.size_bytes for item in garbage)
    # uv keeps a few notes about each wheel beside it, which are not counted.
    assert told <= sum(everything[inode] for inode in gone) <= told + 4096


def _files(*roots: Path) -> list[os.stat_result]:
    return [Path(parent, name).lstat() for root in roots for parent, _, names in os.walk(root) for name in names]


def test_the_next_env_has_its_packages_still(
    two: tuple[Home, Lock, Lock], release: SmallRelease, places: SourceLocations
) -> None:
    home, _, current = two
    collect_garbage(home, find_garbage(home, [current], places), places)
    for wheel in (release.root / "wheels").iterdir():
        wheel.unlink()
    offline = replace(places, offline=True)
    assert realize_env(current, options(release, offline, "another")).action == "build"


def test_an_env_of_a_kept_lock_stays_with_its_packages(two: tuple[Home, Lock, Lock], places: SourceLocations) -> None:
    home, first, current = two
    assert find_garbage(home, [first, current], places) == []


def test_what_an_env_elsewhere_shares_stays(
    two: tuple[Home, Lock, Lock], release: SmallRelease, places: SourceLocations
) -> None:
    home, first, current = two
    realize_env(first, options(release, places, "elsewhere"))
    assert {"package", "download"}.isdisjoint(kinds(find_garbage(home, [current], places)))


def test_a_name_stays_in_uvs_cache_where_a_kept_lock_could_not_do_without(
    release: SmallRelease, places: SourceLocations
) -> None:
    """Packages that claim the same file are not kept installed: uv's cache is all that holds them."""
    rivals = tuple(
        make_wheel(release.root / "wheels", name, "1.0", {"shared.py": f"WHO = {name!r}\n"})
        for name in ("rival_a", "rival_b")
    )
    pins = replace(release.lock.python, packages=(*release.lock.python.packages, *rivals))
    lock = replace(release.lock, python=pins)
    home = realize_env(lock, options(release, places)).folder.parent.parent
    assert cached(places) == PACKAGES
    assert find_garbage(Home(root=home), [lock], places) == []
    assert unpacked(places) == {*PACKAGES, "rival_a", "rival_b"}


def test_a_cache_of_uv_that_the_user_chose_is_left(two: tuple[Home, Lock, Lock], places: SourceLocations) -> None:
    home, _, current = two
    places = replace(places, named_uv_cache=places.cache / "uv")
    collect_garbage(home, find_garbage(home, [current], places), places)
    assert unpacked(places) == PACKAGES


def test_what_is_shared_with_the_cache_does_not_count(two: tuple[Home, Lock, Lock], places: SourceLocations) -> None:
    home, _, current = two
    item = find_garbage(home, [current], places)[0]
    shared = sum(path.lstat().st_size for path in site_packages(item.path).rglob("*.py"))
    whole = sum(path.lstat().st_size for path in item.path.rglob("*") if not path.is_dir() or path.is_symlink())
    assert shared > 0
    assert item.size_bytes <= whole - shared


def test_the_commits_and_notes_of_no_kept_lock_go(two: tuple[Home, Lock, Lock], places: SourceLocations) -> None:
    home, first, current = two
    garbage = [item for item in find_garbage(home, [current], places) if item.kind in {"commit", "note"}]
    commits = {item.path.stem for item in garbage if item.kind == "commit"}
    assert commits == {node.commit for node in first.custom_nodes}
    assert collect_garbage(home, garbage, places) == sum(item.size_bytes for item in garbage) > 0
    assert [path.stem for path in places.commit_source.cache.iterdir()] == [current.comfyui and current.comfyui.commit]
    assert len(list(places.probe_notes.iterdir())) == 1


def test_the_submodules_of_a_kept_lock_stay(release: SmallRelease, places: SourceLocations) -> None:
    part, node = release.nodes["node-one"], release.nodes["node_two"]
    node.git("submodule", "add", "--quiet", part.url, "part")
    pin = replace(release.lock.custom_nodes[1], commit=node.commit({}))
    lock = replace(release.lock, custom_nodes=(pin,))
    home = Home(root=realize_env(lock, options(release, places)).folder.parent.parent)
    assert (places.commit_source.cache / f"{part.git('rev-parse', 'HEAD')}.git").is_dir()
    assert find_garbage(home, [lock], places) == []


def test_the_archives_of_no_kept_lock_go(two: tuple[Home, Lock, Lock], places: SourceLocations) -> None:
    home, first, current = two
    places.archives.mkdir()
    for name in ("a", "b"):
        (places.archives / f"{name * 64}.zip").write_bytes(b"zip")
    node = NodePin(name="n", repo=None, archive="https://example.org/n.zip", sha256=Digest("a" * 64), directory="n")
    kept = [replace(first, custom_nodes=(*first.custom_nodes, node)), first, current]
    garbage = find_garbage(home, kept, places)
    assert [(item.kind, item.path.stem, item.size_bytes) for item in garbage] == [("archive", "b" * 64, 3)]
    collect_garbage(home, garbage, places)
    assert [path.stem for path in places.archives.iterdir()] == ["a" * 64]


def test_what_a_killed_packing_left_goes_and_a_living_one_stays(
    two: tuple[Home, Lock, Lock], places: SourceLocations
) -> None:
    home, first, current = two
    living = home.builds_folder / f".tmp-pack-x@{process_token()}"
    machine = process_token().partition("-")[0]
    dead = home.builds_folder / f".tmp-pack-x@{machine}-4194305-1-x"
    for folder in (living, dead):
        folder.mkdir()
    assert [item.path for item in find_garbage(home, [first, current], places)] == [dead]
    write_pack(home.builds_folder / str(home.current_link.readlink().name), home.root / "pack")
    assert living.is_dir()
    assert not dead.exists()


def test_what_a_killed_run_left_goes(two: tuple[Home, Lock, Lock], places: SourceLocations) -> None:
    home, first, current = two
    left = home.builds_folder / f".tmp-{'0' * 64}@elsewhere-1-1-x"
    left.mkdir()
    (left / "file").write_text("half")
    assert [item.path for item in find_garbage(home, [first, current], places)] == [left]


def test_an_env_that_is_worked_on_is_left(two: tuple[Home, Lock, Lock], places: SourceLocations) -> None:
    home, _, current = two
    garbage = find_garbage(home, [current], places)[:1]
    with acquire_lease(home.lease_path(garbage[0].path.name)):
        assert collect_garbage(home, garbage, places) == 0
    assert garbage[0].path.is_dir()


def test_the_command_only_says_until_it_is_told_to(
    two: tuple[Home, Lock, Lock], places: SourceLocations, capsys: pytest.CaptureFixture[str]
) -> None:
    home, _, _ = two
    assert main(["env", "gc", "--home", str(home.root)]) == 0
    said = capsys.readouterr().out
    assert "gamma, which uv downloaded for no kept lock" in said
    assert "would be removed; --yes removes it" in said
    assert len(list(home.builds_folder.iterdir())) == 2
    assert cached(places) == PACKAGES
    assert main(["env", "gc", "--home", str(home.root), "--yes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["freed_bytes"] == told["size_bytes"] == sum(item["size_bytes"] for item in told["garbage"])
    assert len(list(home.builds_folder.iterdir())) == 1
    assert cached(places) == {"alpha", "beta"}

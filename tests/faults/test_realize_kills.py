"""Realize, pack and unpack killed at random moments, and two at once on one volume: always one good env."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from comfypin.env.file_manifest import FileManifest, hash_files
from comfypin.env.layout import Home
from comfypin.env.receipt import read_receipt
from comfypin.env.status import check_env
from tests.support.releases import SmallRelease, small_release

Kind = Callable[[SmallRelease, Path, FileManifest, int, int], None]
ROOT = Path(__file__).parents[2]
LIMIT_S = 300


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    made = small_release(tmp_path_factory.mktemp("release"))
    made.write_lock()
    return made


@pytest.fixture(scope="module")
def clean(release: SmallRelease) -> FileManifest:
    """What an env that nobody disturbed is, byte for byte."""
    finish(release, release.root / "clean")
    return hash_files(release.root / "clean/current")


def command(release: SmallRelease, home: Path, *flags: str) -> list[str]:
    lock = release.root / "comfy-small.lock.json"
    return [sys.executable, "-m", "comfypin.cli.main", "realize", str(lock), "--home", str(home), *flags]


def start(arguments: list[str], release: SmallRelease, cache: Path | None = None) -> subprocess.Popen[bytes]:
    cache = cache or release.root / "cache"
    environ = {**os.environ, "COMFYPIN_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT / "src")}
    environ.pop("UV_CACHE_DIR", None)
    return subprocess.Popen(
        arguments, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(release: SmallRelease, home: Path, *flags: str, cache: Path | None = None) -> float:
    """Let a run end well, and say how long it took, in seconds."""
    began = time.monotonic()
    process = start(command(release, home, *flags), release, cache)
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, said.decode()
    return time.monotonic() - began


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process alone, as the kernel does when memory is short: its children may outlive it for a while."""
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=LIMIT_S)


def assert_good(home: Path, clean: FileManifest) -> None:
    receipt = read_receipt(home / "current")
    assert receipt is not None
    assert hash_files(home / "current") == clean, "bit for bit"
    assert check_env(Home(root=home), None).drifts == ()
    assert [path.name for path in (home / "builds").iterdir()] == [receipt.key], "nothing half done is left"


def run_killed_then_finish(
    release: SmallRelease, home: Path, delay_s: float, *flags: str, cache: Path | None = None
) -> None:
    process = start(command(release, home, *flags), release, cache)
    time.sleep(delay_s)
    kill(process)
    finish(release, home, *flags, cache=cache)


def kill_builds(release: SmallRelease, root: Path, clean: FileManifest, times: int, seed: int) -> None:
    """By turns with an empty cache (uv installs, ComfyUI is started, packages are kept), and with one that has all."""
    chance = random.Random(seed)
    shared = release.root / "cache"
    cold_s = finish(release, root / "measure-cold", cache=root / "measured")
    warm_s = finish(release, root / "measure")
    for number in range(times):
        home = root / f"home{number}"
        cache, whole_s = (shared, warm_s) if number % 2 else (root / f"cache{number}", cold_s)
        run_killed_then_finish(release, home, chance.uniform(0, whole_s * 1.1), cache=cache)
        assert_good(home, clean)
        # What was kept before and after the kill serves the next.
        finish(release, root / f"again{number}", cache=cache)
        assert_good(root / f"again{number}", clean)


def kill_packs(release: SmallRelease, root: Path, clean: FileManifest, times: int, seed: int) -> None:
    """Killed while it builds, packs or publishes: whatever pack there is afterwards is whole."""
    chance = random.Random(seed)
    whole_s = finish(release, root / "measure", "--packs", str(root / "measured"), "--publish")
    for number in range(times):
        packs = ("--packs", str(root / f"packs{number}"))
        run_killed_then_finish(release, root / f"a{number}", chance.uniform(0, whole_s * 1.1), *packs, "--publish")
        assert_good(root / f"a{number}", clean)
        finish(release, root / f"b{number}", *packs)
        assert_good(root / f"b{number}", clean)


def kill_unpacks(release: SmallRelease, root: Path, clean: FileManifest, times: int, seed: int) -> None:
    chance = random.Random(seed)
    packs = ("--packs", str(root / "packs"))
    finish(release, root / "publisher", *packs, "--publish")
    whole_s = finish(release, root / "measure", *packs)
    for number in range(times):
        home = root / f"home{number}"
        run_killed_then_finish(release, home, chance.uniform(0, whole_s * 1.1), *packs)
        assert_good(home, clean)


def race(release: SmallRelease, root: Path, clean: FileManifest, times: int, seed: int) -> None:
    """Two at once on one volume, one of them killed: the other succeeds, and so does a third."""
    chance = random.Random(seed)
    whole_s = finish(release, root / "measure", "--packs", str(root / "measured"), "--publish")
    for number in range(times):
        flags = ("--packs", str(root / f"packs{number}"), "--publish")
        home = root / f"home{number}"
        cache = release.root / "cache" if number % 2 else root / f"cache{number}"
        pair = [start(command(release, home, *flags), release, cache) for _ in range(2)]
        time.sleep(chance.uniform(0, whole_s * 1.2))
        victim = chance.randrange(2)
        kill(pair[victim])
        _, said = pair[1 - victim].communicate(timeout=LIMIT_S)
        assert pair[1 - victim].returncode == 0, said.decode()
        assert_good(home, clean)
        finish(release, root / f"third{number}", *flags, cache=cache)
        assert_good(root / f"third{number}", clean)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "times"), [(kill_builds, 3), (kill_packs, 2), (kill_unpacks, 3)])
def test_a_killed_run_is_finished_by_the_next(
    kind: Kind, times: int, release: SmallRelease, tmp_path: Path, clean: FileManifest
) -> None:
    kind(release, tmp_path, clean, times, 1)


def test_two_at_once_make_one_good_env(release: SmallRelease, tmp_path: Path, clean: FileManifest) -> None:
    home = tmp_path / "home"
    pair = [start(command(release, home), release) for _ in range(2)]
    for process in pair:
        _, said = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, said.decode()
    assert_good(home, clean)


@pytest.mark.timeout(900)
def test_two_at_once_and_one_of_them_killed(release: SmallRelease, tmp_path: Path, clean: FileManifest) -> None:
    race(release, tmp_path, clean, 3, 2)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("kind", "times"), [(kill_builds, 40), (kill_packs, 30), (kill_unpacks, 30)])
def test_a_hundred_kills(kind: Kind, times: int, release: SmallRelease, tmp_path: Path, clean: FileManifest) -> None:
    kind(release, tmp_path, clean, times, 3)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_fifty_races(release: SmallRelease, tmp_path: Path, clean: FileManifest) -> None:
    race(release, tmp_path, clean, 50, 4)

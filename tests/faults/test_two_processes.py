"""Two processes on one COMFY_HOME: what one makes, packs or runs is not taken from under it by the other."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.env.layout import Home
from comfypin.env.receipt import read_receipt
from comfypin.env.status import check_env
from comfypin.folder_use import using
from comfypin.lease import acquire_lease
from comfypin.lock.codec import env_digest, read_lock, render_lock
from comfypin.lock.model import Lock
from tests.support.releases import CLI_ARGS, MAIN, SmallRelease, small_release
from tests.support.running import descendants
from tests.support.server import TOKEN, Server
from tests.support.workflows import picture, slow

ROOT = Path(__file__).parents[2]
LIMIT_S = 200
# A ComfyUI of our own making that serves jobs: it lends itself the embedded engine, which lies outside of the env.
ENGINE = """
import os, runpy, sys
def serve():
    sys.path += os.environ["TEST_PATH"].split(os.pathsep)
    runpy.run_module("comfypin.engine.embedded", run_name="__main__")
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    made = small_release(tmp_path_factory.mktemp("two"))
    main = MAIN.replace('print("serving")', "import engine; engine.serve()")
    arguments = CLI_ARGS.replace("parser.parse_args()", "parser.parse_known_args()[0]")
    commit = made.comfyui.commit({"main.py": main, "engine.py": ENGINE, "comfy/cli_args.py": arguments})
    assert made.lock.comfyui is not None
    return made.changed(comfyui=replace(made.lock.comfyui, commit=commit))


@pytest.fixture(scope="module")
def locks(release: SmallRelease) -> tuple[Lock, Lock]:
    """Two releases that differ in one node."""
    first, *others = release.lock.custom_nodes
    moved = replace(first, commit=release.nodes["node-one"].commit({"more.py": "MORE = 1\n"}))
    return release.lock, replace(release.lock, version_name="other", custom_nodes=(moved, *others))


@pytest.fixture(scope="module")
def files(release: SmallRelease, locks: tuple[Lock, Lock]) -> tuple[Path, Path]:
    paths = tuple(release.root / f"comfy-{lock.version_name}.lock.json" for lock in locks)
    for path, lock in zip(paths, locks, strict=True):
        path.write_bytes(render_lock(lock))
    return paths[0], paths[1]


def environ(cache: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "UV_CACHE_DIR"}
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, sys.path)])
    return {**kept, "COMFYPIN_CACHE_DIR": str(cache), "TEST_PATH": path}


def start(cache: Path, *words: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "comfypin.cli.main", *map(str, words)],
        env=environ(cache), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, cwd=ROOT,
    )  # fmt: skip


def finish(process: "subprocess.Popen[bytes]") -> str:
    stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, stderr.decode()
    assert b"Traceback" not in stderr
    return stdout.decode()


def assert_whole(home: Path, locks: tuple[Lock, Lock]) -> str:
    """The home's env is one of both, whole, and its lock is the one that was kept; returns its release."""
    kept = read_lock(home / "current.lock.json").lock
    receipt = read_receipt(home / "current")
    assert receipt is not None
    assert kept in locks
    assert env_digest(kept) == receipt.env_digest
    assert check_env(Home(root=home), kept).drifts == ()
    assert not list((home / "builds").glob(".tmp-*"))
    return kept.version_name


def test_two_locks_at_once_leave_two_whole_envs_and_one_of_them_current(
    release: SmallRelease, locks: tuple[Lock, Lock], files: tuple[Path, Path], tmp_path: Path
) -> None:
    cache, home = release.root / "cache", tmp_path / "home"
    for _ in range(3):  # the first builds, the others only make their env current
        pair = [start(cache, "realize", path, "--home", home) for path in files]
        for process in pair:
            finish(process)
        assert_whole(home, locks)
        assert {path.name for path in (home / "builds").iterdir()} == {env_digest(lock).hex for lock in locks}


def test_who_makes_an_env_current_waits_for_another_that_does(
    release: SmallRelease, locks: tuple[Lock, Lock], files: tuple[Path, Path], tmp_path: Path
) -> None:
    cache, home = release.root / "cache", tmp_path / "home"
    for path in files:
        finish(start(cache, "realize", path, "--home", home))
    with acquire_lease(Home(root=home).lease_path("current")):
        process = start(cache, "realize", files[0], "--home", home)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        assert assert_whole(home, locks) == "other"
    finish(process)
    assert assert_whole(home, locks) == "small"


def test_what_is_collected_while_an_env_is_made_is_none_of_it(
    release: SmallRelease, locks: tuple[Lock, Lock], files: tuple[Path, Path], tmp_path: Path
) -> None:
    cache, home = tmp_path / "cache", tmp_path / "home"
    finish(start(cache, "realize", files[0], "--home", home))
    making = start(cache, "realize", files[1], "--home", home)
    collected = 0
    while making.poll() is None:
        finish(start(cache, "env", "gc", "--yes", "--home", home))
        collected += 1
    finish(making)
    assert collected
    assert assert_whole(home, locks) == "other"


def test_the_caches_are_left_alone_while_an_env_is_made_from_them(
    release: SmallRelease, files: tuple[Path, Path], tmp_path: Path
) -> None:
    cache, home = tmp_path / "cache", tmp_path / "home"
    finish(start(cache, "realize", files[0], "--home", home))
    (home / "current.lock.json").unlink()
    with using(cache):
        assert kinds_of_garbage(cache, home) == set()
    assert "commit" in kinds_of_garbage(cache, home)


def kinds_of_garbage(cache: Path, home: Path) -> set[str]:
    said = finish(start(cache, "env", "gc", "--json", "--home", home))
    return {item["kind"] for item in json.loads(said)["garbage"]}


def test_an_env_is_packed_whole_while_it_is_built_anew(
    release: SmallRelease, locks: tuple[Lock, Lock], files: tuple[Path, Path], tmp_path: Path
) -> None:
    cache, home, packs = release.root / "cache", tmp_path / "home", tmp_path / "packs"
    packs.mkdir()
    finish(start(cache, "realize", files[0], "--home", home))
    pair = [
        start(cache, "realize", files[0], "--home", home, "--rebuild"),
        start(cache, "env", "pack", packs, "--home", home),
    ]
    for process in pair:
        finish(process)
    assert_whole(home, locks)
    finish(start(cache, "realize", files[0], "--home", tmp_path / "unpacked", "--packs", packs))
    assert_whole(tmp_path / "unpacked", locks)


def test_the_env_of_a_run_is_not_collected(release: SmallRelease, files: tuple[Path, Path], tmp_path: Path) -> None:
    cache, home = release.root / "cache", tmp_path / "home"
    for path in reversed(files):
        finish(start(cache, "realize", path, "--home", home))
    build = (home / "current").resolve()
    # It works for longer than the two commands beside it take on any machine, and is stopped after them.
    workflow = tmp_path / "slow.json"
    workflow.write_text(json.dumps(slow(3000)))
    other = ["--lock", files[0], "--workflow", workflow, "--output", "file", "--out-dir", tmp_path / "out"]
    running = start(cache, "run", *other, "--comfy-home", home, "--json")
    assert running.stderr is not None
    for line in running.stderr:
        if b"node_started" in line:
            break
    finish(start(cache, "realize", files[1], "--home", home))
    finish(start(cache, "env", "gc", "--yes", "--home", home))
    assert running.poll() is None
    assert (build / "receipt.json").is_file()
    running.terminate()
    running.communicate(timeout=LIMIT_S)
    finish(start(cache, "env", "gc", "--yes", "--home", home))
    assert not build.exists()


@pytest.fixture
def served(release: SmallRelease, files: tuple[Path, Path], tmp_path: Path) -> Iterator[Server]:
    home = tmp_path / "home"
    flags = ("--lock", str(files[0]))
    more = environ(release.root / "cache") | {"COMFY_HOME": str(home), "COMFYPIN_TOKEN": TOKEN}
    server = Server(tmp_path, flags, more)
    server.start()
    try:
        yield server
    finally:
        assert server.process is not None
        server.stop()


def test_a_server_goes_on_while_its_env_is_built_anew(
    served: Server, release: SmallRelease, locks: tuple[Lock, Lock], files: tuple[Path, Path], tmp_path: Path
) -> None:
    cache, home = release.root / "cache", tmp_path / "home"

    def run(color: int) -> None:
        answer = served.post("/runsync", {"input": {"workflow": picture(color)}})
        assert answer["status"] == "COMPLETED", answer

    run(1)
    building = start(cache, "realize", files[0], "--home", home, "--rebuild")
    color = 2
    while building.poll() is None:
        run(color)
        color += 1
    finish(building)
    # The engine that starts next is that of the env that was built anew.
    assert served.process is not None
    os.kill(descendants(served.process.pid)[-1], signal.SIGKILL)
    run(color)
    served.stop()
    finish(start(cache, "realize", files[0], "--home", home, "--rebuild"))
    assert_whole(home, locks)

"""SIGTERM in each phase of each command: it ends in bounded time with its code, and leaves no process and no folder."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comfypin.temp_folders import sweep_temp_folders
from tests.conftest import ROOT
from tests.support.door import DEMO_LOCK, clean_environ
from tests.support.drip_server import drip_server, endless_body
from tests.support.releases import SmallRelease, small_release
from tests.support.runpod_queue import RunpodQueue
from tests.support.server import TOKEN
from tests.support.workflows import slow

WITHIN_S = 25.0
MARK = "COMFYPIN_TEST_MARK"


class Command:
    """A command under way, whose processes are known by a mark in their environment."""

    def __init__(self, folder: Path, *words: object, **environ: str) -> None:
        self._mark = uuid.uuid4().hex
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self._log = folder / "stderr"
        more = {MARK: self._mark, "TMPDIR": str(self.temporary), "HOME": str(folder), "COMFYPIN_TOKEN": TOKEN}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "comfypin.cli.main", *map(str, words)],
                cwd=ROOT, env=clean_environ(**more, **environ), stdout=subprocess.DEVNULL, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        give_up_s = time.monotonic() + 90
        while text not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < give_up_s, self.said
            time.sleep(0.02)

    def told_to_end(self) -> int:
        """Send SIGTERM; the exit code, once nothing is left of it."""
        self.process.send_signal(signal.SIGTERM)
        # Before its first line and after its last one, the signal itself ends it; a shell says 143 for that too.
        code = 143 if (ended := self.process.wait(WITHIN_S)) == -signal.SIGTERM else ended
        assert "Traceback" not in self.said, self.said
        assert "internal error" not in self.said, self.said
        give_up_s = time.monotonic() + 10
        while (left := self._left()) and time.monotonic() < give_up_s:
            time.sleep(0.05)
        assert left == [], "processes are left"
        # A signal between making a folder and noting that it is ours leaves it to the next start, which sweeps it.
        sweep_temp_folders(self.temporary)
        assert sorted(path.name for path in self.temporary.iterdir()) == [], "temporary folders are left"
        return code

    def _left(self) -> list[str]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


Start = Callable[..., Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    commands: list[Command] = []

    def started(*words: object, **environ: str) -> Command:
        folder = tmp_path / f"command{len(commands)}"
        folder.mkdir()
        commands.append(Command(folder, *words, **environ))
        return commands[-1]

    yield started
    for command in commands:
        command.kill()


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    path = tmp_path / "slow.json"
    path.write_text(json.dumps(slow(400)))
    return path


@pytest.mark.parametrize(
    "words",
    [
        ["doctor"],
        ["serve", "--lock", "demo"],
        ["realize", "demo"],
        ["models", "ls"],
        ["sync", "{folder}", "file://{folder}-bucket"],
    ],
    ids=lambda words: words[0],
)
def test_while_it_starts(start: Start, words: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(500):
        (folder / f"{number}.txt").write_text("x")
    for delay_s in (0.05, 0.15, 0.3):
        command = start(*(word.format(folder=folder) for word in words))
        time.sleep(delay_s)
        assert command.told_to_end() is not None


@pytest.mark.parametrize("phase", ["note", "queue", "node_started", "node_finished"])
def test_a_run(start: Start, workflow: Path, tmp_path: Path, phase: str) -> None:
    out = ["--output", "file", "--out-dir", tmp_path / "out"]
    command = start("run", "--lock", DEMO_LOCK, "--workflow", workflow, *out, "--json")
    command.wait_for(f'"{phase}"')
    assert command.told_to_end() == 143


@pytest.mark.parametrize("phase", ["listening", "engine ready", "server ready"])
def test_a_server(start: Start, tmp_path: Path, phase: str) -> None:
    folders = ["--state-dir", tmp_path / "state", "--output-dir", tmp_path / "outputs"]
    command = start("serve", "--lock", "demo", "--port", str(free_port()), *folders)
    command.wait_for(f'"{phase}"')
    assert command.told_to_end() == 0


@pytest.fixture
def queue() -> Iterator[RunpodQueue]:
    with RunpodQueue().running() as running:
        yield running


@pytest.mark.parametrize("phase", ["", "engine ready", "worker ready"])
def test_a_worker(start: Start, queue: RunpodQueue, phase: str) -> None:
    platform = {
        "RUNPOD_WEBHOOK_GET_JOB": f"{queue.url}/v2/ep/job-take/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{queue.url}/v2/ep/job-done/$RUNPOD_POD_ID/$ID",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{queue.url}/v2/ep/job-stream/$RUNPOD_POD_ID/$ID",
        "RUNPOD_WEBHOOK_PING": f"{queue.url}/v2/ep/ping/$RUNPOD_POD_ID",
        "RUNPOD_AI_API_KEY": "test",
        "RUNPOD_POD_ID": "pod1",
        "RUNPOD_ENDPOINT_ID": "ep",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        "OUTPUT_MODE": "base64",
    }
    command = start("worker", "--lock", "demo", **platform)
    if phase:
        command.wait_for(phase)
    else:
        time.sleep(0.5)
    assert command.told_to_end() in (0, 143)


@pytest.mark.parametrize("phase", ["idle", "delivering"])
def test_a_sync(start: Start, tmp_path: Path, phase: str) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    if phase == "delivering":
        (folder / "large.bin").write_bytes(os.urandom(30 << 20))
    flags = ["--outbox", tmp_path / "outbox", "--limit", "1M", "--grace", "2"]
    command = start("sync", folder, f"file://{tmp_path / 'bucket'}", *flags)
    time.sleep(3)
    code = command.told_to_end()
    assert code == (0 if phase == "idle" else code)
    assert code in (0, 1, 80, 81)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    made = small_release(tmp_path_factory.mktemp("release"))
    made.write_lock()
    return made


@pytest.mark.parametrize("seed", range(4))
def test_a_realize(start: Start, release: SmallRelease, tmp_path: Path, seed: int) -> None:
    home = tmp_path / "home"
    command = start(
        "realize", release.root / "comfy-small.lock.json", "--home", home, COMFYPIN_CACHE_DIR=str(tmp_path / "cache")
    )
    time.sleep(random.Random(seed).uniform(0.4, 3))
    assert command.told_to_end() in (0, 143)
    assert list((home / "builds").glob(".tmp-*")) == []


def test_a_pack(start: Start, release: SmallRelease, tmp_path: Path) -> None:
    home, packs = tmp_path / "home", tmp_path / "packs"
    packs.mkdir()
    cache = str(release.root / "cache")
    lock = release.root / "comfy-small.lock.json"
    realized = start("realize", lock, "--home", home, COMFYPIN_CACHE_DIR=cache)
    assert realized.process.wait(120) == 0, realized.said
    for delay_s in (0.3, 0.5, 0.7, 0.9):
        command = start("env", "pack", packs, "--home", home, COMFYPIN_CACHE_DIR=cache)
        time.sleep(delay_s)
        assert command.told_to_end() in (0, 143)
        assert [path for path in packs.iterdir() if path.name.startswith(".")] == []
        assert list((home / "builds").glob(".tmp-*")) == []


def test_a_pull_from_a_server_that_drips(start: Start, tmp_path: Path) -> None:
    with drip_server(lambda _path: endless_body()) as server:
        lock = json.loads(DEMO_LOCK.read_text())
        model = {
            "name": "m",
            "sources": [f"{server.url}/m.safetensors"],
            "target_path": "$MODELS_DIR/vae/m.safetensors",
        }
        lock["models"] = [{**model, "sha256": "0" * 64, "size_bytes": 1_000_000}]
        path = tmp_path / "comfy-drip.lock.json"
        path.write_text(json.dumps(lock))
        command = start("models", "pull", "--lock", path, MODELS_DIR=str(tmp_path / "models"))
        time.sleep(3)
        assert command.process.poll() is None, command.said
        assert command.told_to_end() == 143
    assert not (tmp_path / "models/vae/m.safetensors").exists()

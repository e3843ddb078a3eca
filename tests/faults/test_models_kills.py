"""Pulls that are killed at any moment: what was verified stays, and nothing is left lying about."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from comfypin.models.partial_file import PartialFile
from tests.support.faulty_server import FaultyServer, Reply, Request, faulty_server, ranged
from tests.support.models import Home, pin_of, some_bytes

MIB = 1 << 20
SIZES = [1000, 200_000, 3 * MIB, 8 * MIB, 8 * MIB + 1, 11 * MIB, 16 * MIB, 17 * MIB, 25 * MIB, 33 * MIB]
FILES = {f"/m{number}": some_bytes(size, seed=number) for number, size in enumerate(SIZES)}


class Pulls:
    """Three processes that pull the same ten files into one folder, and what they may not fetch any more."""

    def __init__(self, folder: Path, server: FaultyServer) -> None:
        self.home = Home(folder / "models")
        self.server = server
        self.pins = [
            pin_of(data, f"{server.url}{path}", target=f"$MODELS_DIR/unet{path}.gguf") for path, data in FILES.items()
        ]
        self.lock = folder / "lock.json"
        models = [
            {
                "name": pin.name,
                "target_path": pin.target_path,
                "sha256": pin.sha256.hex if pin.sha256 else None,
                "size_bytes": pin.size_bytes,
                "sources": list(pin.sources),
            }
            for pin in self.pins
        ]
        self.lock.write_text(json.dumps({"schema_version": 3, "version_name": "kills", "models": models}))
        self.running: list[subprocess.Popen[bytes]] = []
        self._checked = 0
        self._verified: dict[str, int] = {}

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "comfypin.cli.main", "models", "pull", "--lock", str(self.lock)]
        command += ["--models-dir", str(self.home.models_dir), "--connections", "4"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def kill_one(self, dice: random.Random) -> None:
        """Stop all three in their tracks, note what is verified, kill one and let the others go on."""
        for process in self.running:
            process.send_signal(signal.SIGSTOP)
        self.check_requests()
        victim = dice.choice(self.running)
        victim.kill()
        for process in self.running:
            process.send_signal(signal.SIGCONT)
        victim.communicate()
        self.running.remove(victim)

    def check_requests(self) -> None:
        """Nothing that was verified at the last look was asked for since; then look again."""
        new = self.server.requests[self._checked :]
        self._checked += len(new)
        for request in new:
            assert request.range is not None
            assert request.range[0] >= self._verified.get(request.path, 0), f"{request.path} {request.range} again"
        for path, data in FILES.items():
            pin = self.pins[list(FILES).index(path)]
            assert pin.sha256 is not None
            if self.home.store.blob_path(pin.sha256).exists():
                self._verified[path] = len(data)
                continue
            journal = PartialFile(self.home.store.partial_file(pin.sha256.hex).folder).load_journal()
            if journal is not None:
                self._verified[path] = max(journal.prefixes, default=0)

    def begin_anew(self) -> None:
        """All is there: away with it, for more kills."""
        subprocess.run(["rm", "-rf", str(self.home.models_dir)], check=True)
        self._verified.clear()

    def stop(self) -> None:
        for process in self.running:
            process.kill()
            process.communicate()


def leftovers(models_dir: Path) -> list[str]:
    """Every file below the folder that is neither a model nor the store's own record."""
    store = models_dir / ".comfypin"
    found = []
    for folder, _, names in os.walk(models_dir):
        for name in names:
            path = Path(folder, name)
            known = path.is_relative_to(store / "blobs") or path.is_relative_to(store / "releases")
            if not known and path != store / "verified" and not (path.is_symlink() and path.exists()):
                found.append(str(path))
    return found


def kill(folder: Path, kills: int, seed: int) -> None:
    print(f"seed {seed}")
    dice = random.Random(seed)

    def script(request: Request) -> Reply:
        return ranged(FILES[request.path], request, bytes_per_s=20 * MIB)

    with faulty_server(script) as server:
        pulls = Pulls(folder, server)
        try:
            for _ in range(kills):
                while len(pulls.running) < 3:
                    pulls.running.append(pulls.start())
                time.sleep(dice.uniform(0.05, 1.2))
                if all(process.poll() is not None for process in pulls.running):
                    for process in pulls.running:
                        process.communicate()
                    pulls.check_requests()
                    pulls.running.clear()
                    pulls.begin_anew()
                    continue
                pulls.kill_one(dice)
        finally:
            pulls.stop()
        pulls.check_requests()
        last = pulls.start()
        _, said = last.communicate(timeout=120)
        assert last.returncode == 0, said.decode()
        pulls.check_requests()
    for pin, data in zip(pulls.pins, FILES.values(), strict=True):
        assert pulls.home.path(pin).read_bytes() == data
    assert leftovers(pulls.home.models_dir) == []


def test_ten_kills_of_three_pulls_lose_nothing(tmp_path: Path) -> None:
    kill(tmp_path, 10, seed=int.from_bytes(os.urandom(4)))


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_hundred_kills_of_three_pulls_lose_nothing(tmp_path: Path) -> None:
    kill(tmp_path, 100, seed=int.from_bytes(os.urandom(4)))

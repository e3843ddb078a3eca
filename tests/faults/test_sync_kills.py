"""Nothing is lost and nothing is half, whenever the syncer is killed, however the store fails."""

import hashlib
import multiprocessing
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT


def write_files(folder: str, writer: int, count: int, folders: int) -> None:
    chance = random.Random(writer)
    for index in range(count):
        place = Path(folder, f"w{writer}", f"d{index % folders}")
        place.mkdir(parents=True, exist_ok=True)
        data = chance.randbytes(chance.randrange(4000))
        if index % 3:
            (place / f"{index}.bin").write_bytes(data)
        else:
            (place / f"{index}.tmp").write_bytes(data)
            (place / f"{index}.tmp").rename(place / f"{index}.bin")


def start(base: Path, *once: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.support.sync_process", base / "outputs", base / "bucket"),
            *(base / "state" / "outbox.sqlite", "0.3", *once),
        ],
        cwd=ROOT,
    )


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("files", "kills"),
    [(1200, 6), pytest.param(20_000, 50, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])],
)
def test_files_written_by_four_processes_all_arrive_whatever_is_killed(tmp_path: Path, files: int, kills: int) -> None:
    (tmp_path / "outputs").mkdir()
    chance = random.Random(7)
    spawn = multiprocessing.get_context("spawn")
    writers = [
        spawn.Process(target=write_files, args=(str(tmp_path / "outputs"), number, files // 4, 125))
        for number in range(4)
    ]
    syncer = start(tmp_path)
    for writer in writers:
        writer.start()
    for _ in range(kills):
        time.sleep(chance.uniform(0.05, 1.0))
        syncer.kill()
        syncer.wait()
        syncer = start(tmp_path)
    for writer in writers:
        writer.join()
    syncer.kill()
    syncer.wait()
    assert start(tmp_path, "once").wait() == 0
    expected = contents(tmp_path / "outputs")
    assert len(expected) == files
    leftovers = [path for path in (tmp_path / "bucket").rglob("*.partial")]  # noqa: C416
    for path in leftovers:
        path.unlink()  # halves of our own stand-in for a bucket; a real one has none
    assert contents(tmp_path / "bucket") == expected

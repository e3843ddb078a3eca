"""A run that is stopped or killed leaves nothing running; one whose engine is killed is run once more."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.door import DEMO_LOCK
from tests.support.running import descendants, running_door, wait_until_gone

NODES = 12


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A run that takes a few seconds: pictures scaled one after the other."""
    graph: dict[str, object] = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 7}}
    }
    for number in range(2, NODES):
        inputs = {
            "image": [str(number - 1), 0],
            "upscale_method": "bicubic",
            "width": 1200 + number,
            "height": 1200,
            "crop": "disabled",
        }
        graph[str(number)] = {"class_type": "ImageScale", "inputs": inputs}
    graph[str(NODES)] = {
        "class_type": "SaveImage",
        "inputs": {"images": [str(NODES - 1), 0], "filename_prefix": "slow"},
    }
    (tmp_path / "slow.json").write_text(json.dumps(graph))
    out = ["--output", "file", "--out-dir", str(tmp_path / "out")]
    return ["--lock", str(DEMO_LOCK), "--workflow", str(tmp_path / "slow.json"), *out]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_stopped_run_ends_with_its_code_and_leaves_no_engine(
    words: list[str], number: signal.Signals, code: int, tmp_path: Path
) -> None:
    with running_door(*words) as door:
        door.wait_for("node_started")
        door.signal(number)
        returncode, said, stderr = door.end()
    assert returncode == code
    assert said["error"]["family"] == "cancelled"
    assert "Traceback" not in stderr
    assert wait_until_gone(door.engine_pids) == set()
    assert not list((tmp_path / "out").iterdir())


def test_a_run_that_is_killed_leaves_no_engine(words: list[str]) -> None:
    with running_door(*words) as door:
        door.wait_for("node_started")
        door.signal(signal.SIGKILL)
        door.process.wait()
    assert door.engine_pids
    assert wait_until_gone(door.engine_pids) == set()


def test_a_run_that_is_stopped_while_its_engine_starts_leaves_no_engine(words: list[str]) -> None:
    with running_door(*words) as door:
        door.wait_for("note")
        while not door.engine_pids:
            door.engine_pids |= set(descendants(door.process.pid))
        door.signal(signal.SIGTERM)
        returncode, _, stderr = door.end()
    assert returncode == 143
    assert "Traceback" not in stderr
    assert wait_until_gone(door.engine_pids) == set()


def test_a_job_whose_engine_is_killed_is_run_once_more(words: list[str]) -> None:
    with running_door(*words) as door:
        door.wait_for("node_started")
        os.kill(door.engine(), signal.SIGKILL)
        door.wait_for("requeued")
        returncode, result, _ = door.end()
    assert returncode == 0
    assert len(result["outputs"]) == 1
    assert Path(result["outputs"][0]["uri"]).stat().st_size == result["outputs"][0]["size_bytes"]


def test_a_job_whose_engine_is_killed_twice_fails_with_the_reason(words: list[str]) -> None:
    with running_door(*words) as door:
        door.wait_for("node_started")
        os.kill(door.engine(), signal.SIGKILL)
        door.wait_for("requeued")
        door.wait_for("node_started")
        os.kill(door.engine(), signal.SIGKILL)
        returncode, said, stderr = door.end()
    assert returncode == 20
    assert "SIGKILL" in said["error"]["message"]
    assert "Traceback" not in stderr


def test_a_deadline_ends_the_run_with_its_code(words: list[str]) -> None:
    with running_door(*words, "--timeout", "0.5") as door:
        door.wait_for("node_started")
        returncode, said, _ = door.end()
    assert returncode == 22
    assert "0.5 s" in said["error"]["message"]
    assert wait_until_gone(door.engine_pids) == set()


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[str]:
    """An engine that is not ours to stop, by its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folders = ["--base-directory", str(tmp_path / "remote")]
    words = [sys.executable, "-m", "comfypin.engine.embedded", "--listen", "127.0.0.1", "--port", str(port), *folders]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while server.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/system_stats", timeout=5).close()
                break
        yield url
    finally:
        server.kill()
        server.wait()


def test_a_stopped_run_takes_its_prompt_back_from_an_engine_that_goes_on(words: list[str], remote: str) -> None:
    with running_door(*words, "--engine-url", remote) as door:
        door.wait_for("node_started")
        door.signal(signal.SIGINT)
        returncode, _, _ = door.end()
    assert returncode == 130
    with urllib.request.urlopen(f"{remote}/queue", timeout=30) as answer:
        queue = json.load(answer)
    assert queue["queue_pending"] == []
    for _ in range(200):
        with urllib.request.urlopen(f"{remote}/history", timeout=30) as answer:
            history = json.load(answer)
        if history:
            break
        time.sleep(0.05)
    (entry,) = history.values()
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"


def test_a_start_removes_what_a_killed_run_left_in_the_temp_folder(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with running_door(*words) as door:
        door.wait_for("node_started")
        door.signal(signal.SIGKILL)
        with contextlib.suppress(Exception):
            door.end()
    wait_until_gone(door.engine_pids)
    assert list(temporary.iterdir())
    with running_door(*words) as door:
        door.wait_for("node_started")
        (left,) = temporary.iterdir()
        door.signal(signal.SIGTERM)
        door.end()
    assert not left.exists()

"""`comfypin run --engine-url` on a ComfyUI that runs already: no lock is needed, and the result says so."""

import contextlib
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfypin.cli.main import main
from tests.support.door import DEMO_LOCK
from tests.support.workflows import picture


@pytest.fixture(scope="module")
def engine_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = [sys.executable, "-m", "comfypin.engine.embedded", "--port", port]
    words += ["--base-directory", str(tmp_path_factory.mktemp("engine"))]
    engine = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while engine.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/system_stats", timeout=5).close()
                break
        yield url
    finally:
        engine.kill()
        engine.wait()


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for name in ("LOCK_PATH", "COMFY_VERSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    Path("workflow.json").write_text(json.dumps(picture(1)))
    return ["run", "--workflow", "workflow.json", "--output", "file"]


def test_without_a_lock_the_result_is_unpinned(
    words: list[str], engine_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--engine-url", engine_url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["release"], told["release_digest"]) == ("unpinned", None)
    assert len(told["outputs"]) == 1


def test_people_are_told_that_it_is_unpinned(
    words: list[str], engine_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--engine-url", engine_url]) == 0
    printed = capsys.readouterr()
    assert "Unpinned" in printed.err
    assert Path(printed.out.strip()).is_file()


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_a_lock_that_nobody_compared_is_not_claimed(
    words: list[str], engine_url: str, by: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCK_PATH", str(DEMO_LOCK) if by == "variable" else "")
    flags = ["--lock", str(DEMO_LOCK)] if by == "flag" else []
    assert main([*words, *flags, "--engine-url", engine_url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["release"], told["release_digest"]) == ("unpinned", None)
    (warning,) = told["warnings"]
    assert "was not compared with the lock demo" in warning


def test_a_lock_that_is_wrong_is_not_passed_over(words: list[str], engine_url: str) -> None:
    assert main([*words, "--lock", "nosuch", "--engine-url", engine_url]) == 10


def test_the_embedded_engine_needs_none_either(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--engine", "embedded", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["release"] == "unpinned"

"""No traceback reaches a user: whatever is given, one sentence, an exit code of its family, and nothing on stdout."""

import contextlib
import json
import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfypin.cli.main import main
from tests.support.door import DEMO_LOCK, DEMO_WORKFLOW, ROOT, clean_environ, door_command, run_door

LOCK = str(DEMO_LOCK)
DEMO = str(DEMO_WORKFLOW)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bad things."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "binary.json").write_bytes(os.urandom(4096))
    (folder / "half.json").write_text('{"1": {"class_type":')
    (folder / "list.json").write_text("[1, 2]")
    (folder / "ui.json").write_text('{"nodes": [], "links": [], "version": 0.4}')
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "empty").write_text("")
    (folder / "folder").mkdir()
    (folder / "unknown.json").write_text('{"1": {"class_type": "NoSuchNode", "inputs": {}}}')
    (folder / "lock.json").write_text('{"schema_version": 99}')
    return folder


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 64),
        (["--no-such-flag"], 64),
        (["--lock", LOCK], 64),
        (["--workflow"], 64),
        (["--lock", LOCK, "--workflow", DEMO, "--output", "ftp"], 64),
        (["--lock", LOCK, "--workflow", DEMO, "--output", "gcs", "--out-file", "x"], 64),
        (["--lock", LOCK, "--workflow", DEMO, "--timeout", "-1"], 64),
        (["--lock", LOCK, "--workflow", DEMO, "--timeout", "nan"], 64),
        (["--lock", LOCK, "--workflow", DEMO, "--job-id", "../x"], 64),
        (["--lock", LOCK, "--workflow", DEMO, "--output", "base64", "--input-dir", "/nowhere"], 64),
        (["--lock", LOCK, "--workflow", DEMO, "--output", "base64", "--engine", "embedded", "--engine-url", "u"], 64),
        (["--lock", LOCK, "--workflow", DEMO, "--output", "base64", "--engine", "remote"], 3),
        (["--lock", LOCK, "--workflow", DEMO, "--output", "base64", "--engine-url", "not a url"], 3),
        (["--lock", LOCK, "--workflow", DEMO, "--output", "base64", "--engine-url", "http://127.0.0.1:1"], 20),
        (["--lock", LOCK, "--workflow", DEMO, "--output", "base64", "--engine", "comfyui", "--comfy-home", "."], 3),
        (["--workflow", DEMO, "--output", "base64"], 10),
        (["--lock", "nosuch", "--workflow", DEMO, "--output", "base64"], 10),
        (["--lock", "folder", "--workflow", DEMO, "--output", "base64"], 10),
        (["--lock", "./folder", "--workflow", DEMO, "--output", "base64"], 10),
        (["--lock", "binary.json", "--workflow", DEMO, "--output", "base64"], 10),
        (["--lock", "lock.json", "--workflow", DEMO, "--output", "base64"], 10),
        (["--lock", "x" * 5000, "--workflow", DEMO, "--output", "base64"], 10),
        (["--lock", LOCK, "--workflow", "nosuch.json", "--output", "base64"], 11),
        (["--lock", LOCK, "--workflow", "folder", "--output", "base64"], 11),
        (["--lock", LOCK, "--workflow", "binary.json", "--output", "base64"], 11),
        (["--lock", LOCK, "--workflow", "half.json", "--output", "base64"], 11),
        (["--lock", LOCK, "--workflow", "list.json", "--output", "base64"], 11),
        (["--lock", LOCK, "--workflow", "deep.json", "--output", "base64"], 11),
        (["--lock", LOCK, "--workflow", "empty", "--output", "base64"], 11),
        (["--lock", LOCK, "--workflow", "ui.json", "--output", "base64"], 11),
        (["--lock", LOCK, "--workflow", "x" * 5000, "--output", "base64"], 11),
        (["--lock", LOCK, "--workflow", "unknown.json", "--output", "base64"], 11),
        (["--lock", LOCK, "--workflow", DEMO, "--output", "base64", "--set", "nonsense"], 11),
        (["--lock", LOCK, "--workflow", DEMO, "--output", "base64", "--set", "999.x=1"], 11),
        (["--lock", LOCK, "--workflow", DEMO, "--output", "base64", "--input", "1=/nowhere.png"], 11),
        (["--lock", LOCK, "--workflow", DEMO, "--output", "base64", "--out-file", "folder"], 30),
        (["--lock", LOCK, "--workflow", DEMO, "--output", "file", "--out-dir", "empty"], 30),
        (["--lock", LOCK, "--workflow", DEMO, "--output", "file", "--out-dir", "/proc/nothing"], 30),
    ],
)
def test_bad_input_is_one_sentence_and_a_code(
    there: Path, words: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(there)
    with a_clean_process(monkeypatch):
        ended = main(["run", *words])
    stdout, said = capsys.readouterr()
    assert ended == code, said
    assert stdout == ""
    assert "Traceback" not in said
    assert "internal error" not in said
    assert "comfypin: " in said


@contextlib.contextmanager
def a_clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process, as the command line finds one: its own logging, and no variables of comfypin."""
    for name in set(os.environ) - set(clean_environ()):
        monkeypatch.delenv(name)
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


def test_a_failure_as_json_is_an_object_on_stdout(there: Path) -> None:
    done = run_door("--lock", LOCK, "--workflow", there / "ui.json", "--output", "base64", "--json")
    error = json.loads(done.stdout)["error"]
    assert (error["family"], error["exit_code"]) == ("workflow", 11)
    assert error["message"]


def test_a_full_disk_behind_stdout_is_said() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            door_command("--lock", LOCK, "--workflow", DEMO, "--output", "base64"),
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=clean_environ(),
            timeout=90,
            check=False,
        )
    assert done.returncode == 30
    assert b"could not be printed" in done.stderr
    assert b"Traceback" not in done.stderr


def test_closed_streams_are_no_traceback() -> None:
    command = " ".join(door_command("--lock", LOCK, "--workflow", "-", "--output", "base64"))
    done = subprocess.run(
        ["bash", "-c", f"echo '{{}}' | {command} >&-"], capture_output=True, cwd=ROOT, env=clean_environ(), check=False
    )
    assert b"Traceback" not in done.stderr


def test_verbose_adds_the_cause(there: Path) -> None:
    done = run_door("--lock", LOCK, "--workflow", there / "nosuch.json", "--output", "base64", "--verbose")
    assert b"because of FileNotFoundError" in done.stderr

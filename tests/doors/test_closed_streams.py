"""What prints much, when nobody reads it, the disk behind it is full, or a stream is closed: a sentence or silence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.door import DEMO_LOCK, DEMO_WORKFLOW, clean_environ
from tests.support.workflows import picture

COMFYPIN = f"{sys.executable} -m comfypin.cli.main"
PRINTS = {
    "run": "run --lock demo --workflow {big} --output base64",
    "workflow inputs": "workflow inputs {demo} --lock demo --json",
    "lock show": "lock show --lock demo",
    "lock schema": "lock schema",
    "models ls": "models ls --json",
    "env status": "env status --json --home {folder}",
    "env gc": "env gc --json --home {folder}",
    "realize": "realize demo --dry-run --json --home {folder}",
    "doctor": "doctor --json",
    "help": "--help",
}
# Codes of a failure that has nothing to do with streams: there is no env here, no account, no such format.
CODES = (0, 3, 10, 11, 12, 20, 30, 31, 40, 50, 60, 64, 70, 80, 90)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("streams")
    (folder / "big.json").write_text(json.dumps(picture(7, size=1200) | noise(1200)))
    names = {"big": folder / "big.json", "demo": DEMO_WORKFLOW, "folder": folder / "home", "lock": DEMO_LOCK}
    return {name: text.format(**names) for name, text in PRINTS.items()}


def noise(size: int) -> dict[str, object]:
    """A picture that no PNG makes small: a blur of many colours cannot be had here, so many pictures stand for it."""
    graph: dict[str, object] = {}
    for number in range(40):
        node = 10 + 2 * number
        inputs = {"width": size, "height": size, "batch_size": 1, "color": number * 99991}
        graph[str(node)] = {"class_type": "EmptyImage", "inputs": inputs}
        graph[str(node + 1)] = {
            "class_type": "SaveImage",
            "inputs": {"images": [str(node), 0], "filename_prefix": f"n{number}"},
        }
    return graph


def shell(text: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """What bash makes of a line: stdout of the line, and of stderr what the command said into the file `said`."""
    return subprocess.run(
        ["bash", "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        env=clean_environ(HOME=str(folder), COMFYPIN_CACHE_DIR=str(folder / "cache")),
    )  # fmt: skip


def assert_quiet(said: str) -> None:
    assert "Traceback" not in said, said
    assert "internal error" not in said, said
    assert "Exception ignored" not in said, said
    assert "BrokenPipe" not in said, said


@pytest.mark.parametrize("name", PRINTS)
def test_a_reader_that_has_enough_ends_it_in_silence(name: str, words: dict[str, str], tmp_path: Path) -> None:
    said = tmp_path / "said"
    done = shell(f"{COMFYPIN} {words[name]} 2>{said} | head -c 100 >/dev/null; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert_quiet(said.read_text())
    assert int(done.stdout) in CODES


def test_a_reader_of_megabytes_that_leaves_in_their_midst(words: dict[str, str], tmp_path: Path) -> None:
    said = tmp_path / "said"
    line = f"{COMFYPIN} {words['run']} 2>{said} | head -c 100000 | wc -c; echo ${{PIPESTATUS[0]}}"
    assert shell(line, tmp_path).stdout.split() == ["100000", "0"]
    assert_quiet(said.read_text())


@pytest.mark.parametrize("name", [name for name in PRINTS if name != "help"])  # argparse itself says nothing of it
def test_a_full_disk_behind_stdout_is_one_sentence(name: str, words: dict[str, str], tmp_path: Path) -> None:
    done = shell(f"{COMFYPIN} {words[name]} >/dev/full", tmp_path)
    assert_quiet(done.stderr)
    assert done.returncode in CODES
    assert done.returncode != 0, "what was not printed is not well"
    assert "comfypin: " in done.stderr


@pytest.mark.parametrize("name", [name for name in PRINTS if name != "run"])
@pytest.mark.parametrize("closed", [">&- 2>&- <&-", "2>/dev/full >/dev/null"])
def test_a_closed_stream_is_no_traceback(name: str, closed: str, words: dict[str, str], tmp_path: Path) -> None:
    done = shell(f"{COMFYPIN} {words[name]} {closed}", tmp_path)
    assert_quiet(done.stderr)
    assert done.returncode in CODES


def test_events_that_nobody_reads_do_not_end_a_run(words: dict[str, str], tmp_path: Path) -> None:
    line = f"{COMFYPIN} {words['run']} --json 2> >(head -c 10 >/dev/null) | wc -c; echo ${{PIPESTATUS[0]}}"
    count, code = shell(line, tmp_path).stdout.split()
    assert (int(count) > 100_000, code) == (True, "0")

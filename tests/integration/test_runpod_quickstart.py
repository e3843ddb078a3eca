"""docs/quickstart-runpod.md shows what its commands print, against the tests' Runpod with a worker that really runs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, shared_path
from tests.support.runpod_api import KEY, FakeRunPod
from tests.support.runpod_worker import run_on_the_demo_release

PAGES = ("quickstart-runpod.md", "ru/quickstart-runpod.md")


def transcript(page: str) -> list[tuple[str, str]]:
    """The commands of a page's transcript, and what the page says that each prints."""
    (block,) = re.findall(r"```console\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    steps = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, printed) for command, _, printed in (step.partition("\n") for step in steps)]


def commands(page: str) -> list[str]:
    return re.findall(r"^comfypin .*$", (ROOT / "docs" / page).read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_a_first_picture_takes_no_more_than_five_commands(page: str) -> None:
    assert 0 < len(commands(page)) <= 5
    assert transcript(page) == transcript(PAGES[0])


def test_the_transcript_is_what_the_commands_print(tmp_path: Path) -> None:
    for name in ("lockfiles", "workflows"):
        (tmp_path / name).symlink_to(ROOT / name)
    with FakeRunPod(shared_path("openapi") / "runpod-rest-v2.openapi.json") as runpod:
        runpod.run_job = run_on_the_demo_release
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RUNPOD")},
            "RUNPOD_API_URL": runpod.url,
            "RUNPOD_ENDPOINT_BASE_URL": f"{runpod.url}/job",
            "RUNPOD_API_KEY": KEY,
            "PYTHONUNBUFFERED": "1",
        }
        for command, printed in transcript(PAGES[0]):
            words = shlex.split(command.replace("comfypin", f"{sys.executable} -m comfypin.cli.main", 1))
            ran = subprocess.run(
                words,
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            assert (ran.returncode, ran.stdout) == (0, printed), command
        assert runpod.violations == []
    assert [path.read_bytes()[:4] for path in (tmp_path / "out").iterdir()] == [b"\x89PNG"]

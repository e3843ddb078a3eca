"""`comfypin runpod up` against a Runpod in a box: real workers, real pods, real pictures."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, shared_path
from tests.support.runpod_api import KEY
from tests.support.runpod_box import IMAGE, RunpodBox
from tests.support.workflows import picture

OPENAPI = shared_path("openapi") / "runpod-rest-v2.openapi.json"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[RunpodBox]:
    with RunpodBox(OPENAPI, tmp_path / "box") as running:
        yield running


def up(box: RunpodBox, folder: Path, *words: str, code: int = 0, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run a verb of `comfypin runpod` in the folder."""
    done = subprocess.run(
        [sys.executable, "-m", "comfypin.cli.main", "runpod", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment(box, folder, **environ),
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def environment(box: RunpodBox, folder: Path, **environ: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD", "OUTPUT", "COMFY"))},
        "HOME": str(folder),
        "RUNPOD_API_URL": box.url,
        "RUNPOD_ENDPOINT_BASE_URL": f"{box.url}/job",
        "RUNPOD_API_KEY": KEY,
        **environ,
    }


def write_workflow(folder: Path, value: int = 1, name: str = "card.json") -> str:
    (folder / name).write_text(json.dumps(picture(value)))
    return name


def pictures(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "out").rglob("*.png"))]


DEMO = str(ROOT / "lockfiles" / "comfy-demo.lock.json")
FLAGS = ("--lock", DEMO, "--image", IMAGE, "--yes")


def test_from_nothing_to_the_picture(box: RunpodBox, tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path)
    done = up(box, tmp_path, "up", workflow, *FLAGS)
    assert "card is up" in done.stdout
    assert [data[:4] for data in pictures(tmp_path)] == [b"\x89PNG"]
    assert box.made == [("endpoints", "comfypin-card-api -fb")]
    assert box.violations == []

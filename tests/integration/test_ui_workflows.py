"""UI workflows and saved pictures run end to end: on the embedded engine, and on a real ComfyUI where one answers."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from comfypin.cli.main import main

COMFYUI_URL = os.environ.get("COMFYUI_URL", "")
ENGINES = [
    pytest.param(("--engine", "embedded"), id="embedded"),
    *([pytest.param(("--engine-url", COMFYUI_URL), id="comfyui", marks=pytest.mark.comfyui)] if COMFYUI_URL else []),
]
LOCK = Path(__file__).parents[2] / "lockfiles" / "comfy-demo.lock.json"


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: Image.open(path).size for path in sorted(folder.rglob("*.png"))}


def run(engine: tuple[str, ...], workflow: Path, out: Path, *more: str) -> int:
    command = ["run", "--lock", str(LOCK), "--workflow", str(workflow), *engine]
    return main([*command, "--output", "file", "--out-dir", str(out), *more])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_saved_workflow_with_a_subgraph_runs(captures: Path, tmp_path: Path, engine: tuple[str, ...]) -> None:
    recorded = json.loads((captures / "convert" / "own_subgraph_text_replace.json").read_text())
    workflow = tmp_path / "saved.json"
    workflow.write_text(json.dumps(recorded["ui"]))
    assert run(engine, workflow, tmp_path / "out", "--set", "Outer.width=48") == 0
    assert sorted(sizes(tmp_path / "out").values()) == [(33, 16), (48, 16)]
    assert all(name.startswith("33_48_") for name in sizes(tmp_path / "out"))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_picture_that_a_job_saved_runs_again(captures: Path, tmp_path: Path, engine: tuple[str, ...]) -> None:
    recorded = json.loads((captures / "convert" / "own_subgraph_text_replace.json").read_text())
    workflow = tmp_path / "saved.json"
    workflow.write_text(json.dumps(recorded["ui"]))
    assert run(engine, workflow, tmp_path / "first") == 0
    picture = sorted((tmp_path / "first").rglob("*.png"))[0]
    assert run(engine, picture, tmp_path / "second") == 0
    assert sizes(tmp_path / "second") == sizes(tmp_path / "first")
    assert json.loads(Image.open(picture).text["workflow"])["nodes"]  # type: ignore[attr-defined]

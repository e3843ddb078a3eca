"""`comfypin runpod` as people use it: its own process, a Runpod that keeps state, exit codes and words."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.conftest import ROOT, shared_path
from tests.support.runpod_api import KEY, FakeRunPod

IMAGE = "ghcr.io/me/comfypin-demo@sha256:" + "1" * 64


@pytest.fixture
def runpod() -> Iterator[FakeRunPod]:
    with FakeRunPod(shared_path("openapi") / "runpod-rest-v2.openapi.json") as server:
        yield server
    assert server.violations == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lockfiles").symlink_to(ROOT / "lockfiles")
    return tmp_path


def comfypin(
    runpod: FakeRunPod, folder: Path, *arguments: str, key: str | None = KEY, text: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RUNPOD")},
        "RUNPOD_API_URL": runpod.url,
        "RUNPOD_ENDPOINT_BASE_URL": f"{runpod.url}/job",
        **({"RUNPOD_API_KEY": key} if key else {}),
    }
    return subprocess.run(
        [sys.executable, "-m", "comfypin.cli.main", "runpod", *arguments],
        cwd=folder,
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_from_an_empty_account_to_a_first_picture(runpod: FakeRunPod, folder: Path) -> None:
    picture = base64.b64encode(b"the picture").decode()
    runpod.run_job = lambda _input: {
        "status": "COMPLETED",
        "output": {"images": [{"filename": "a.png", "type": "base64", "data": picture}]},
    }
    assert comfypin(runpod, folder, "init", "--image", IMAGE).returncode == 0
    assert comfypin(runpod, folder, "plan").returncode == 2
    applied = comfypin(runpod, folder, "apply", "--wait")
    assert applied.returncode == 0, applied.stderr
    assert "smoke job through api" in applied.stderr
    assert comfypin(runpod, folder, "plan").returncode == 0
    (folder / "w.json").write_text("{}")
    ran = comfypin(runpod, folder, "run", "w.json", "--endpoint", "api", "--set", "6.text=a cat")
    assert ran.returncode == 0, ran.stderr
    assert (folder / ran.stdout.strip()).read_bytes() == b"the picture"
    assert list(runpod.jobs.values())[-1]["input"]["set"] == {"6.text": "a cat"}
    status = json.loads(comfypin(runpod, folder, "status", "--json").stdout)
    assert {row["kind"] for row in status["resources"]} == {"template", "endpoint"}
    gone = comfypin(runpod, folder, "destroy", "--yes")
    assert gone.returncode == 0, gone.stderr
    assert not runpod.state["endpoints"]


def test_a_plan_shows_what_it_costs(runpod: FakeRunPod, folder: Path) -> None:
    comfypin(runpod, folder, "init", "--image", IMAGE)
    planned = comfypin(runpod, folder, "plan")
    assert "endpoint api: $0.00 to $3.30 an hour" in planned.stdout
    machine = json.loads(comfypin(runpod, folder, "plan", "--json").stdout)
    assert [step["action"] for step in machine["steps"]] == ["create", "create"]


def test_a_missing_key_names_its_variable(runpod: FakeRunPod, folder: Path) -> None:
    comfypin(runpod, folder, "init", "--image", IMAGE)
    planned = comfypin(runpod, folder, "plan", key=None)
    assert planned.returncode == 3
    assert "RUNPOD_API_KEY is not set" in planned.stderr


def test_a_plain_secret_in_the_file_is_refused_before_any_call(runpod: FakeRunPod, folder: Path) -> None:
    comfypin(runpod, folder, "init", "--image", IMAGE)
    file = folder / "runpod.toml"
    file.write_text(file.read_text().replace("\n[env]\n", '\n[env]\nCIVITAI_TOKEN = "abc"\n'))
    planned = comfypin(runpod, folder, "plan")
    assert planned.returncode == 70
    assert "RUNPOD_SECRET_civitai_token" in planned.stderr
    assert runpod.log == []


def test_without_a_file_one_is_offered(runpod: FakeRunPod, folder: Path) -> None:
    planned = comfypin(runpod, folder, "plan")
    assert planned.returncode == 70
    assert "comfypin runpod init" in planned.stderr


def test_destroy_without_a_terminal_wants_to_be_told_yes(runpod: FakeRunPod, folder: Path) -> None:
    comfypin(runpod, folder, "init", "--image", IMAGE)
    comfypin(runpod, folder, "apply")
    refused = comfypin(runpod, folder, "destroy")
    assert refused.returncode == 64
    assert "--yes" in refused.stderr
    assert len(runpod.state["endpoints"]) == 1


def test_volumes_outlive_destroy_unless_asked_for(runpod: FakeRunPod, folder: Path) -> None:
    comfypin(runpod, folder, "init", "--image", IMAGE)
    with (folder / "runpod.toml").open("a") as file:
        file.write('\n[[volume]]\nname = "models"\ndata_center = "EU-RO-1"\n')
    assert comfypin(runpod, folder, "apply").returncode == 0
    kept = comfypin(runpod, folder, "destroy", "--yes")
    assert "kept, with their data: comfypin-demo-models" in kept.stderr
    assert len(runpod.state["networkVolumes"]) == 1
    comfypin(runpod, folder, "destroy", "--yes", "--volumes")
    assert not runpod.state["networkVolumes"]


def test_a_failed_job_says_why(runpod: FakeRunPod, folder: Path) -> None:
    failed: dict[str, Any] = {"status": "FAILED", "error": "node 3 (KSampler) failed"}
    runpod.run_job = lambda _input: failed
    comfypin(runpod, folder, "init", "--image", IMAGE)
    comfypin(runpod, folder, "apply")
    (folder / "w.json").write_text("{}")
    ran = comfypin(runpod, folder, "run", "w.json", "--endpoint", "api")
    assert ran.returncode == 21
    assert "node 3 (KSampler) failed" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_output_never_leaves_its_folder(runpod: FakeRunPod, folder: Path) -> None:
    evil = {"filename": "../../evil.png", "data": base64.b64encode(b"x").decode()}
    runpod.run_job = lambda _input: {"status": "COMPLETED", "output": {"images": [evil]}}
    comfypin(runpod, folder, "init", "--image", IMAGE)
    comfypin(runpod, folder, "apply")
    (folder / "w.json").write_text("{}")
    ran = comfypin(runpod, folder, "run", "w.json", "--endpoint", "api")
    assert ran.returncode == 30
    assert not (folder.parent / "evil.png").exists()


def test_a_picture_with_a_workflow_and_files_of_this_machine_go_along(runpod: FakeRunPod, folder: Path) -> None:
    comfypin(runpod, folder, "init", "--image", IMAGE)
    comfypin(runpod, folder, "apply")
    (folder / "cat.png").write_bytes(b"a cat")
    arguments = ["--endpoint", "api", "--input", "LoadImage=cat.png", "--input", "7=https://example.org/d.png?x=1"]
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": "cat.png"}}}
    saved = PngInfo()
    saved.add_text("prompt", json.dumps(graph))
    Image.new("RGB", (2, 2)).save(folder / "made.png", pnginfo=saved)
    ran = comfypin(runpod, folder, "run", "made.png", *arguments)
    assert ran.returncode == 0, ran.stderr
    job = list(runpod.jobs.values())[-1]["input"]
    assert job["workflow"] == graph
    assert job["inputs"] == [
        {"node": "LoadImage", "name": "cat.png", "data": base64.b64encode(b"a cat").decode()},
        {"node": "7", "name": "d.png", "url": "https://example.org/d.png?x=1"},
    ]


def test_the_placeholder_of_init_is_no_image(runpod: FakeRunPod, folder: Path) -> None:
    comfypin(runpod, folder, "init")
    applied = comfypin(runpod, folder, "apply")
    assert applied.returncode == 70
    assert "placeholder" in applied.stderr
    assert runpod.log == []


def test_destroy_needs_no_lock(runpod: FakeRunPod, folder: Path) -> None:
    comfypin(runpod, folder, "init", "--image", IMAGE)
    comfypin(runpod, folder, "apply")
    file = folder / "runpod.toml"
    file.write_text(file.read_text().replace('release = "demo"', 'release = "gone"'))
    gone = comfypin(runpod, folder, "destroy", "--yes")
    assert gone.returncode == 0, gone.stderr
    assert not runpod.state["endpoints"]

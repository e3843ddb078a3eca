"""What `comfypin runpod up` needs from the user is told at once, and what can be planned without it is planned."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import shared_path
from tests.support.runpod_box import DEMO, IMAGE, RunpodBox, run_verb, write_workflow

OPENAPI = shared_path("openapi") / "runpod-rest-v2.openapi.json"
NO_KEY = {"RUNPOD_API_KEY": ""}
NO_GIT = {"GIT_ALLOW_PROTOCOL": "none"}


@pytest.fixture
def box(tmp_path: Path) -> Iterator[RunpodBox]:
    with RunpodBox(OPENAPI, tmp_path / "box") as running:
        yield running
    assert running.violations == []
    assert running.writes == []


def open_workflow(folder: Path, **properties: str) -> str:
    """Write a workflow that leaves a model, a pack and a class open, and return its name."""
    nodes = [
        {"type": "VAELoader", "properties": properties, "widgets_values": ["secret-sauce.safetensors"]},
        {"type": "Odd", "properties": {"cnr_id": "odd-pack"}, "widgets_values": []},
        {"type": "Nameless", "properties": {}, "widgets_values": []},
    ]
    (folder / "card.json").write_text(json.dumps({"nodes": nodes}))
    return "card.json"


def findings(printed: str) -> list[str]:
    """The list of a refusal, without what it says before."""
    return [line.strip() for line in printed.partition("nothing was made.")[2].splitlines() if line.startswith("  ")]


def test_without_a_network_and_a_key_all_that_is_open_is_in_one_list(box: RunpodBox, tmp_path: Path) -> None:
    words = ("--dry-run", "--offline", "--secret", "HF_TOKEN")
    done = run_verb(box, tmp_path, "up", open_workflow(tmp_path), *words, code=10, **NO_KEY)
    for said in ("--comfyui URL@REF", "--lock FILE", "secret-sauce", "odd-pack", "Nameless", "RUNPOD_API_KEY"):
        assert said in done.stderr
    assert "--secret HF_TOKEN=NAME" in done.stderr
    assert len(findings(done.stderr)) == 7
    assert box.log == []


def test_sources_that_cannot_be_reached_hide_nothing_else(box: RunpodBox, tmp_path: Path) -> None:
    workflow = open_workflow(tmp_path, cnr_id="comfy-core", ver="0.33.0")
    done = run_verb(box, tmp_path, "up", workflow, "--yes", code=10, **NO_KEY, **NO_GIT)
    said = "\n".join(findings(done.stderr))
    for name in ("secret-sauce", "odd-pack", "cannot be reached", "Nameless", "RUNPOD_API_KEY"):
        assert name in said


def test_without_a_key_the_plan_goes_as_far_as_it_can(box: RunpodBox, tmp_path: Path) -> None:
    words = ("--lock", DEMO, "--image", IMAGE, "--dry-run")
    done = run_verb(box, tmp_path, "up", write_workflow(tmp_path), *words, code=10, **NO_KEY)
    assert f"image {IMAGE}" in done.stdout
    assert "+ endpoint comfypin-card-api: the cheapest GPU that fits" in done.stdout
    assert "Runpod was not asked" in done.stdout
    assert [line.partition(":")[0] for line in findings(done.stderr)] == ["the key"]
    assert box.log == []


def test_offline_a_plan_that_needs_nothing_is_a_plan(box: RunpodBox, tmp_path: Path) -> None:
    words = ("--lock", DEMO, "--gpu", "ADA_24", "--dry-run", "--offline", "--json")
    done = run_verb(box, tmp_path, "up", write_workflow(tmp_path), *words, code=2)
    planned = json.loads(done.stdout)
    assert (planned["asked_runpod"], planned["image"].partition(":")[2].rpartition("-")[2]) == (False, "py3.12")
    assert [(step["action"], step["kind"]) for step in planned["steps"]] == [("create", "endpoint")]
    assert box.log == []


def test_offline_is_for_plans(box: RunpodBox, tmp_path: Path) -> None:
    done = run_verb(box, tmp_path, "up", write_workflow(tmp_path), "--lock", DEMO, "--offline", code=64)
    assert "add --dry-run" in done.stderr


def test_what_runpod_and_the_lock_leave_open_is_in_one_list(box: RunpodBox, tmp_path: Path) -> None:
    box.levels = dict.fromkeys(box.levels, "NONE")
    box.secrets["s1"] = {"id": "s1", "name": "hugging", "value": "v"}
    old = {"schema_version": 3, "version_name": "card", "engine": {"kind": "embedded"}, "python": {"version": "3.10"}}
    (tmp_path / "old.lock.json").write_text(json.dumps(old))
    words = ("--lock", "old.lock.json", "--secret", "HF_TOKEN=huging", "--secret", "OTHER", "--yes", "--json")
    done = run_verb(box, tmp_path, "up", write_workflow(tmp_path), *words, code=10)
    error = json.loads(done.stdout)["error"]
    heads = [finding.partition(":")[0] for finding in error["facts"]["findings"]]
    assert heads == ["the secret HF_TOKEN", "the secret OTHER", "the image", "the GPU"]
    assert "it has hugging; choose by --secret HF_TOKEN=NAME" in error["message"]

"""`comfypin runpod up` against a Runpod in a box: real workers, real pods, real pictures."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, shared_path
from tests.support.model_hubs import HubRepo, hub
from tests.support.models import safetensors
from tests.support.releases import small_release
from tests.support.runpod_box import DEMO, IMAGE, RunpodBox, pictures, run_verb, write_workflow

OPENAPI = shared_path("openapi") / "runpod-rest-v2.openapi.json"
FLAGS = ("--image", IMAGE, "--yes")
WEIGHTS = HubRepo(name="org/tiny", path="vae/tiny.safetensors", data=safetensors(b"weights" * 1000))


@pytest.fixture
def box(tmp_path: Path) -> Iterator[RunpodBox]:
    with RunpodBox(OPENAPI, tmp_path / "box") as running:
        yield running
    assert running.violations == []


def write_lock(folder: Path, *models: HubRepo, name: str = "release.lock.json") -> str:
    """Write a lock of the embedded engine with these models of the hub."""
    pins = [
        {
            "name": Path(model.path).name,
            "target_path": f"$MODELS_DIR/{model.path}",
            "sha256": hashlib.sha256(model.data).hexdigest(),
            "size_bytes": len(model.data),
            "sources": [f"hf://{model.name}/{model.path}"],
        }
        for model in models
    ]
    lock = {"schema_version": 3, "version_name": "card", "engine": {"kind": "embedded"}, "models": pins}
    (folder / name).write_text(json.dumps(lock))
    return str(folder / name)


def test_from_nothing_to_the_picture_and_again_without_a_change(box: RunpodBox, tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path)
    done = run_verb(box, tmp_path, "up", workflow, "--lock", DEMO, *FLAGS)
    assert "card is up" in done.stdout
    assert [data[:4] for data in pictures(tmp_path)] == [b"\x89PNG"]
    assert box.made == [("endpoints", "comfypin-card-api -fb")]
    writes = len(box.writes)
    again = run_verb(box, tmp_path, "up", workflow, "--lock", DEMO, *FLAGS)
    assert "card is as it should be" in again.stdout
    assert len(box.writes) == writes


def test_the_pod_at_the_volume_brings_the_models_with_a_secret_that_nobody_sees(box: RunpodBox, tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path)
    gated = HubRepo(name="org/tiny", path="vae/tiny.safetensors", data=safetensors(b"weights" * 1000), gated=True)
    lock = write_lock(tmp_path, gated)
    with hub(gated) as server:
        words = ("--lock", lock, "--secret", "HF_TOKEN", "--env", f"HF_ENDPOINT={server.url}")
        done = run_verb(box, tmp_path, "up", workflow, *words, *FLAGS, HF_TOKEN="hf_good")
    (volume,) = box.state["networkVolumes"].values()
    folder = box.volume_folder(volume["id"])
    assert (folder / "models" / gated.path).read_bytes() == gated.data
    assert len(list((folder / "comfypin" / "locks").iterdir())) == 1
    assert box.state["pods"] == {}
    assert [kind for kind, _ in box.made] == ["secrets", "networkVolumes", "pods", "endpoints"]
    assert "hf_good" not in done.stdout + done.stderr
    assert "hf_good" not in "".join(path.read_text() for path in (tmp_path / ".comfypin").rglob("*.json"))
    assert pictures(tmp_path)


def test_an_env_that_a_pod_built_is_unpacked_by_the_worker(box: RunpodBox, tmp_path: Path) -> None:
    release = small_release(tmp_path / "small")
    workflow = write_workflow(tmp_path)
    done = run_verb(box, tmp_path, "up", workflow, "--lock", str(release.write_lock()), "--no-job", *FLAGS)
    (volume,) = box.state["networkVolumes"].values()
    assert [path.suffix for path in (box.volume_folder(volume["id"]) / "packs").iterdir()] == [".envpack"]
    assert "fill volume: env" in done.stderr
    (endpoint_id,) = box.workers
    # Its ComfyUI serves nothing, so the worker comes as far as its engine.
    box.wait_for_line(endpoint_id, "Unpacking", within_s=60)


@pytest.mark.timeout(900)  # three workers start, one after the other
def test_a_changed_release_changes_only_what_changed_and_can_be_taken_back(box: RunpodBox, tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path, 1)
    more = HubRepo(name="org/more", path="loras/more.safetensors", data=safetensors(b"more" * 500))
    with hub(WEIGHTS, more) as server:
        words = (*FLAGS, "--env", f"HF_ENDPOINT={server.url}")
        run_verb(box, tmp_path, "up", workflow, "--lock", write_lock(tmp_path, WEIGHTS), *words)
        (volume_id,) = box.state["networkVolumes"]
        box.made.clear()
        write_workflow(tmp_path, 0xFFFFFF)
        run_verb(box, tmp_path, "up", workflow, "--lock", write_lock(tmp_path, WEIGHTS, more), *words)
    assert [kind for kind, _ in box.made] == ["pods"]
    assert list(box.state["networkVolumes"]) == [volume_id]
    (endpoint,) = box.state["endpoints"].values()
    (release, _first) = box.releases[endpoint["id"]]
    assert [entry["field"] for entry in release["diff"]] == ["env"]
    assert len(pictures(tmp_path)) == 2
    second_env = dict(endpoint["env"])
    fetched = len(server.requests)

    back = run_verb(box, tmp_path, "rollback", "--yes")
    assert "job" in back.stderr
    assert box.state["endpoints"][endpoint["id"]]["env"] != second_env
    assert box.state["endpoints"][endpoint["id"]]["env"]["LOCK_PATH"] == first_lock_path(tmp_path)
    assert len(server.requests) == fetched
    history = json.loads(run_verb(box, tmp_path, "history", "--json").stdout)["releases"]
    assert [(row["number"], row["current"], row["note"]) for row in history] == [
        (1, False, ""),
        (2, False, ""),
        (3, True, "back to 1"),
    ]


def first_lock_path(folder: Path) -> str:
    state = json.loads((folder / ".comfypin" / "up" / "card" / "state.json").read_text())
    digest = state["releases"][0]["lock_digest"].removeprefix("sha256:")
    return f"/runpod-volume/comfypin/locks/{digest}.lock.json"


def test_down_removes_all_but_the_data_and_then_the_data(box: RunpodBox, tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path)
    with hub(WEIGHTS) as server:
        words = ("--lock", write_lock(tmp_path, WEIGHTS), "--env", f"HF_ENDPOINT={server.url}", "--secret", "HF_TOKEN")
        run_verb(box, tmp_path, "up", workflow, *words, "--no-job", *FLAGS, HF_TOKEN="hf_good")
    run_verb(box, tmp_path, "down", "--yes")
    assert {name: len(items) for name, items in box.state.items() if items} == {"networkVolumes": 1}
    assert box.secrets == {}
    run_verb(box, tmp_path, "down", "--volumes", "--yes")
    assert not any(box.state.values())


def test_a_plan_that_nobody_confirms_changes_nothing(box: RunpodBox, tmp_path: Path) -> None:
    done = run_verb(box, tmp_path, "up", write_workflow(tmp_path), "--lock", DEMO, "--image", IMAGE, code=64)
    assert "add --yes" in done.stderr
    assert box.writes == []


def test_what_only_the_user_knows_is_listed_at_once(box: RunpodBox, tmp_path: Path) -> None:
    graph = {
        "nodes": [
            {"type": "CheckpointLoaderSimple", "properties": {}, "widgets_values": ["secret-sauce.safetensors"]},
            {"type": "Odd", "properties": {"cnr_id": "odd-pack"}, "widgets_values": []},
        ]
    }
    (tmp_path / "w.json").write_text(json.dumps(graph))
    done = run_verb(box, tmp_path, "up", "w.json", *FLAGS, code=10, COMFYPIN_OFFLINE="1", GIT_ALLOW_PROTOCOL="none")
    assert "--comfyui URL@REF" in done.stderr
    assert "secret-sauce.safetensors" in done.stderr
    assert "odd-pack" in done.stderr
    assert box.log == []


def test_no_gpu_anywhere_lists_what_there_is(box: RunpodBox, tmp_path: Path) -> None:
    box.levels["US-KS-2"] = "NONE"
    words = ("--lock", DEMO, "--data-center", "US-KS-2", *FLAGS)
    done = run_verb(box, tmp_path, "up", write_workflow(tmp_path), *words, code=10)
    assert "in US-KS-2" in done.stderr
    assert "ADA_24 in EU-RO-1" in done.stderr


def test_logs_and_status_are_those_of_the_worker(box: RunpodBox, tmp_path: Path) -> None:
    run_verb(box, tmp_path, "up", write_workflow(tmp_path), "--lock", DEMO, *FLAGS)
    assert "worker ready" in run_verb(box, tmp_path, "logs").stdout
    (endpoint,) = json.loads(run_verb(box, tmp_path, "status", "card", "--json").stdout)["resources"]
    assert (endpoint["workers"]["idle"], endpoint["rollout"]["percentOnLatest"]) == (1, 100)


def transcript(page: str) -> list[tuple[str, str]]:
    """The commands of a page's transcript, and what the page says that each prints."""
    (block,) = re.findall(r"```console\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    steps = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, printed) for command, _, printed in (step.partition("\n") for step in steps)]


def without_chance(printed: str, box: RunpodBox) -> str:
    """What is printed without what differs from run to run: seconds, the address, how often progress was asked for."""
    printed = printed.replace(f"{box.url}/job/", "https://api.runpod.ai/v2/")
    printed = re.sub(r"(?m)^IN_\w+.*\n", "", printed)
    return re.sub(r"(?<=[a-z]) \d+\.\d\b(?! a)", " N", printed)


def test_the_page_shows_what_is_printed(box: RunpodBox, tmp_path: Path) -> None:
    assert transcript("up.md") == transcript("ru/up.md")
    for name in ("lockfiles", "workflows"):
        (tmp_path / name).symlink_to(ROOT / name)
    for command, printed in transcript("up.md"):
        words = shlex.split(command)[2:]
        # Both streams as a person sees them: what was done, then what came of it.
        done = run_verb(box, tmp_path, *words)
        assert without_chance(done.stderr + done.stdout, box) == without_chance(printed, box), command

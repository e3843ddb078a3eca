"""What overlaps with an engine's start: which files are read ahead, and whether API nodes are loaded."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfypin.lock.model import EngineSpec, Lock, ModelPin
from comfypin.settings.environment import Settings
from comfypin.wiring import ModelReadAhead, are_models_there, choose_engine, leave_out_api_nodes
from comfypin.workflow.document import Document, to_document

LOADER: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd/a.safetensors"}},
    "2": {"class_type": "Uses", "inputs": {"model": ["1", 0]}},
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory's `workflows` would belong to the release."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def a_home(folder: Path) -> Path:
    (folder / "comfy_api_nodes").mkdir(parents=True)
    (folder / "main.py").write_text("")
    (folder / "comfy_api_nodes" / "nodes_x.py").write_text('node_id="PaidPicture",')
    return folder


def a_lock(**spec: Any) -> Lock:
    pins = tuple(
        ModelPin(name=name, target_path=f"$MODELS_DIR/checkpoints/{name}", size_bytes=5)
        for name in ("sd/a.safetensors", "b.safetensors")
    )
    return Lock(version_name="test", models=pins, engine=EngineSpec(**spec))


def settings_of(tmp_path: Path, **variables: str) -> Settings:
    home = tmp_path / "home"
    if not home.exists():
        a_home(home)
    return Settings({"COMFY_HOME": str(home), "MODELS_DIR": str(tmp_path / "models"), **variables})


def write_models(tmp_path: Path) -> None:
    for name in ("sd/a.safetensors", "b.safetensors"):
        path = tmp_path / "models" / "checkpoints" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bytes")


def wait_until_read(read_ahead: ModelReadAhead, size_bytes: int) -> None:
    """Wait for the reader that runs to have read so much, of the disk or of memory."""
    deadline = time.monotonic() + 30
    while (progress := read_ahead.progress) is None or progress.read_bytes + progress.cached_bytes != size_bytes:
        assert time.monotonic() < deadline, f"{progress} after 30 s, not {size_bytes} bytes"
        time.sleep(0.01)


def job_of(*model_names: str) -> Document:
    """A workflow that loads these models, one after the other."""
    graph = {
        f"{number}": {"class_type": "Loads", "inputs": {"name": name, "after": [f"{number - 1}", 0]} if number else {}}
        for number, name in enumerate(("", *model_names))
    }
    return to_document(graph, source="in the job")


def test_the_models_of_the_warm_up_are_read_and_no_others(tmp_path: Path) -> None:
    write_models(tmp_path)
    read_ahead = ModelReadAhead(a_lock(warmup=LOADER), settings_of(tmp_path))
    read_ahead.read_warmup()
    wait_until_read(read_ahead, 5)


def test_the_models_of_a_job_are_read_though_no_warm_up_names_them(tmp_path: Path) -> None:
    write_models(tmp_path)
    read_ahead = ModelReadAhead(a_lock(), settings_of(tmp_path, COMFYPIN_WARMUP="off"))
    read_ahead.read_workflow(job_of("b.safetensors", "sd/a.safetensors"))
    wait_until_read(read_ahead, 10)


def test_models_that_were_read_are_not_read_again(tmp_path: Path) -> None:
    write_models(tmp_path)
    read_ahead = ModelReadAhead(a_lock(warmup=LOADER), settings_of(tmp_path))
    read_ahead.read_warmup()
    wait_until_read(read_ahead, 5)
    first_reader = read_ahead._reader  # what the next one would replace
    assert first_reader is not None
    assert first_reader.wait(30)
    read_ahead.read_workflow(job_of("sd/a.safetensors", "sd/a.safetensors"))
    assert read_ahead._reader is first_reader
    # Of these two only the second is new. All that was read is told: with both again it would be fifteen bytes.
    read_ahead.read_workflow(job_of("sd/a.safetensors", "b.safetensors"))
    second_reader = read_ahead._reader
    assert second_reader is not None
    assert second_reader is not first_reader
    assert second_reader.wait(30)
    wait_until_read(read_ahead, 10)


@pytest.mark.parametrize("variables", [{"COMFYPIN_READ_AHEAD_GB": "0"}, {"COMFYPIN_WARMUP": "off"}])
def test_reading_the_warm_up_ahead_can_be_switched_off(tmp_path: Path, variables: dict[str, str]) -> None:
    write_models(tmp_path)
    read_ahead = ModelReadAhead(a_lock(warmup=LOADER), settings_of(tmp_path, **variables))
    read_ahead.read_warmup()
    assert read_ahead.progress is None


def test_with_no_memory_for_it_no_job_is_read_ahead(tmp_path: Path) -> None:
    write_models(tmp_path)
    read_ahead = ModelReadAhead(a_lock(), settings_of(tmp_path, COMFYPIN_READ_AHEAD_GB="0"))
    read_ahead.read_workflow(job_of("b.safetensors"))
    assert read_ahead.progress is None


def test_without_a_warm_up_nothing_is_read(tmp_path: Path) -> None:
    write_models(tmp_path)
    read_ahead = ModelReadAhead(a_lock(), settings_of(tmp_path))
    read_ahead.read_warmup()
    assert read_ahead.progress is None


def test_what_is_no_workflow_is_left_to_the_job(tmp_path: Path) -> None:
    write_models(tmp_path)
    read_ahead = ModelReadAhead(a_lock(), settings_of(tmp_path))
    read_ahead.read_workflow(Document(format="api", content={"1": 3}, source="in the job"))
    assert read_ahead.progress is None


def test_models_of_another_size_are_not_there(tmp_path: Path) -> None:
    write_models(tmp_path)
    assert are_models_there(a_lock(), settings_of(tmp_path))
    (tmp_path / "models" / "checkpoints" / "b.safetensors").write_bytes(b"byte")
    assert not are_models_there(a_lock(), settings_of(tmp_path))


def added(tmp_path: Path, lock: Lock, *, automatic: bool = True, **variables: str) -> tuple[str, ...]:
    choice = choose_engine(lock.engine, settings_of(tmp_path, **variables))
    return leave_out_api_nodes(lock, choice, automatic=automatic).added_arguments


def test_api_nodes_go_if_no_workflow_of_the_release_has_one(tmp_path: Path) -> None:
    assert added(tmp_path, a_lock(warmup=LOADER)) == ("--disable-api-nodes",)


def test_api_nodes_stay_if_a_workflow_of_the_release_has_one(tmp_path: Path) -> None:
    paid = {"1": {"class_type": "PaidPicture", "inputs": {}}}
    assert added(tmp_path, a_lock(warmup=paid)) == ()
    (tmp_path / "cwd" / "workflows").mkdir()
    (tmp_path / "cwd" / "workflows" / "paid.json").write_text(json.dumps(paid))
    assert added(tmp_path, a_lock(warmup=LOADER)) == ()


def test_api_nodes_stay_if_nobody_knows_what_jobs_bring(tmp_path: Path) -> None:
    assert added(tmp_path, a_lock()) == ()


def test_a_server_keeps_them_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    assert added(tmp_path, a_lock(warmup=LOADER), automatic=False) == ()
    assert added(tmp_path, a_lock(), automatic=False, COMFYPIN_API_NODES="off") == ("--disable-api-nodes",)


def test_the_variable_has_the_last_word(tmp_path: Path) -> None:
    assert added(tmp_path, a_lock(warmup=LOADER), COMFYPIN_API_NODES="on") == ()


def test_the_lock_may_say_so_itself(tmp_path: Path) -> None:
    lock = a_lock(warmup=LOADER, args=("--disable-api-nodes",))
    assert added(tmp_path, replace(lock)) == ()

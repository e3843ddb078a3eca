"""A worker that is started again on a warm host hashes no model, realizes nothing, and asks the driver once."""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.lock.model import EngineSpec, ModelPin
from tests.support.releases import MAIN, SmallRelease, small_release
from tests.support.runpod_queue import RunpodQueue, worker

pytestmark = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts the bytes that Linux counts")

MODEL_BYTES = 400_000_000
# Our embedded engine serves in ComfyUI's place, with those of its arguments that all engines know.
SERVE = f"""
    import os
    known = ("--listen", "--port", "--input-directory", "--output-directory", "--temp-directory")
    words = [word for name in known for word in (name, sys.argv[sys.argv.index(name) + 1])]
    os.execv({sys.executable!r}, [{sys.executable!r}, "-m", "comfypin.engine.embedded", *words])
"""
CLI_ARGS = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--quick-test-for-ci", action="store_true")
parser.add_argument("--cpu", action="store_true")
args, _ = parser.parse_known_args()
"""
# In the worker's own process, which the engine's does not inherit.
AUDIT = """
import os, sys
log = os.open(os.environ["PROGRAMS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
def note(event, arguments):
    if event == "subprocess.Popen":
        os.write(log, (os.path.basename(str(arguments[1][0])) + "\\n").encode())
sys.addaudithook(note)
"""
DRIVER = "#!/bin/sh\necho '| NVIDIA-SMI 570.0  Driver Version: 570.0  CUDA Version: 12.8 |'\n"


@dataclass(frozen=True)
class Start:
    """What one start of a worker took: the bytes that it read, and the programs that it started."""

    read_bytes: int
    programs: list[str]


@pytest.fixture
def release(tmp_path: Path) -> SmallRelease:
    made = small_release(tmp_path)
    commit = made.comfyui.commit(
        {"main.py": MAIN.replace('    print("serving")\n', SERVE), "comfy/cli_args.py": CLI_ARGS}
    )
    model = tmp_path / "volume" / "models" / "checkpoints" / "base.safetensors"
    model.parent.mkdir(parents=True)
    write_model(model)
    pin = ModelPin(
        name=model.name,
        target_path=f"$MODELS_DIR/checkpoints/{model.name}",
        sha256=Digest.of_file(model),
        size_bytes=model.stat().st_size,
    )
    assert made.lock.comfyui is not None
    comfyui = type(made.lock.comfyui)(repo=made.comfyui.url, commit=commit)
    return made.changed(comfyui=comfyui, models=(pin,), engine=EngineSpec(kind="comfyui"))


def write_model(path: Path) -> None:
    """Write a safetensors file with a large hole, which reads as zeros."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [MODEL_BYTES], "data_offsets": [0, MODEL_BYTES]}}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + MODEL_BYTES)


def start_worker(release: SmallRelease, models: Path) -> Start:
    """Start a worker, wait until it is ready, and stop it."""
    root = release.root
    for name, text in (("hook/sitecustomize.py", AUDIT), ("bin/nvidia-smi", DRIVER)):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    programs = root / "programs"
    programs.write_text("")
    environ = {
        "COMFY_HOME": str(root / "home"),
        "MODELS_DIR": str(models),
        "COMFYPIN_CACHE_DIR": str(root / "cache"),
        "OUTPUT_MODE": "base64",
        "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(root / "hook"),
        "PROGRAMS_LOG": str(programs),
    }
    with (
        RunpodQueue().running() as queue,
        worker(queue, "--lock", str(release.write_lock()), environ=environ) as process,
    ):
        log: Path = process.log  # type: ignore[attr-defined]
        deadline = time.monotonic() + 300
        # Its first question for a job comes after all fitness checks.
        while not queue.takes:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        counters = dict(line.split(": ") for line in Path(f"/proc/{process.pid}/io").read_text().splitlines())
    return Start(read_bytes=int(counters["rchar"]), programs=programs.read_text().split())


def assert_nothing_was_done_twice(again: Start) -> None:
    assert again.read_bytes < MODEL_BYTES / 2
    assert again.programs.count("nvidia-smi") <= 1
    # The engine's Python, and no uv or git.
    assert [name for name in again.programs if name != "nvidia-smi"] == ["python"]


@pytest.mark.timeout(600)
def test_a_worker_that_is_started_again_does_nothing_twice(release: SmallRelease) -> None:
    models = release.root / "volume" / "models"
    first = start_worker(release, models)
    assert first.read_bytes > MODEL_BYTES
    assert {"uv", "git"} <= set(first.programs)
    assert_nothing_was_done_twice(start_worker(release, models))


@pytest.mark.timeout(600)
def test_models_on_a_read_only_volume_are_hashed_once_too(release: SmallRelease) -> None:
    from tests.support.slow_volume import can_mount, slow_volume

    if not can_mount():
        pytest.skip("mounts a read-only volume: root and /dev/fuse")
    with slow_volume(release.root / "volume", release.root / "mounted", mb_s=2000, latency_ms=0) as volume:
        assert start_worker(release, volume / "models").read_bytes > MODEL_BYTES
        assert_nothing_was_done_twice(start_worker(release, volume / "models"))
    assert not (release.root / "volume" / "models" / ".comfypin").exists()

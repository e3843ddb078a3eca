"""A running ComfyUI (COMFYUI_DIR) finds the models that jobs bring, without a restart."""

import io
import time
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.support.faulty_server import FaultyServer, faulty_server, ranged
from tests.support.real_comfyui import COMFYUI_DIR, a_lock
from tests.support.server import Server, serving
from tests.support.tiny_checkpoint import write_tiny_checkpoint, write_tiny_lora, write_tiny_vae

pytestmark = [
    pytest.mark.comfyui,
    pytest.mark.skipif(not COMFYUI_DIR, reason="starts a ComfyUI of its own: set COMFYUI_DIR"),
]

READY_S = 280


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    folder = tmp_path_factory.mktemp("hub")
    files = {}
    for name, write in (("tiny", write_tiny_checkpoint), ("style", write_tiny_lora)):
        write(folder / f"{name}.safetensors")
        files[f"/{name}.safetensors"] = (folder / f"{name}.safetensors").read_bytes()
    for number in (1, 2):
        write_tiny_vae(folder / f"vae{number}.safetensors", seed=number)
        files[f"/vae{number}.safetensors"] = (folder / f"vae{number}.safetensors").read_bytes()
    with faulty_server(lambda request: ranged(files[request.path], request)) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("serve")
    lock = a_lock(home / "real.lock.json", "--disable-all-custom-nodes")
    flags = ("--lock", str(lock), "--allow-private-inputs", "--allow-models", "127.0.0.1")
    # A models folder that does not exist when the engine starts, as on a new volume.
    environ = {"COMFY_HOME": COMFYUI_DIR, "MODELS_DIR": str(home / "models")}
    with serving(home, *flags, environ=environ, ready=False) as running:
        deadline = time.monotonic() + READY_S
        while running.ping() != 200:
            assert running.process is not None
            assert running.process.poll() is None, running.log.read_text()
            assert time.monotonic() < deadline, running.log.read_text()
            time.sleep(0.2)
        yield running


def decode(vae: str) -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "2": {"class_type": "VAELoader", "inputs": {"vae_name": vae}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["1", 0], "vae": ["2", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "decoded"}},
    }


def sample(strength: float) -> dict[str, Any]:
    """A picture of the tiny checkpoint with its LoRA."""
    text = {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["1", 1]}}
    lora = {"model": ["1", 0], "lora_name": "style.safetensors", "strength_model": strength}
    sampled = {"model": ["2", 0], "positive": ["3", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    sampler = {"seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
        "2": {"class_type": "LoraLoaderModelOnly", "inputs": lora},
        "3": text,
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "5": {"class_type": "KSampler", "inputs": {**sampled, **sampler}},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "styled"}},
    }


def pixels(server: Server, job_id: str) -> bytes:
    """What is in the picture: its file holds the graph too, which differs by itself."""
    with Image.open(io.BytesIO(server.get_bytes(f"/jobs/{job_id}/outputs/0"))) as picture:
        return picture.convert("RGB").tobytes()


def run(server: Server, **job_input: object) -> Any:
    return server.ended(server.post("/run", {"input": job_input})["id"], within_s=120)


def test_a_running_comfyui_finds_the_vae_of_a_job(server: Server, hub: FaultyServer) -> None:
    # The catalogue is known from here on, and has no such file.
    assert run(server, workflow=decode("vae1.safetensors"))["status"] == "FAILED"
    model = {"source": f"{hub.url}/vae1.safetensors", "folder": "vae"}
    answer = run(server, workflow=decode("vae1.safetensors"), models=[model])
    assert answer["status"] == "COMPLETED", answer
    (brought,) = answer["output"]["models"]
    assert (brought["folder"], brought["filename"], brought["fetched"]) == ("vae", "vae1.safetensors", True)
    # By digest alone, in a folder of its own, as Windows spells it.
    again = {"sha256": brought["sha256"], "folder": "vae/mine", "filename": "again.safetensors"}
    answer = run(server, workflow=decode("mine\\again.safetensors"), models=[again])
    assert answer["status"] == "COMPLETED", answer


def test_a_running_comfyui_finds_a_vae_that_the_operator_brought(server: Server, hub: FaultyServer) -> None:
    begun = server.ask("POST", "/models", {"source": f"{hub.url}/vae2.safetensors", "folder": "vae"})
    assert begun[0] == 202, begun
    deadline = time.monotonic() + 30
    while (download := server.get(f"/models/{begun[1]['id']}"))["status"] == "IN_PROGRESS":
        assert time.monotonic() < deadline, download
        time.sleep(0.02)
    assert download["status"] == "COMPLETED", download
    answer = run(server, workflow=decode("vae2.safetensors"))
    assert answer["status"] == "COMPLETED", answer


def test_the_lora_of_a_job_changes_its_picture(server: Server, hub: FaultyServer) -> None:
    checkpoint = {"source": f"{hub.url}/tiny.safetensors", "folder": "checkpoints"}
    lora = {"source": f"{hub.url}/style.safetensors", "folder": "loras"}
    answers = [run(server, workflow=sample(strength), models=[checkpoint, lora]) for strength in (0.0, 1.0)]
    for answer in answers:
        assert answer["status"] == "COMPLETED", answer
        assert {model["folder"] for model in answer["output"]["models"]} == {"checkpoints", "loras"}
    plain, styled = (pixels(server, str(answer["id"])) for answer in answers)
    assert len(plain) == len(styled) == 64 * 64 * 3
    assert plain != styled
    shown = server.get(f"/jobs/{answers[1]['id']}/manifest")
    assert [model["filename"] for model in shown["models"]] == ["tiny.safetensors", "style.safetensors"]

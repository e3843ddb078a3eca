"""`comfypin runpod up` of a workflow as ComfyUI's page saves it, with a model of a hub, on a real ComfyUI.

The lock is made from the workflow and from ComfyUI's own sources, but for its packages: the ComfyUI that COMFYUI_DIR
names is the one of the container, so that nothing is downloaded from PyPI.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import shared_path
from tests.support.model_hubs import HubRepo, hub
from tests.support.real_comfyui import COMFYUI_DIR, version
from tests.support.releases import Repo
from tests.support.runpod_box import IMAGE, RunpodBox, pictures, run_verb
from tests.support.tiny_checkpoint import write_tiny_vae

pytestmark = [
    pytest.mark.comfyui,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not COMFYUI_DIR, reason="starts a ComfyUI of its own: set COMFYUI_DIR"),
]
OPENAPI = shared_path("openapi") / "runpod-rest-v2.openapi.json"
SIZE = 64


def core(
    node_id: int, kind: str, values: list[Any], inputs: list[Any], outputs: list[Any], **more: Any
) -> dict[str, Any]:
    properties = {"cnr_id": "comfy-core", "ver": ".".join(map(str, version())), **more}
    return {
        "id": node_id,
        "type": kind,
        "mode": 0,
        "inputs": [{"name": name, "type": link_type, "link": link} for name, link_type, link in inputs],
        "outputs": [{"name": name, "type": name, "links": links} for name, links in outputs],
        "properties": properties,
        "widgets_values": values,
    }


def saved_workflow(model_url: str, *, prefix: str) -> dict[str, Any]:
    """What the page saves: the loader says where its model comes from."""
    model = {"name": "tiny.safetensors", "url": model_url, "directory": "vae"}
    nodes = [
        core(1, "EmptyLatentImage", [SIZE, SIZE, 1], [], [("LATENT", [1])]),
        core(2, "VAELoader", ["tiny.safetensors"], [], [("VAE", [2])], models=[model]),
        core(3, "VAEDecode", [], [("samples", "LATENT", 1), ("vae", "VAE", 2)], [("IMAGE", [3])]),
        core(4, "SaveImage", [prefix], [("images", "IMAGE", 3)], []),
    ]
    links = [[1, 1, 0, 3, 0, "LATENT"], [2, 2, 0, 3, 1, "VAE"], [3, 3, 0, 4, 0, "IMAGE"]]
    return {"nodes": nodes, "links": links, "version": 0.4}


def sources_without_packages(folder: Path) -> str:
    """A repository with ComfyUI's sources and no requirements; returns its URL."""
    home = Path(COMFYUI_DIR)
    sources = home / "ComfyUI" if (home / "ComfyUI").is_dir() else home
    for name in ("nodes.py", "main.py", "folder_paths.py", "comfy_extras"):
        copy = shutil.copytree if (sources / name).is_dir() else shutil.copy
        copy(sources / name, folder / name)
    repo = Repo(folder)
    repo.commit({"requirements.txt": ""})
    return repo.url


def test_a_saved_workflow_and_its_model_become_an_endpoint_and_a_picture(tmp_path: Path) -> None:
    write_tiny_vae(tmp_path / "tiny.safetensors")
    model = HubRepo(name="org/tiny", path="tiny.safetensors", data=(tmp_path / "tiny.safetensors").read_bytes())
    sources = tmp_path / "sources"
    sources.mkdir()
    with hub(model) as server, RunpodBox(OPENAPI, tmp_path / "box", {"COMFY_HOME": COMFYUI_DIR}) as box:
        address = f"{server.url}/{model.name}/resolve/main/{model.path}"
        workflow = tmp_path / "portrait.json"
        workflow.write_text(json.dumps(saved_workflow(address, prefix="first")))
        words = ("--comfyui", sources_without_packages(sources), "--env", f"HF_ENDPOINT={server.url}", "--image", IMAGE)
        done = run_verb(box, tmp_path, "up", "portrait.json", *words, "--yes", HF_ENDPOINT=server.url)
        (volume_id,) = box.state["networkVolumes"]
        assert (box.volume_folder(volume_id) / "models/vae/tiny.safetensors").read_bytes() == model.data
        assert [data[:4] for data in pictures(tmp_path)] == [b"\x89PNG"]
        assert "portrait is up" in done.stdout
        assert box.violations == []

        # Another prefix needs no other release: nothing is made but the picture.
        box.made.clear()
        writes = len([entry for entry in box.writes if not entry[1].startswith("/job")])
        workflow.write_text(json.dumps(saved_workflow(address, prefix="second")))
        run_verb(box, tmp_path, "up", "portrait.json", *words, "--yes", HF_ENDPOINT=server.url)
        assert box.made == []
        assert len([entry for entry in box.writes if not entry[1].startswith("/job")]) == writes
        assert sorted(path.name.partition("_")[0] for path in (tmp_path / "out").iterdir()) == ["first", "second"]

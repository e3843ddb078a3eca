"""What the pod that fills a volume packs: what the lock pins, though the pod itself has no GPU."""

from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.cli.runpod.fill import VolumeFill
from comfypin.env.realize import realize_env
from comfypin.lock.codec import lock_digest, render_lock
from comfypin.lock.model import Lock, PackagePin, PythonPins, RepoPin
from comfypin.runpod.up.fill_report import FillNews
from comfypin.settings.environment import Settings
from comfypin.wiring import make_realize_options
from tests.support.package_index import package_index
from tests.support.releases import PYTHON, Repo, comfyui_files, make_wheel

# As ComfyUI does it: the device is asked for unless --cpu is given, and a torch for CUDA fails without a driver.
DEVICE = "from comfy.cli_args import args\nimport torch\nif not args.cpu: torch.current_device()\n"
TORCH = "def current_device(): raise RuntimeError('Found no NVIDIA driver on your system.')\n"


def torch_wheel(folder: Path, build: str) -> PackagePin:
    """A stand-in for the torch of one build, which says which one it is."""
    modules = {"torch/__init__.py": TORCH, "torch/version.py": f"cuda = {build!r}\n"}
    return make_wheel(folder, "torch", f"2.9.0+{build}", modules)


def settings_of(machine: Path, volume: Path) -> Settings:
    """What a container with this volume has; each has its own disk."""
    return Settings(
        {
            "HOME": str(machine),
            "COMFY_HOME": str(machine / "comfy"),
            "MODELS_DIR": str(volume / "models"),
            "COMFYPIN_PACKS": str(volume / "packs"),
        }
    )


@pytest.mark.parametrize("named_by", ["address", "index"])
def test_a_pod_without_a_gpu_packs_the_torch_for_cuda_that_the_lock_pins(tmp_path: Path, named_by: str) -> None:
    wheels, volume = tmp_path / "wheels", tmp_path / "volume"
    torch_wheel(wheels, "cpu")
    torch = torch_wheel(wheels, "cu128")
    comfyui = Repo(tmp_path / "comfyui")
    commit = comfyui.commit(comfyui_files("torch\n") | {"nodes.py": DEVICE + comfyui_files()["nodes.py"]})
    said: list[FillNews] = []
    with package_index(wheels) as index:
        url = f"{index.url}/files/{Path(str(torch.url)).name}" if named_by == "address" else None
        pin = replace(torch, url=url, index=f"{index.url}/simple/", target="linux-x86_64-cu128")
        lock = Lock(
            version_name="card",
            comfyui=RepoPin(repo=comfyui.url, commit=commit),
            python=PythonPins(version=PYTHON, targets={"linux-x86_64-cu128": {}}, packages=(pin,)),
        )
        settings = settings_of(tmp_path / "pod", volume)
        VolumeFill(
            volume=volume,
            lock=lock,
            lock_bytes=render_lock(lock),
            digest=str(lock_digest(lock)),
            settings=settings,
            say=said.append,
        ).fill()
    assert said[-1].filled
    # The index is gone: a worker has the pack alone.
    env = realize_env(lock, make_realize_options(settings_of(tmp_path / "worker", volume)))
    assert env.action == "unpack"
    (version,) = env.folder.glob("venv/lib/python*/site-packages/torch/version.py")
    assert version.read_text() == "cuda = 'cu128'\n"

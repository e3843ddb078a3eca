"""A lock as a comfy-build.yaml of comfy-cli."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from comfypin.digest import Digest
from comfypin.lock.comfy_build import write_comfy_build
from comfypin.lock.export import export_lock
from comfypin.lock.model import EngineSpec, Lock, ModelPin, NodePin, PackagePin, PythonPins, RepoPin
from comfypin.locking.release_files.registry import read_release_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA256 = Digest("ab" * 32)
FILES = "https://files.example.org"

LOCK = Lock(
    version_name="rel",
    comfyui=RepoPin(repo="https://github.com/comfyanonymous/ComfyUI", ref="v0.3.64", commit=COMMIT),
    custom_nodes=(
        NodePin(name="one", repo="https://github.com/o/one.git", commit=COMMIT),
        NodePin(name="pack", directory="Pack", repo=None, ref="1.0.0", archive="https://x.org/p.zip", sha256=SHA256),
    ),
    python=PythonPins(
        version="3.12",
        targets={"linux-x86_64-cu128": {}},
        packages=(
            PackagePin(name="six", version="1.16.0", url=f"{FILES}/six-1.16.0-py2.py3-none-any.whl"),
            PackagePin(name="Idna", version="3.7", url=f"{FILES}/idna-3.7.tar.gz"),
            PackagePin(name="y", version="0", url=f"https://codeload.example.org/y/{COMMIT}.tar.gz"),
            PackagePin(name="torch", version="2.8.0+cu128", url="https://pytorch.example.org/torch-2.8.0+cu128.whl"),
        ),
    ),
    models=(
        ModelPin(
            name="a",
            target_path="$MODELS_DIR/vae/sub/a.safetensors",
            sha256=SHA256,
            sources=("s3://b/a", f"hf://org/repo@{COMMIT}/vae/a%20b.safetensors"),
        ),
    ),
)


def definition_of(lock: Lock) -> dict[str, object]:
    document = yaml.safe_load(write_comfy_build(lock, lock.python.packages).text)
    definition = document["definition"]
    assert isinstance(definition, dict)
    return definition


def test_a_lock_becomes_a_build() -> None:
    assert definition_of(LOCK) == {
        "schema": "distribution-definition/0",
        "baseComfyVersion": COMMIT,
        "models": [
            {
                "type": "vae/sub",
                "filename": "a.safetensors",
                "sourceUri": f"https://huggingface.co/org/repo/resolve/{COMMIT}/vae/a%20b.safetensors",
                "sha256": SHA256.hex,
            }
        ],
        "customNodes": [
            {"name": "Pack", "id": "pack", "registryVersion": "1.0.0"},
            {"name": "one", "repository": "https://github.com/o/one", "gitRef": COMMIT},
        ],
        "pipDependencies": (
            "Idna==3.7\nsix==1.16.0\ntorch @ https://pytorch.example.org/torch-2.8.0+cu128.whl\n"
            f"y @ https://codeload.example.org/y/{COMMIT}.tar.gz\n"
        ),
        "environment": {"os": "Linux", "arch": "x86_64", "pythonVersion": "3.12", "torch": "2.8.0+cu128"},
    }


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"custom_nodes": (NodePin(name="one", repo="https://x.org/one", commit=COMMIT),)}, "the node one"),
        (
            {"custom_nodes": (NodePin(name="one", repo="https://github.com/o/one", commit=COMMIT, patch="d"),)},
            "the changes of the node one",
        ),
        ({"models": (ModelPin(name="m", target_path="$MODELS_DIR/vae/m.pth", sources=("s3://b/m",)),)}, "vae/m.pth"),
        (
            {"models": (ModelPin(name="m", target_path="$MODELS_DIR/vae/m n.pth", sources=("https://x.org/m",)),)},
            "no such path",
        ),
        (
            {"models": (ModelPin(name="m", target_path="$COMFY_HOME/m.pth", sources=("https://x.org/m",)),)},
            "no such path",
        ),
        ({"system_packages": ("ffmpeg",)}, "ffmpeg"),
        ({"engine": EngineSpec(args=("--fast",))}, "--fast"),
        ({"comfyui": RepoPin(repo="https://github.com/me/ComfyUI", commit=COMMIT)}, "https://github.com/me/ComfyUI"),
    ],
)
def test_what_a_build_cannot_hold_is_said(changed: dict[str, object], said: str) -> None:
    lock = replace(LOCK, **changed)  # type: ignore[arg-type]
    assert any(said in line for line in write_comfy_build(lock, lock.python.packages).left_out)


def test_a_build_that_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "comfy-build.yaml"
    path.write_text(export_lock(replace(LOCK, python=PythonPins(version="3.12")), "comfy-build"))
    release = read_release_file(path)
    assert release.comfyui is not None
    assert (release.comfyui.ref, release.python) == (COMMIT, "3.12")
    assert [node.repo for node in release.nodes] == ["registry://pack", "https://github.com/o/one"]
    assert [model.target for model in release.models] == ["vae/sub/a.safetensors"]
    assert (release.unpinnable, release.notes) == ((), ())


@pytest.mark.skipif(
    not (os.environ.get("COMFY_CLI") or shutil.which("comfy")), reason="comfy-cli is not installed (COMFY_CLI=PATH)"
)
def test_comfy_clis_own_check_accepts_a_build(tmp_path: Path) -> None:
    (tmp_path / "comfy-build.yaml").write_text(export_lock(LOCK, "comfy-build"))
    command = [os.environ.get("COMFY_CLI") or "comfy", "--skip-prompt", "--no-enable-telemetry", "build", "validate"]
    environment = {**os.environ, "HOME": str(tmp_path), "DO_NOT_TRACK": "1"}
    done = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""`comfypin image build --dry-run`: what an image would hold and take, on a machine that cannot build it, too."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.lock.codec import render_lock
from comfypin.lock.model import EngineSpec, Lock, ModelPin, PythonPins

MODEL = ModelPin(
    name="big",
    target_path="$MODELS_DIR/vae/big.safetensors",
    sha256=Digest.of(b"big"),
    size_bytes=3 * 10**9,
    sources=("https://example.org/big.safetensors",),
)


def plan(folder: Path, *words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run a dry run in a folder, where no program that builds is on the PATH."""
    lock = Lock(
        version_name="card", models=(MODEL,), python=PythonPins(version="3.12"), engine=EngineSpec(kind="embedded")
    )
    (folder / "card.lock.json").write_bytes(render_lock(lock))
    (folder / "bin").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "comfypin.cli.main", "image", "build", "--release", "card.lock.json", *words],
        cwd=folder,
        env={**os.environ, "PATH": str(folder / "bin")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def test_without_a_builder_a_plan_is_made_and_says_so(tmp_path: Path) -> None:
    done = plan(tmp_path, "--tag", "card:1", "--dry-run", "--json", "--bake", "env+models")
    planned = json.loads(done.stdout)
    layers = {layer["layer"]: layer for layer in planned["layers"]}
    assert not any(layer["cached"] for layer in layers.values())
    assert planned["disk_bytes"] > MODEL.size_bytes
    assert "as if nothing was built before" in done.stderr
    assert "docker" in done.stderr


def test_a_plan_without_a_tag_asks_no_builder(tmp_path: Path) -> None:
    done = plan(tmp_path, "--dry-run")
    assert done.stdout.startswith("card on python:3.12-slim-bookworm")
    assert "docker" not in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--tag", "Card One"), "'Card One' is not an image name"),
        (("--tag", "card:1", "--env", "TOKEN"), "--env"),
        (("--tag", "card:1", "--workflows", "nowhere"), "--workflows nowhere is not a folder"),
        ((), "needs a --tag"),
    ],
)
def test_what_no_image_can_be_made_of_is_refused_before_anything_is_built(
    tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    assert says in plan(tmp_path, *words, code=64).stderr


def test_a_build_without_a_builder_names_what_to_install(tmp_path: Path) -> None:
    assert "apt-get install buildah" in plan(tmp_path, "--tag", "card:1", code=60).stderr

"""The build context, computed from locks."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.image.build_context import (
    ImageOptions,
    OwnFiles,
    choose_base_image,
    compute_context,
    list_system_packages,
)
from comfypin.image.errors import ReleaseUnfitForImage
from comfypin.image.own_files import write_context
from comfypin.lock.model import EngineSpec, Lock, ModelPin, NodePin, PackagePin, PythonPins, RepoPin
from tests.conftest import ROOT

DOCKER = ROOT / "docker"
COMMIT = "a" * 40


def own() -> OwnFiles:
    return OwnFiles(
        dockerfile=(DOCKER / "Dockerfile").read_text(),
        steps={path.name: path.read_bytes() for path in (DOCKER / "steps").iterdir()},
        requirements=b"aiohttp==1\n",
        installer=b"uv==1\n",
        version="1.0",
    )


def a_lock() -> Lock:
    return Lock(
        version_name="wan22",
        comfyui=RepoPin(repo="https://example.org/c", commit=COMMIT),
        custom_nodes=(NodePin(name="n", repo="https://example.org/n", commit=COMMIT),),
        python=PythonPins(version="3.12.4", packages=(PackagePin(name="torch", version="2"),)),
        models=tuple(
            ModelPin(name=name, target_path=f"$MODELS_DIR/vae/{name}", sha256=Digest.of(name.encode()), size_bytes=9)
            for name in ("one", "two")
        ),
        system_packages=("ffmpeg",),
    )


def test_a_model_changes_nothing_that_the_env_is_made_from() -> None:
    with_models = compute_context(a_lock(), own(), ImageOptions())
    without = compute_context(replace(a_lock(), models=()), own(), ImageOptions())
    assert with_models.files["env/lock.json"] == without.files["env/lock.json"]


def test_each_baked_model_is_one_step_with_a_lock_of_its_own() -> None:
    context = compute_context(a_lock(), own(), ImageOptions(bake="env+models"))
    dockerfile = context.files["Dockerfile"]
    assert re.findall(rb"COPY models/(\d+) ", dockerfile) == [b"1", b"2"]
    assert re.findall(rb"from=model-(\d+),", dockerfile) == [b"1", b"2"]
    names = [json.loads(context.files[f"models/{n}/lock.json"])["models"][0]["name"] for n in (1, 2)]
    assert names == ["one", "two"]


def test_without_baked_models_no_step_speaks_of_them() -> None:
    dockerfile = compute_context(a_lock(), own(), ImageOptions()).files["Dockerfile"]
    assert b"models/" not in dockerfile
    assert b"@MODEL@" not in dockerfile


def test_every_step_of_the_dockerfile_is_in_the_context() -> None:
    context = compute_context(a_lock(), own(), ImageOptions(bake="env+models"))
    named = set(re.findall(r"/media/([\w.-]+)", context.files["Dockerfile"].decode()))
    assert named <= {name.removeprefix("steps/") for name in context.files if name.startswith("steps/")}


def test_an_engine_that_needs_no_env_bakes_none() -> None:
    context = compute_context(replace(a_lock(), engine=EngineSpec(kind="embedded")), own(), ImageOptions())
    assert context.arguments["BAKE_ENV"] == "no"


def test_an_image_without_a_release_has_git_for_any() -> None:
    embedded = replace(a_lock(), engine=EngineSpec(kind="embedded"), system_packages=())
    assert list_system_packages(embedded, "nothing") == ("git",)
    assert list_system_packages(embedded, "env") == ()


def test_what_is_realized_at_the_start_needs_git() -> None:
    assert list_system_packages(a_lock(), "nothing") == ("ffmpeg", "git")
    assert list_system_packages(a_lock(), "env") == ("ffmpeg",)


def test_the_base_has_the_locks_python() -> None:
    assert choose_base_image(a_lock(), None) == "python:3.12-slim-bookworm"


def test_a_python_that_comfypin_does_not_run_on_is_refused() -> None:
    with pytest.raises(ReleaseUnfitForImage, match=r"3\.10"):
        choose_base_image(replace(a_lock(), python=PythonPins(version="3.10")), None)


def test_a_wheel_is_copied_and_a_version_is_named() -> None:
    wheel = Path("/x/comfypin-1-py3-none-any.whl")
    assert compute_context(a_lock(), replace(own(), wheel=wheel), ImageOptions()).copies == {
        f"comfypin/{wheel.name}": wheel
    }
    assert compute_context(a_lock(), own(), ImageOptions()).files["comfypin/requirement.txt"] == b"comfypin==1.0\n"


def test_a_context_written_again_holds_nothing_of_the_release_before(tmp_path: Path) -> None:
    before = compute_context(a_lock(), own(), ImageOptions(workflows={"old.json": b"{}"}))
    write_context(before, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    write_context(compute_context(a_lock(), own(), ImageOptions(workflows={"new.json": b"{}"})), tmp_path)
    assert [path.name for path in (tmp_path / "release/app/workflows").iterdir()] == ["new.json"]
    assert (tmp_path / "notes.txt").read_text() == "mine"

"""The image of the workers of `runpod up`: by the lock's Python and CUDA; its digest is asked of a registry."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfypin import __version__
from comfypin.cli.runpod.worker_image import CUDA_LINES, PYTHON_LINES, choose_line, resolve_worker_image
from comfypin.image.registry_client import ImageManifest, ImageRepository
from comfypin.lock.codec import parse_lock
from comfypin.lock.model import Lock
from comfypin.runpod.up.errors import WorkerImageUnknown
from comfypin.settings.environment import Settings
from tests.conftest import ROOT
from tests.support.containers import registry

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


def lock_for(python: str, torch: str | None = None) -> Lock:
    packages = [] if torch is None else [{"name": "torch", "version": torch, "wheels": []}]
    document = {"schema_version": 3, "version_name": "r", "python": {"version": python, "packages": packages}}
    return parse_lock(json.dumps(document).encode(), where="here").lock


@pytest.mark.parametrize(
    ("python", "torch", "line"),
    [
        ("3.12.7", "2.8.0+cu128", "py3.12-cu128"),
        ("3.11", "2.9.0+cu130", "py3.11-cu130"),
        ("3.13.1", "2.8.0+cu129", "py3.13-cu128"),
        # Older than any line: an image that asks the host for nothing, rather than for too much.
        ("3.12", "2.4.0+cu121", "py3.12"),
        ("3.12", "2.8.0+cpu", "py3.12"),
        ("3.12", None, "py3.12"),
    ],
)
def test_the_line_is_that_of_the_lock(python: str, torch: str | None, line: str) -> None:
    assert choose_line(lock_for(python, torch)) == line


def test_a_python_without_an_image_is_named_with_those_that_have_one() -> None:
    with pytest.raises(WorkerImageUnknown, match=r"Python 3\.10; .* 3\.11, .*--image"):
        choose_line(lock_for("3.10.12"))


def test_the_release_workflow_builds_every_line_and_no_other() -> None:
    workflow = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    pythons, cudas = (", ".join(f'"{line}"' for line in lines) for lines in (PYTHON_LINES, ("", *CUDA_LINES)))
    assert f"        python: [{pythons}]\n        cuda: [{cudas}]\n" in workflow


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    with registry(tmp_path / "registry") as address:
        yield f"{address}/you/comfypin-worker"


def put_image(reference: str, tag: str) -> str:
    """Put an image without layers under a tag, and return its digest."""
    images = ImageRepository(reference=reference)
    config = b"{}"
    digest = images.put_blob(config)
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest, "size": len(config)},
        "layers": [],
        # Else all of them would have one digest.
        "annotations": {"tag": tag},
    }
    manifest = ImageManifest(media_type=MANIFEST, data=json.dumps(document).encode())
    images.put_manifest(tag, manifest)
    return manifest.digest


@pytest.mark.needs("docker-registry")
def test_without_a_name_it_is_this_versions_image_by_digest(repository: str) -> None:
    digests = {line: put_image(repository, f"{__version__}-{line}") for line in ("py3.12", "py3.12-cu128")}
    for torch, line in ((None, "py3.12"), ("2.8.0+cu128", "py3.12-cu128")):
        image = resolve_worker_image(None, lock_for("3.12", torch), Settings({}), repository=repository)
        assert image == f"{repository}@{digests[line]}"


@pytest.mark.needs("docker-registry")
def test_a_tag_of_ones_own_becomes_its_digest(repository: str) -> None:
    digest = put_image(repository, "mine")
    assert resolve_worker_image(f"{repository}:mine", lock_for("3.12"), Settings({})) == f"{repository}@{digest}"
    latest = put_image(repository, "latest")
    assert resolve_worker_image(repository, lock_for("3.12"), Settings({})) == f"{repository}@{latest}"


@pytest.mark.needs("docker-registry")
def test_an_image_that_is_not_there_is_told_with_what_to_do(repository: str) -> None:
    put_image(repository, "mine")
    with pytest.raises(WorkerImageUnknown, match=r"no image .*:other; name the worker image with --image"):
        resolve_worker_image(f"{repository}:other", lock_for("3.12"), Settings({}))

"""The Dockerfile as a linter sees it, and what comfypin brings into every image."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from comfypin.image.own_files import UNUSED_PACKAGES, choose_requirements
from tests.conftest import ROOT


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, ROOT / "docker" / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


def test_steps_are_shell_that_parses() -> None:
    for step in (ROOT / "docker" / "steps").glob("*.sh"):
        subprocess.run(["sh", "-n", step], check=True, timeout=30)


def test_a_requirements_file_is_taken_apart_by_name() -> None:
    text = "a==1 \\\n    --hash=sha256:1\nsentry-sdk==2 \\\n    --hash=sha256:2\n"
    assert choose_requirements(text, lambda name: name not in UNUSED_PACKAGES) == b"a==1 \\\n    --hash=sha256:1\n"


@pytest.mark.parametrize("package", ["boto3", "botocore", "s3transfer", "google-cloud-storage", "azure-storage-blob"])
def test_what_the_stores_clients_need_is_in_the_image(package: str) -> None:
    needed = {Requirement(text).name for text in importlib.metadata.requires(package) or () if "extra ==" not in text}
    assert not UNUSED_PACKAGES & {package, *needed}

"""The Dockerfile as a linter sees it, and what comfypin brings into every image."""

import subprocess
import sys
from pathlib import Path

from comfypin.image.parts import UNUSED, chosen
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
    text = "a==1 \\\n    --hash=sha256:1\nboto3==2 \\\n    --hash=sha256:2\n"
    assert chosen(text, lambda name: name not in UNUSED) == b"a==1 \\\n    --hash=sha256:1\n"

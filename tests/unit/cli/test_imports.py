"""Starting is cheap: no SDK and nothing heavy is imported before it is needed."""

import subprocess
import sys

import pytest

HEAVY = {
    "aiohttp",
    "numpy",
    "PIL",
    "pydantic",
    "rich",
    "google.auth",
    "google.cloud.storage",
    "azure.core",
    "azure.storage.blob",
    "requests",
    "runpod",
    "fastapi",
    "uvicorn",
}


def imported_by(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules, file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "program",
    [
        "import comfypin",
        "from comfypin.cli.main import main; main(['--help'])",
        "from comfypin.cli.main import main; main(['run', '--help'])",
    ],
)
def test_nothing_heavy_is_imported(program: str) -> None:
    assert imported_by(program) & HEAVY == set()

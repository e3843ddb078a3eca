"""Starting is cheap: no SDK and nothing heavy is imported before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

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
    "prometheus_client",
    "inotify_simple",
}
RUN = ("run", "--lock", "demo", "--workflow", "workflows/demo.json", "--output", "file")


def imported_by(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules, file=sys.stderr)"],
        cwd=ROOT,
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


@pytest.mark.parametrize("engine", [(), ("--engine-url", "http://127.0.0.1:1")], ids=["embedded", "remote"])
def test_an_engine_that_needs_no_env_loads_nothing_of_it(engine: tuple[str, ...], tmp_path: Path) -> None:
    command = [*RUN, "--out-dir", str(tmp_path), *engine]
    modules = imported_by(f"from comfypin.cli.main import main; main({command})")
    assert "comfypin.wiring.envs" in modules
    assert {name for name in modules if name.startswith("comfypin.env")} == set()

"""Comfy's own client of API v2 for Node (`@comfyorg/sdk`) against `comfypin serve` on the embedded engine."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import REQUIRE_ALL, ROOT
from tests.support.server import TOKEN, serving

SDK = "@comfyorg/sdk@0.1.9"


def install_sdk(folder: Path) -> None:
    """Install the client there; skip the test if there is no registry to install it from."""
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), SDK]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if ran.returncode != 0:
        reason = f"needs {SDK} from a registry of npm packages"
        pytest.fail(f"{reason}: {ran.stderr[-500:]}") if REQUIRE_ALL else pytest.skip(reason)


@pytest.mark.network
@pytest.mark.needs("npm")
def test_the_client_for_node_uploads_runs_follows_sees_previews_and_downloads(tmp_path: Path) -> None:
    install_sdk(tmp_path)
    shutil.copy(ROOT / "tests" / "data" / "comfy_sdk_client.mjs", tmp_path)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "photo.png")
    home = tmp_path / "home"
    home.mkdir()
    with serving(home) as server:
        environ = {**os.environ, "COMFY_BASE_URL": server.url, "COMFY_API_KEY": TOKEN}
        command = ["node", "comfy_sdk_client.mjs", "photo.png"]
        ran = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False
        )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert {"outputReady", "statusChange"} <= set(told.pop("kinds"))
    assert told == {
        "status": "succeeded",
        "signature": "PNG",
        "reused": "idempotency_key_reuse",
        "invalid": "invalid_workflow",
        "preview": "ffd8ff",  # a JPEG
    }

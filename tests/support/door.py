"""Runs a door of the project as its users do: another process, an environment of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEMO_LOCK = ROOT / "lockfiles" / "comfy-demo.lock.json"
DEMO_WORKFLOW = ROOT / "workflows" / "demo.json"
_OURS = ("COMFY_", "GCS_", "S3_", "AWS_", "GOOGLE_", "OUTPUT_MODE", "LOCK_PATH", "MODELS_DIR")


def clean_environ(**added: str) -> dict[str, str]:
    """This process's environment without what steers comfypin, then what is added."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)} | added


def door_command(*words: object) -> list[str]:
    """The command line of `python -m rp_handler.main` with these words."""
    return [sys.executable, "-m", "rp_handler.main", *map(str, words)]


def run_door(
    *words: object, stdin: bytes = b"", timeout_s: float = 90, cwd: Path = ROOT, **environ: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the door to its end. `environ` are variables for it."""
    return subprocess.run(
        door_command(*words),
        input=stdin,
        capture_output=True,
        timeout=timeout_s,
        cwd=cwd,
        env=clean_environ(**environ),
        check=False,
    )

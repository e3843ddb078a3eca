"""What a worker of the demo release makes of a job, for the tests' Runpod: `comfypin run` on the embedded engine."""

import base64
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.conftest import ROOT


def run_on_the_demo_release(job: dict[str, Any]) -> dict[str, Any]:
    """The job's state as the endpoint tells it: COMPLETED with real pictures, or FAILED with the engine's words."""
    with tempfile.TemporaryDirectory() as folder:
        workflow = Path(folder, "w.json")
        workflow.write_text(json.dumps(job["workflow"]))
        lock = str(ROOT / "lockfiles" / "comfy-demo.lock.json")
        command = [sys.executable, "-m", "comfypin.cli.main", "run", "--lock", lock, "--workflow", str(workflow)]
        for item in job.get("inputs", []):
            Path(folder, item["name"]).write_bytes(base64.b64decode(item["data"]))
            command += ["--input", f"{item['node']}={Path(folder, item['name'])}"]
        for name, value in job.get("set", {}).items():
            command += ["--set", f"{name}={json.dumps(value)}"]
        out = Path(folder, "out")
        command += ["--output", "file", "--out-dir", str(out), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            return {"status": "FAILED", "error": done.stderr.strip()}
        images = [
            {"filename": path.name, "type": "base64", "data": base64.b64encode(path.read_bytes()).decode()}
            for path in sorted(out.rglob("*.png"))
        ]
        return {"status": "COMPLETED", "output": {"images": images}}

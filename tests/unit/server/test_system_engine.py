"""What /system tells of an engine that is somebody else's to start."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from comfypin.models.target_paths import TargetRoots
from comfypin.server.system_report import SystemFacts, SystemReport


async def test_an_engine_that_went_away_is_told(tmp_path: Path) -> None:
    versions = iter(["0.33.0", None, "0.34.0"])

    async def read_version() -> str | None:
        return next(versions)

    service = SimpleNamespace(read_engine_version=read_version)
    queue = SimpleNamespace(runs_here=True)
    site = SimpleNamespace(is_ready=True, engine_restarts=0, queue=queue, require_service=lambda: service)
    facts = SystemFacts(
        lock=None,
        engine_kind="remote",
        model_roots=TargetRoots(models_dir=tmp_path, comfy_home=tmp_path),
        folders={},
        engine_address="http://127.0.0.1:8188",
    )
    report = SystemReport(facts, cast("Any", site), cast("Any", None), clock=lambda: 0.0)
    told = [await report.describe_engine() for _ in range(3)]
    assert [(engine["comfyui"], engine["answers"]) for engine in told] == [
        ("0.33.0", None),
        ("0.33.0", False),
        ("0.34.0", True),
    ]

"""The newest public templates, from the registry: each one is converted and judged, or refused with its reasons."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfypin.workflow.document import read_document
from comfypin.workflow.errors import WorkflowError
from comfypin.workflow.load import load_workflow
from comfypin.workflow.preflight import run_preflight

PACKAGE = "comfyui-workflow-templates-json"


def templates(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The templates of the newest package; its index files are lists, not workflows."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    subprocess.run(command, check=True, timeout=600)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".json") and not Path(name).name.startswith("index."):
                    yield name, archive.read(name)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("recorded", ["convert", "comfyui-0.33"])
def test_every_template_is_converted_or_refused_with_reasons(recorded: str, captures: Path, tmp_path: Path) -> None:
    catalogue = json.loads((captures / recorded / "object_info.json").read_text())
    converted = 0
    unexplained: list[str] = []
    for name, data in templates(tmp_path):
        try:
            workflow = load_workflow(read_document(data, source=name), catalogue)
        except WorkflowError as error:
            unexplained += [] if error.facts.get("findings") else [f"{name}: {error}"]
            continue
        report = run_preflight(workflow.graph, catalogue, packs=workflow.node_packs)
        assert all(finding.node_id or finding.code == "no_outputs" for finding in report.findings)
        converted += 1
    assert unexplained == []
    assert converted > 100

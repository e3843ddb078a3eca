"""`lock upgrade --check`: what could move, and what a move would change; nothing is written."""

import json
from pathlib import Path

import pytest

from comfypin.cli.main import main
from comfypin.lock.codec import render_lock
from comfypin.lock.model import EngineSpec, Lock, NodePin, PackagePin, PythonPins, RepoPin
from tests.support.repositories import commit

WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock of a ComfyUI that has a newer release, a node whose branch moved on, and one whose repository is gone."""
    first = commit(tmp_path / "ComfyUI", {"main.py": ""}, tag="v0.3.9")
    commit(tmp_path / "ComfyUI", {"main.py": "1"}, tag="v0.3.10")
    node = commit(tmp_path / "pack", {"__init__.py": ""})
    commit(tmp_path / "pack", {"__init__.py": "1"})
    lock = Lock(
        version_name="rel",
        comfyui=RepoPin(repo=(tmp_path / "ComfyUI").as_uri(), ref="v0.3.9", commit=first),
        custom_nodes=(
            NodePin(name="pack", repo=(tmp_path / "pack").as_uri(), ref="main", commit=node),
            NodePin(name="gone", repo=(tmp_path / "gone").as_uri(), ref="main", commit=node),
        ),
        python=PythonPins(version="3.12", packages=(PackagePin(name="idna", version="3.6"),)),
        engine=EngineSpec(kind="embedded"),
    )
    (tmp_path / "rel.json").write_bytes(render_lock(lock))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMFYPIN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def checked(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main(["lock", "upgrade", "--check", "--lock", "rel.json", *flags]) == 0
    return capsys.readouterr().out


def test_what_could_move_is_listed_with_what_to_type(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = checked(capsys)
    assert "ComfyUI: v0.3.9; could be v0.3.10 (--comfyui v0.3.10)" in said
    assert "(--node pack)" in said
    assert "the node gone: cannot be asked" in said
    assert not (project / "lockfiles").exists()


def test_vulnerable_packages_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.7"}]}]
    affected = [{"package": {"name": "idna", "ecosystem": "PyPI"}, "ranges": ranges}]
    (project / "osv.json").write_text(json.dumps({"id": "PYSEC-1", "summary": "Slow", "affected": affected}))
    assert "vulnerable idna 3.6: PYSEC-1, mended in 3.7. Slow" in checked(capsys, "--advisories", "osv.json")
    result = json.loads(checked(capsys, "--advisories", "osv.json", "--json"))
    assert [item["fixed"] for item in result["vulnerabilities"]] == [["3.7"]]


def test_classes_that_workflows_use_are_compared(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = {"input": {"required": {name: ["INT", {}] for name in ("width", "height", "batch_size", "color")}}}
    save = {"input": {"required": {"images": ["IMAGE", {}], "filename_prefix": ["STRING", {}]}}, "output_node": True}
    (project / "before.json").write_text(json.dumps({"EmptyImage": empty, "SaveImage": save}))
    (project / "after.json").write_text(json.dumps({"SaveImage": save}))
    (project / "workflows").mkdir()
    (project / "workflows" / "w.json").write_text(json.dumps(WORKFLOW))
    said = checked(capsys, "--object-info", "before.json", "after.json")
    assert "breaks     workflows/w.json: node 1 (EmptyImage): the class is gone" in said


@pytest.mark.network
def test_what_a_move_would_change_is_listed_with_sizes(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lock", "create", "one", "--comfyui", "./ComfyUI@v0.3.9", "--package", "idna==3.6"]) == 0
    capsys.readouterr()
    command = ["lock", "upgrade", "--check", "--lock", "one", "--package", "idna==3.7", "--comfyui", "v0.3.10"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "version 3.6 -> 3.7" in said
    assert "download   1 file, 66.8 kB, new; 1 file, 61.6 kB, no longer used" in said
    assert [path.name for path in (project / "lockfiles").iterdir()] == ["comfy-one.lock.json"]

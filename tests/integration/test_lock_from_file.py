"""Locks of other tools' files, made on the command line with packages of a real index."""

import json
from pathlib import Path

import pytest

from comfypin.cli.main import main
from tests.support.repositories import commit

pytestmark = pytest.mark.network


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the repositories of a ComfyUI and a node, made the current one."""
    files = {"main.py": "", "custom_nodes/websocket_image_save.py": ""}
    ref = commit(tmp_path / "ComfyUI", files)
    node = commit(tmp_path / "pack", {"__init__.py": "", "requirements.txt": "iniconfig>=2\n"})
    snapshot = {
        "comfyui": ref,
        "git_custom_nodes": {(tmp_path / "pack").as_uri(): {"hash": node, "disabled": False}},
        "file_custom_nodes": [{"filename": "websocket_image_save.py", "disabled": False}],
        "pips": {"idna==3.7": ""},
    }
    (tmp_path / "snapshot.json").write_text(json.dumps(snapshot))
    (tmp_path / "nodes.json").write_text(json.dumps([{"repo": (tmp_path / "pack").as_uri(), "commit": node[:8]}]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMFYPIN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


CAPTURE = ["lock", "capture", "rel", "--from", "snapshot.json", "--comfyui", "./ComfyUI"]


def packages_of(project: Path) -> dict[str, str]:
    lock = json.loads((project / "lockfiles" / "comfy-rel.lock.json").read_text())
    return {pin["name"]: pin["version"] for pin in lock["python"]["packages"]}


def test_what_a_snapshot_lacks_is_named_with_what_would_add_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(CAPTURE) == 10
    said = capsys.readouterr().err
    assert "the node pack wants iniconfig>=2: it is not installed" in said
    assert "would add iniconfig==2" in said
    assert not (project / "lockfiles").exists()


def test_a_snapshot_that_lacks_something_is_pinned_as_it_was_if_that_is_allowed(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*CAPTURE, "--allow-missing"]) == 0
    assert packages_of(project) == {"idna": "3.7"}
    said = capsys.readouterr().err
    assert "not satisfied: the node pack wants iniconfig>=2: it is not installed" in said
    assert "websocket_image_save.py is ComfyUI's own and no node" in said


def test_create_from_a_snapshot_adds_what_it_lacks(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["lock", "create", "rel", "--from", "snapshot.json", "--comfyui", "./ComfyUI", "--package", "idna"]
    assert main(command) == 0
    packages = packages_of(project)
    # What was installed is preferred to what is newest.
    assert packages["idna"] == "3.7"
    assert packages["iniconfig"].startswith("2.")


def test_a_leave_out_that_matches_nothing_is_an_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CAPTURE, "--leave-out", "idn"]) == 10
    assert "--leave-out idn matches nothing" in capsys.readouterr().err


def test_nodes_of_cogs_list_are_locked_beside_those_of_the_flags(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(project / "other", {"__init__.py": ""})
    command = ["lock", "create", "rel", "--from", "nodes.json", "--comfyui", "./ComfyUI", "--node", "./other"]
    assert main(command) == 0
    lock = json.loads((project / "lockfiles" / "comfy-rel.lock.json").read_text())
    assert [node["name"] for node in lock["custom_nodes"]] == ["other", "pack"]
    assert main(["lock", "create", "rel", "--from", "nodes.json"]) == 10
    assert "add --comfyui URL@REF" in capsys.readouterr().err


def test_a_build_of_torch_that_was_installed_does_not_stop_a_resolve(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = json.loads((project / "snapshot.json").read_text())
    (project / "snapshot.json").write_text(
        json.dumps({**snapshot, "pips": {"torch==2.4.0+cu121": "", "idna==3.7": ""}})
    )
    assert main(["lock", "create", "rel", "--from", "snapshot.json", "--comfyui", "./ComfyUI"]) == 0
    said = capsys.readouterr().err
    assert "--torch cu121 takes that build" in said
    assert "installed there, and asked for by nobody, so not in the lock: torch==2.4.0+cu121, idna==3.7" in said

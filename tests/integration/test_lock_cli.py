"""Locks made on the command line, with packages of a real index."""

import json
from pathlib import Path

import pytest

from comfypin.cli.main import main
from comfypin.image.own_files import collect_own_files
from tests.support.repositories import commit

pytestmark = pytest.mark.network


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the repository of a ComfyUI, made the current one."""
    commit(tmp_path / "ComfyUI", {"main.py": "", "requirements.txt": "iniconfig\n"}, tag="v1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMFYPIN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_create_writes_a_release_that_is_found_by_name(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "m.safetensors").write_bytes(b"model")
    command = ["lock", "create", "rel", "--comfyui", "./ComfyUI@v1", "--model", "vae/=./m.safetensors"]
    assert main([*command, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["path"], made["state"]) == ("lockfiles/comfy-rel.lock.json", "written")
    assert made["lock"]["models"][0]["size_bytes"] == 5
    assert main(["lock", "check", "--lock", "rel"]) == 0
    assert main(command) == 0
    assert "unchanged" in capsys.readouterr().out
    assert main(["lock", "create", "rel", "--comfyui", "./ComfyUI@v1"]) == 10
    assert "A release does not change" in capsys.readouterr().err


def test_the_door_has_its_own_dependencies_by_hash(tmp_path: Path) -> None:
    own = collect_own_files(tmp_path)
    assert own.wheel is not None
    assert own.installer.startswith(b"uv==")
    assert own.requirements.count(b"==") < own.requirements.count(b"--hash=sha256:")


def test_requirements_as_people_write_them_become_a_lock(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "idna==3.7 --extra-index-url https://example.org/simple\ngit+https://github.com/o/cstr\n"
    commit(project / "node", {"__init__.py": "", "requirements.txt": line}, tag="v1")
    words = ["lock", "create", "rel", "--comfyui", "./ComfyUI@v1", "--node", "./node@v1"]
    assert main([*words, "--drop-requirement", "cstr", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert {pin["name"]: pin["version"] for pin in made["lock"]["python"]["packages"]}["idna"] == "3.7"
    assert any("--extra-index-url https://example.org/simple" in note for note in made["notes"])
    assert main([*words, "--drop-requirement", "csrt", "--force"]) == 10
    assert "Did you mean cstr?" in capsys.readouterr().err

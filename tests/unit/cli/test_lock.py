"""`comfypin lock show|check|schema` as a user calls them."""

import json
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfypin.cli.main import main
from tests.support.repositories import commit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def branch_lock(tmp_path: Path) -> str:
    path = tmp_path / "comfy-a.lock.json"
    document = {
        "schema_version": 3,
        "version_name": "a",
        "comfyui": {"repo": "https://x.org/c", "commit": "main"},
        "python": {"version": "3.12", "packages": [{"name": "p", "version": "1", "sha256": ["ab" * 32]}]},
        "oops": 1,
    }
    path.write_text(json.dumps(document))
    return str(path)


def test_show_prints_the_pins(branch_lock: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock", "show", "--lock", branch_lock]) == 0
    captured = capsys.readouterr()
    assert "https://x.org/c @ main" in captured.out
    assert "$.oops" in captured.err


def test_show_json_holds_lock_digests_and_warnings(branch_lock: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock", "show", "--lock", branch_lock, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["lock"]["schema_version"] == 3
    assert result["lock_digest"].startswith("sha256:")
    assert [warning["path"] for warning in result["warnings"]] == ["$.oops"]


def test_check_names_what_is_not_pinned_and_exits_10(branch_lock: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock", "check", "--lock", branch_lock]) == 10
    assert '$.comfyui.commit: found "main"' in capsys.readouterr().out


def test_check_json_is_for_machines(branch_lock: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock", "check", "--lock", branch_lock, "--json"]) == 10
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is False
    assert {finding["rule"] for finding in result["findings"]} == {"commit-not-pinned", "unknown-key"}


def test_a_bad_lock_ends_with_exit_code_10_and_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"schema_version": 3}')
    assert main(["lock", "show", "--lock", str(path)]) == 10
    assert capsys.readouterr().err.splitlines()[1:] == ["  $.version_name: found nothing; this key is required"]


def test_the_environment_names_a_lock(
    branch_lock: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCK_PATH", branch_lock)
    assert main(["lock", "show"]) == 0
    assert "release   a" in capsys.readouterr().out


def test_a_verb_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock"]) == 64


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the repository of a ComfyUI, made the current one."""
    commit(tmp_path / "ComfyUI", {"main.py": "", "requirements.txt": "iniconfig\n"}, tag="v1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMFYPIN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["create", "../x", "--comfyui", "./ComfyUI"], 64),
        (["create", "x", "--comfyui", "org/repo"], 64),
        (["create", "x", "--comfyui", "./ComfyUI", "--torch", "cuda12"], 64),
        (["create", "x", "--comfyui", "./ComfyUI", "--python", "2.7"], 64),
        (["create", "x", "--comfyui", "./ComfyUI", "--platform", "windows"], 64),
        (["create", "x", "--comfyui", "./ComfyUI", "--package", "a b"], 64),
        (["create", "x", "--comfyui", "./ComfyUI", "--requirements", "absent.txt"], 3),
        (["create", "x", "--comfyui", "./ComfyUI@v9"], 40),
        (["capture", "x", "--from", "absent"], 10),
        (["diff", "absent", "absent"], 10),
        (["from-workflow", "absent.json"], 11),
        (["from-workflow", "w.json", "--name", "x"], 64),
    ],
)
def test_a_mistake_ends_in_one_sentence_and_its_code(
    arguments: list[str], code: int, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lock", *arguments]) == code
    assert "Traceback" not in capsys.readouterr().err
    assert not (project / "lockfiles").exists()


def test_a_lock_is_asked_of_the_workflow_that_a_picture_holds(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = {
        "id": 1,
        "type": "Loader",
        "widgets_values": ["a.safetensors"],
        "properties": {"cnr_id": "pack", "ver": "1"},
    }
    info = PngInfo()
    info.add_text("prompt", json.dumps({"1": {"class_type": "Loader", "inputs": {}}}))
    info.add_text("workflow", json.dumps({"nodes": [node], "links": [], "version": 0.4}))
    Image.new("RGB", (1, 1)).save(project / "cat.png", pnginfo=info)
    main(["lock", "from-workflow", str(project / "cat.png"), "--offline"])
    told = capsys.readouterr().out
    assert "a.safetensors" in told
    assert "pack" in told


def test_a_secret_does_not_get_into_a_lock(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {"models": [{"name": "m", "source": "https://x.org/m?token=hunter2", "target_path": "vae/m"}]}
    (project / "old.json").write_text(json.dumps(document))
    assert main(["lock", "migrate", "--lock", "old.json"]) == 10
    assert "hunter2" not in "".join(capsys.readouterr())


def test_a_lock_is_reproduced_in_two_places(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    workflow = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    (tmp_path / "w.json").write_text(json.dumps(workflow))
    (tmp_path / "l.json").write_text('{"schema_version": 3, "version_name": "e", "engine": {"kind": "embedded"}}')
    command = [
        "lock",
        "reproduce",
        "--lock",
        str(tmp_path / "l.json"),
        "--workflow",
        str(tmp_path / "w.json"),
        "--json",
    ]
    assert main(command) == 0
    result = json.loads(capfd.readouterr().out)
    assert (result["same"], list(result["outputs"])) == (True, ["node 2, output 1"])
    assert main([*command[:-2], str(tmp_path / "absent.json"), "--json"]) == 10
    assert "absent.json" in capfd.readouterr().err


def test_what_a_file_holds_that_no_lock_can_is_said_before_anything_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM runpod/worker-comfyui:5.8.5-base\nRUN make-my-own-nodes --all\n")
    assert main(["lock", "create", "mine", "--from", str(dockerfile)]) == 10
    told = capsys.readouterr().err
    assert "make-my-own-nodes" in told
    assert told.rstrip().endswith("add --comfyui v0.3.64.")

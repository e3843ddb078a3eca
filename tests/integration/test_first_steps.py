"""The first hour: what people type after the demo works, and says what to type next where it cannot."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from comfypin.cli.main import main
from comfypin.cli.own_comfyui import find_own_comfyui
from comfypin.settings.environment import Settings
from tests.integration.test_run_unpinned import engine_url
from tests.support.workflows import picture

__all__ = ["engine_url"]

STABLE_DIFFUSION = {
    "3": {"class_type": "KSampler", "inputs": {"model": ["4", 0], "seed": 1}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "ComfyUI"}},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("LOCK_PATH", "COMFY_VERSION_NAME", "OUTPUT_MODE", "GCS_BUCKET"):
        monkeypatch.delenv(name, raising=False)
    # Neither the machine's ComfyUI nor one that somebody runs here has a part in these tests.
    monkeypatch.setenv("COMFY_HOME", str(tmp_path / "nothing"))
    monkeypatch.setattr("comfypin.cli.own_comfyui.COMFYUI_PORT", 1)
    (tmp_path / "cat.json").write_text(json.dumps(picture(1)))
    (tmp_path / "sd.json").write_text(json.dumps(STABLE_DIFFUSION))
    return tmp_path


def test_a_running_comfyui_is_found_at_its_port(engine_url: str) -> None:
    found = find_own_comfyui(Settings({}), port=int(engine_url.rpartition(":")[2]))
    assert found is not None
    assert found.url == engine_url


def test_without_one_that_runs_the_one_of_comfy_home_is_taken(tmp_path: Path) -> None:
    (tmp_path / "home" / "ComfyUI").mkdir(parents=True)
    (tmp_path / "home" / "ComfyUI" / "main.py").touch()
    found = find_own_comfyui(Settings({"COMFY_HOME": str(tmp_path / "home")}), port=1)
    assert found is not None
    assert (found.home, found.url) == (tmp_path / "home", None)


def test_without_any_the_ways_to_name_one_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--workflow", "cat.json", "--output", "file"]) == 10
    told = capsys.readouterr().err
    assert all(flag in told for flag in ("--comfy-home DIR", "--engine-url URL", "--lock demo"))


def test_the_demos_engine_runs_a_workflow_from_any_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--lock", "demo", "--workflow", "cat.json", "--output", "file"]) == 0
    assert capsys.readouterr().out == "out/out_00001_.png\n"


def test_without_a_bucket_the_way_without_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--lock", "demo", "--workflow", "cat.json"]) == 3
    assert capsys.readouterr().err.rstrip().endswith("add --output file.")


def test_a_bucket_of_another_store_is_named_with_its_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BUCKET_ENDPOINT_URL", "http://127.0.0.1:9/mine")
    assert main(["run", "--lock", "demo", "--workflow", "cat.json"]) == 3
    assert "add --output s3" in capsys.readouterr().err


def test_a_workflow_with_models_is_told_once_that_the_demos_engine_has_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "--lock", "demo", "--workflow", "sd.json", "--output", "file", "--json"]) == 11
    captured = capsys.readouterr()
    assert captured.err.count("embedded engine") == 1 + captured.err.count("Starting the embedded engine")
    assert "node pin" not in captured.err
    assert "--comfy-home ~/ComfyUI starts one" in captured.err
    findings = json.loads(captured.out)["error"]["facts"]["findings"]
    assert [finding["code"] for finding in findings] == ["engine_without_models", *["class_unknown"] * 3]


def test_a_workflows_name_that_is_near_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--lock", "demo", "--workflow", "Cat.json", "--output", "file"]) == 11
    assert "did you mean cat.json?" in capsys.readouterr().err


def test_a_lock_given_as_the_workflow_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("lock.json").write_text('{"schema_version": 3, "version_name": "x"}')
    assert main(["run", "--lock", "demo", "--workflow", "lock.json", "--output", "file"]) == 11
    assert "it is a lock, which --lock takes" in capsys.readouterr().err


def test_init_of_what_is_no_comfyui_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "."]) == 64
    assert "neither main.py nor ComfyUI/main.py" in capsys.readouterr().err


def test_what_goes_into_an_issue_holds_no_value_of_a_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    monkeypatch.setenv("S3_BUCKET", "private-name")
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:1")
    main(["doctor", "--issue"])
    told = capsys.readouterr().out
    assert "AWS_SECRET_ACCESS_KEY" in told
    assert "s3cr3t" not in told
    assert "private-name" not in told


COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


def printed_on_a_terminal(**variables: str) -> bytes:
    """Return what a run of the workflow prints on a terminal's stderr."""
    terminal, its_end = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "comfypin.cli.main",
        "run",
        "--lock",
        "demo",
        "--workflow",
        "cat.json",
        "--output",
        "file",
    ]
    environment = {**os.environ, "TERM": "xterm-256color", **variables}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=its_end) as process:
        os.close(its_end)
        printed = b""
        try:
            while read := os.read(terminal, 65536):
                printed += read
        except OSError:
            pass  # Linux's way to say that nobody holds the other end any more
        finally:
            os.close(terminal)
    assert process.returncode == 0, printed
    return printed


@pytest.mark.parametrize(("variables", "are_there"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color_takes_the_colours_off(
    variables: dict[str, str], are_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    colours = [code for code in COLOUR.findall(printed_on_a_terminal(**variables)) if re.search(rb"[34][0-8]", code)]
    assert bool(colours) is are_there

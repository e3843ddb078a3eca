"""The documented door `python -m rp_handler.main`: its flags, its stdout, its exit codes."""

import base64
import io
import json
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.support.door import DEMO_LOCK, DEMO_WORKFLOW, ROOT, clean_environ, door_command, run_door

SMOKE = b"{}"


def run_smoke(*words: object, **environ: str) -> subprocess.CompletedProcess[bytes]:
    return run_door("--lock", DEMO_LOCK, "--workflow", "-", *words, stdin=SMOKE, **environ)


def test_base64_is_all_there_is_on_stdout() -> None:
    done = run_smoke("--output", "base64")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    with Image.open(io.BytesIO(base64.b64decode(line, validate=True))) as picture:
        assert picture.size == (64, 64)


def test_several_outputs_are_one_a_line(tmp_path: Path) -> None:
    image = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 3, "color": 255}}
    save = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}
    (tmp_path / "w.json").write_text(json.dumps({"1": image, "2": save}))
    done = run_door("--lock", DEMO_LOCK, "--workflow", tmp_path / "w.json", "--output", "base64")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_a_reader_that_leaves_early_is_no_failure() -> None:
    command = " ".join(door_command("--lock", DEMO_LOCK, "--workflow", DEMO_WORKFLOW, "--output", "base64"))
    pipeline = f"set -o pipefail; {command} | head -c 80"
    done = subprocess.run(
        ["bash", "-c", pipeline], capture_output=True, cwd=ROOT, env=clean_environ(), timeout=90, check=False
    )
    assert len(done.stdout) == 80
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"Broken pipe" not in done.stderr


def test_an_out_file_holds_the_decoded_bytes_and_stdout_nothing(tmp_path: Path) -> None:
    done = run_smoke("--output", "base64", "--out-file", tmp_path / "deep" / "smoke.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout == b""
    assert b"smoke.png" in done.stderr
    with Image.open(tmp_path / "deep" / "smoke.png") as picture:
        assert picture.size == (64, 64)


def test_file_outputs_are_written_by_name_and_their_paths_printed(tmp_path: Path) -> None:
    done = run_smoke("--output", "file", "--out-dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines() == [str(tmp_path / "out" / "smoke_00001_.png")]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["smoke_00001_.png"]


def test_outputs_that_cannot_be_delivered_stay_on_this_machine(tmp_path: Path) -> None:
    words = ("--lock", DEMO_LOCK, "--workflow", "-", "--output", "base64", "--job-id", "job-8")
    done = run_door(*words, stdin=SMOKE, cwd=tmp_path, INLINE_MAX_BYTES="10", PYTHONPATH=str(ROOT))
    assert done.returncode != 0
    assert b"the job's output is kept in out/undelivered/job-8" in done.stderr
    with Image.open(tmp_path / "out" / "undelivered" / "job-8" / "smoke_00001_.png") as picture:
        assert picture.size == (64, 64)


def test_json_is_one_result_on_stdout_and_events_on_stderr(tmp_path: Path) -> None:
    done = run_smoke("--output", "file", "--out-dir", tmp_path, "--json", "--job-id", "job-7")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (output,) = result["outputs"]
    assert result["job_id"] == "job-7"
    assert result["release"] == "demo"
    assert (output["node"], output["kind"], output["media_type"]) == ("2", "image", "image/png")
    assert (output["width"], output["height"]) == (64, 64)
    assert Path(output["uri"]).stat().st_size == output["size_bytes"]
    assert {"start", "prepare", "queue", "run", "collect", "deliver"} <= set(result["seconds"]["phases"])
    assert all(json.loads(line)["event"] for line in done.stderr.splitlines())


def test_a_release_is_found_by_its_name_in_the_environment(tmp_path: Path) -> None:
    done = run_door(
        "--workflow", "-", "--output", "file", "--out-dir", tmp_path, stdin=SMOKE, COMFY_VERSION_NAME="demo"
    )
    assert done.returncode == 0, done.stderr


def test_the_lock_path_wins_over_the_name(tmp_path: Path) -> None:
    named = {"COMFY_VERSION_NAME": "demo", "LOCK_PATH": str(tmp_path / "no.json")}
    done = run_door("--workflow", "-", stdin=SMOKE, OUTPUT_MODE="base64", **named)
    assert done.returncode == 10
    assert b"no.json" in done.stderr


@pytest.mark.parametrize(
    ("words", "variable"),
    [((), b"GCS_BUCKET"), (("--output", "gcs"), b"GCS_BUCKET"), (("--output", "s3"), b"S3_BUCKET")],
)
def test_a_bucket_that_is_not_configured_is_said_by_its_variable(words: tuple[str, ...], variable: bytes) -> None:
    done = run_smoke(*words)
    assert done.returncode == 3
    assert variable in done.stderr
    assert b"Starting" not in done.stderr


def test_the_environment_chooses_the_output_mode() -> None:
    done = run_smoke(OUTPUT_MODE="base64")
    assert done.returncode == 0, done.stderr
    assert base64.b64decode(done.stdout, validate=False).startswith(b"\x89PNG")


def test_the_demo_is_a_picture_of_the_size_its_workflow_says(tmp_path: Path) -> None:
    done = run_door(
        "--lock", DEMO_LOCK, "--workflow", DEMO_WORKFLOW, "--output", "base64", "--out-file", tmp_path / "d.png"
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "d.png") as picture:
        assert picture.size == (1280, 800)


def test_help_names_every_documented_flag() -> None:
    done = run_door("--help")
    assert done.returncode == 0
    documented = {
        b"--lock",
        b"--workflow",
        b"--output",
        b"--out-file",
        b"--gcs-bucket",
        b"--gcs-prefix",
        b"--models-dir",
    }
    assert {flag for flag in {*documented, b"--verbose"} if flag not in done.stdout} == set()

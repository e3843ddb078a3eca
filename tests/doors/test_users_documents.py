"""What the users' own documents name, line by line: commands with their flags, variables with their defaults, paths.

These documents are older than most of comfypin and are not ours to change; a name or default that they hold stays.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from comfypin.cli.main import make_command_parser
from comfypin.lock.lookup import find_lock, release_folders
from comfypin.outputs.modes import DEFAULT_MODE, named_mode
from comfypin.settings.machine import MachineSettings
from comfypin.storage.gcs_settings import GcsSettings
from tests.support.door import ROOT, clean_environ

# Each command, and the words that it takes.
COMMANDS = {
    "python -m rp_handler.main": [
        *("--lock L", "--workflow W", "--output base64", "--output gcs", "--out-file F", "--gcs-bucket B"),
        *("--gcs-prefix P", "--models-dir D", "--verbose"),
    ],
    "scripts/build_docker.sh": ["--version NAME", "--tag TAG"],
    "scripts/verify_models.py": [
        *("--lock L", "--models-dir D", "--cache-dir D", "--overwrite", "--timeout 60", "--verbose"),
    ],
}
# What each variable is if nobody sets it: read from settings that were made of no variables.
MACHINE = MachineSettings.from_variables({})
GCS = GcsSettings.from_variables({"GCS_BUCKET": "b"})
DEFAULTS = {
    "COMFY_HOME": (MACHINE.comfy_home, Path("/opt/comfy")),
    "MODELS_DIR": (MACHINE.models_dir, Path("/opt/comfy/models")),
    "COMFY_VERSION_NAME": (MACHINE.version_name, None),
    "LOCK_PATH": (MACHINE.lock_path, None),
    "GOOGLE_APPLICATION_CREDENTIALS": (GCS.credentials_file, None),
    "GOOGLE_CLOUD_PROJECT": (GCS.project, None),
    "GCS_PREFIX": (GCS.prefix, "comfy/outputs"),
    "GCS_RETRIES": (GCS.retries, 3),
    "GCS_RETRY_BASE_SLEEP": (GCS.retry_base_sleep_s, 0.5),
    "GCS_PUBLIC": (GCS.public, False),
    "GCS_SIGNED_URL_TTL": (GCS.signed_url_ttl_s, 0),
    "GCS_VALIDATE": (GCS.validate, True),
}


def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = clean_environ(PYTHONPATH=str(ROOT), PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    command = list(map(str, words))
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("words", COMMANDS["python -m rp_handler.main"])
def test_the_handler_takes_its_flags(words: str) -> None:
    required = [] if words.startswith("--workflow") else ["--workflow", "W"]
    parsed = make_command_parser("run").parse_args([*required, *words.split()])
    flag, _, value = words.partition(" ")
    assert str(getattr(parsed, flag[2:].replace("-", "_"))) == (value or "True")


def test_the_handler_runs_from_a_clean_checkout(tmp_path: Path) -> None:
    workflow = tmp_path / "empty.json"
    workflow.write_text("{}")
    out = tmp_path / "smoke.png"
    words = (
        "--lock",
        "lockfiles/comfy-demo.lock.json",
        "--workflow",
        workflow,
        "--output",
        "base64",
        "--out-file",
        out,
    )
    ran = run(sys.executable, "-m", "rp_handler.main", *words, "--models-dir", tmp_path, "--verbose", cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert out.read_bytes().startswith(b"\x89PNG")


def test_models_are_verified_by_every_flag_of_the_script(tmp_path: Path) -> None:
    words = (
        "--lock",
        ROOT / "lockfiles/comfy-demo.lock.json",
        "--models-dir",
        tmp_path / "m",
        "--cache-dir",
        tmp_path / "c",
    )
    script = ROOT / "scripts/verify_models.py"
    ran = run(sys.executable, script, *words, "--overwrite", "--timeout", "60", "--verbose", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_an_image_is_planned_by_the_flags_of_the_script(tmp_path: Path) -> None:
    ran = run(ROOT / "scripts/build_docker.sh", "--version", "demo", "--tag", "demo:1", "--dry-run", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("demo on ")


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_variable_has_the_default_that_is_written(name: str) -> None:
    found, written = DEFAULTS[name]
    assert found == written


def test_outputs_go_to_google_if_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text("{}")
    ran = run(sys.executable, "-m", "rp_handler.main", "--lock", "demo", "--workflow", "empty.json", cwd=tmp_path)
    assert ran.returncode == 3
    assert "GCS_BUCKET" in ran.stderr
    assert (DEFAULT_MODE, named_mode({"OUTPUT_MODE": "gcs"})) == ("gcs", "gcs")


def test_both_names_of_the_project_are_read() -> None:
    for name in ("GOOGLE_CLOUD_PROJECT", "GCS_PROJECT"):
        assert GcsSettings.from_variables({"GCS_BUCKET": "b", name: "p"}).project == "p"


def test_a_release_is_looked_up_where_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert release_folders()[:2] == (Path("/app/lockfiles"), Path("lockfiles"))
    (tmp_path / "lockfiles").mkdir()
    for name in ("one", "two"):
        (tmp_path / f"lockfiles/comfy-{name}.lock.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_lock(None, version_name="one") == Path("lockfiles/comfy-one.lock.json")
    # LOCK_PATH wins.
    other = Path("lockfiles/comfy-two.lock.json")
    assert find_lock(None, lock_path=other, version_name="one") == other


def test_the_names_stand_in_the_reference_of_variables() -> None:
    for page in ("docs/environment.md", "docs/ru/environment.md"):
        text = (ROOT / page).read_text()
        assert [
            name for name in (*DEFAULTS, "GCS_BUCKET", "OUTPUT_MODE", "GCS_PROJECT") if f"`{name}`" not in text
        ] == []

"""`comfypin lock show|check|schema` as a user calls them."""

import json
from pathlib import Path

import pytest

from comfypin.cli.main import main

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

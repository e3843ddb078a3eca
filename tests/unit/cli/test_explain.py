"""`comfypin explain`: every declared error by its name, with its cause and what to do."""

import json
import re

import pytest

from comfypin.cli.explain import list_errors
from comfypin.cli.main import main


def test_an_error_is_found_by_its_name_in_any_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "enginenotfound"]) == 0
    told = capsys.readouterr().out
    assert "EngineNotFound (family config, exit code 3)" in told
    assert "Point --comfy-home or COMFY_HOME at the folder of a ComfyUI" in told


def test_an_exit_code_lists_its_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "75", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert {entry["exit_code"] for entry in entries} == {75}


def test_a_misspelt_name_is_offered_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "LockNotFuond"]) == 64
    assert "did you mean LockNotFound?" in capsys.readouterr().err


def test_every_error_has_a_cause_and_a_remedy() -> None:
    entries = list(list_errors())
    assert len(entries) > 100
    assert [entry.name for entry in entries if len(entry.cause) < 10 or not entry.remedy] == []


def test_no_remedy_is_a_mere_finding() -> None:
    remedies = {entry.name: entry.remedy for entry in list_errors()}
    assert remedies["LockUnreadable"] == "comfypin lock check LOCK lists what is wrong with a lock."


def test_a_remedy_may_follow_several_sentences() -> None:
    remedies = {entry.name: entry.remedy for entry in list_errors()}
    assert remedies["NoRoomForEnv"] == "Make room (comfypin env gc), or choose another --home."
    assert remedies["PickleRefused"].startswith("Use a .safetensors file, or set ")


def test_a_lock_that_is_not_there_is_not_to_be_checked() -> None:
    (found,) = (entry for entry in list_errors() if entry.name == "LockNotFound")
    assert found.message == "There is no lock WANTED."
    assert "lockfiles/comfy-NAME.lock.json" in found.remedy


def test_no_words_run_together_in_what_is_shown() -> None:
    together = re.compile(r"[a-z][A-Z]{3}|[A-Z]{3}[a-rt-z]|[.)][A-Z]{2}")
    shown = {entry.name: entry.message for entry in list_errors() if entry.message}
    assert "pythonVERSION" in shown.pop("PythonMissing"), "the name of a Debian package"
    assert {name: text for name, text in shown.items() if together.search(text)} == {}
